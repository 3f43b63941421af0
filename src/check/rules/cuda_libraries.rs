//! cuDNN is there where PyTorch needs it, and new enough; what stands beside PyTorch is built for the same CUDA.

use super::{Facts, Findings, Group, Rule, Subject};
use crate::check::{
    cuda::{Backend, Cuda, backend, vllm_build},
    facts::{Image, Wheel, upstream},
};
use pep440_rs::Version;

pub(super) const RULE: Rule = Rule {
    group: Group::Software,
    name: "cuda-libraries",
    otherwise: "no image of the recipe holds PyTorch for CUDA",
    apply,
};

/// The least versions for training with Transformers.
const LEAST_CUDA: Cuda = Cuda::new(11, 8);
const LEAST_CUDNN: &str = "8.6";

fn apply(facts: &Facts, findings: &mut Findings) {
    for image in &facts.images {
        let Some(torch) = image.wheel("torch") else { continue };
        let Backend::Cuda(cuda) = backend(torch, image) else { continue };
        let subject = Subject::image(&image.name);
        if cuda < LEAST_CUDA {
            let reason =
                format!("torch {} is built for CUDA {cuda}, and {LEAST_CUDA} or newer is needed", torch.version);
            findings.fail(subject, reason, format!("take a build for CUDA {LEAST_CUDA} or newer"));
            continue;
        }
        one_family(findings, image, torch, cuda);
        match (cudnn(image), LEAST_CUDNN.parse::<Version>()) {
            (Some(version), Ok(least)) if version < least => {
                let reason = format!("cuDNN is {version}, and {least} or newer is needed");
                findings.fail(subject, reason, "take a newer torch");
            }
            (Some(version), _) => findings.pass(subject, format!("CUDA {cuda} with cuDNN {version}")),
            // Builds from PyTorch's own index of before 2.2 carry it inside, and require none.
            (None, _) => match torch.requires.iter().find(|requirement| is_cudnn(requirement.name.as_ref())) {
                Some(requirement) => {
                    let reason = format!("torch {} takes cuDNN from a wheel that is not there", torch.version);
                    findings.fail(subject, reason, format!("add `{}`, and lock again", requirement.name));
                }
                None => {
                    let reason = "which cuDNN torch carries is not known";
                    let remedy = "ask it on a machine with it: `torch.backends.cudnn.version()`";
                    findings.unresolved(subject, reason, remedy);
                }
            },
        }
    }
}

/// vLLM loads the runtime of the CUDA that it was built for, and finds there only the one that PyTorch brings.
fn one_family(findings: &mut Findings, image: &Image, torch: &Wheel, cuda: Cuda) {
    let Some(vllm) = image.wheel("vllm") else { return };
    let family = match backend(vllm, image) {
        Backend::Cuda(own) => Some(own.major),
        _ => vllm_build(&vllm.version).map(|build| build.family),
    };
    if let Some(family) = family.filter(|family| *family != cuda.major) {
        let reason = format!(
            "vllm {} is built for CUDA {family}.x, and torch {} beside it for CUDA {cuda}",
            vllm.version, torch.version
        );
        findings.fail(
            Subject::image(&image.name),
            reason,
            format!("take a torch for CUDA {family}.x, as vllm pins it"),
        );
    }
}

/// Whether a distribution carries cuDNN. Whether it is there is told here, and not once more among the dependencies.
pub(super) fn is_cudnn(name: &str) -> bool {
    name.starts_with("nvidia-cudnn-cu")
}

fn cudnn(image: &Image) -> Option<Version> {
    let wheel = image.wheels.iter().find(|wheel| is_cudnn(wheel.name.as_ref()));
    let debian = || image.debian.iter().find(|package| package.name.starts_with("libcudnn"));
    wheel.map(|wheel| wheel.version.clone()).or_else(|| upstream(&debian()?.version).parse().ok())
}

//! cuDNN is there where PyTorch needs it, and new enough.

use super::{Facts, Findings, Group, Rule, Subject};
use crate::check::{
    cuda::{Backend, Cuda, backend},
    facts::{Image, upstream},
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
        match (cudnn(image), LEAST_CUDNN.parse::<Version>()) {
            (Some(version), Ok(least)) if version < least => {
                let reason = format!("cuDNN is {version}, and {least} or newer is needed");
                findings.fail(subject, reason, "take a newer torch");
            }
            (Some(version), _) => findings.pass(subject, format!("CUDA {cuda} with cuDNN {version}")),
            // Builds from PyTorch's own index of before 2.2 carry it inside.
            (None, _) if torch.requires.iter().any(|requirement| requirement.name.as_ref().starts_with("nvidia-")) => {
                findings.fail(subject, "torch takes cuDNN from a wheel that is not there", "add `nvidia-cudnn-cu12`");
            }
            (None, _) => {
                let reason = "which cuDNN torch carries is not known";
                findings.unresolved(subject, reason, "ask it on a machine with it: `torch.backends.cudnn.version()`");
            }
        }
    }
}

fn cudnn(image: &Image) -> Option<Version> {
    let wheel = image.wheels.iter().find(|wheel| wheel.name.as_ref().starts_with("nvidia-cudnn-cu"));
    let debian = || image.debian.iter().find(|package| package.name.starts_with("libcudnn"));
    wheel.map(|wheel| wheel.version.clone()).or_else(|| upstream(&debian()?.version).parse().ok())
}

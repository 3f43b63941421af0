//! The wheels hold code for the target's GPUs.

use super::{Facts, Findings, Group, Rule, Subject};
use crate::{
    check::{
        Status,
        cuda::{
            Backend, Build, Cuda, Fit, Library, backend, bitsandbytes_library, first_cuda, last_family, torch_build,
            vllm_build,
        },
        facts::{Image, Wheel},
    },
    recipe::{Capability, DriverVersion, Gpu, Job, Work},
};

pub(super) const RULE: Rule = Rule {
    group: Group::Infrastructure,
    name: "gpu-architecture",
    otherwise: "nothing in the recipe computes on GPUs",
    apply,
};

/// The least that bitsandbytes' 8-bit products are written for.
const INT8_LEAST: Capability = Capability::new(7, 5);

fn apply(facts: &Facts, findings: &mut Findings) {
    let Some(gpu) = facts.target.as_ref().and_then(|target| target.gpu) else { return };
    let driver = facts.driver.as_ref().map(|driver| &driver.version);
    for image in &facts.images {
        let uses = |job: &Job| job.image == image.name && job.work != Work::Other && !job.is_for_processor();
        let used = facts.jobs.iter().any(uses);
        let Some(torch) = image.wheel("torch") else {
            debian_torch(findings, image, &gpu, used);
            continue;
        };
        match backend(torch, image) {
            Backend::Cuda(cuda) => {
                // What stands beside torch follows its CUDA, and where torch does not fit, nothing else is to blame.
                torch_fits(findings, image, torch, cuda, &gpu, driver);
                if findings.worst(&Subject::image(&image.name)) != Some(Status::Fail) {
                    vllm(findings, image, &gpu);
                    bitsandbytes(findings, image, cuda, &gpu);
                }
            }
            Backend::Cpu | Backend::Foreign if used => {
                let reason =
                    format!("torch {} does not compute on NVIDIA GPUs, and a job of this image is to", torch.version);
                findings.fail(Subject::image(&image.name), reason, "take a build for CUDA (`+cu128`)");
            }
            Backend::Cpu | Backend::Foreign => {}
            Backend::Unknown => {
                let reason = format!("torch {} does not say for which CUDA it is built", torch.version);
                findings.unresolved(
                    Subject::image(&image.name),
                    reason,
                    "take a build whose version says so (`+cu128`)",
                );
            }
        }
    }
}

/// Debian builds PyTorch without CUDA under this name, and with it under another.
fn debian_torch(findings: &mut Findings, image: &Image, gpu: &Gpu, used: bool) {
    if used && image.debian_package("python3-torch").is_some() {
        let reason =
            format!("`python3-torch` does not compute on GPUs, and a job of this image is to use the {}", gpu.name);
        findings.fail(Subject::image(&image.name), reason, "take a wheel of torch for CUDA");
    }
}

fn torch_fits(
    findings: &mut Findings,
    image: &Image,
    torch: &Wheel,
    cuda: Cuda,
    gpu: &Gpu,
    driver: Option<&DriverVersion>,
) {
    let subject = Subject::image(&image.name);
    let of = format!("torch {} for CUDA {cuda}", torch.version);
    let first = first_cuda(gpu.capability);
    if cuda < first {
        let architecture = gpu.capability.architecture();
        let reason = format!("{of} does not know the {}: {architecture} begins with CUDA {first}", gpu.name);
        findings.fail(subject, reason, format!("take a build for CUDA {first} or newer"));
        return;
    }
    if let Some(last) = last_family(gpu.capability).filter(|last| cuda.major > *last) {
        let reason =
            format!("{of} no longer knows the {}: {} ends with CUDA {last}.x", gpu.name, gpu.capability.architecture());
        findings.fail(subject, reason, format!("take a build for CUDA {last}.x"));
        return;
    }
    match torch_build(&torch.version, cuda) {
        None => {
            let reason = format!("it is not known for which GPUs {of} holds code");
            findings.unresolved(subject, reason, "ask it on a machine with it: `torch.cuda.get_arch_list()`");
        }
        Some(build) => fits(findings, subject, &of, &build, cuda, gpu, driver),
    }
}

fn fits(
    findings: &mut Findings,
    subject: Subject,
    of: &str,
    build: &Build,
    cuda: Cuda,
    gpu: &Gpu,
    driver: Option<&DriverVersion>,
) {
    let card = format!("the {} (compute capability {})", gpu.name, gpu.capability);
    match build.fit(gpu.capability) {
        Fit::Machine => findings.pass(subject, format!("{of} holds code for {card}")),
        Fit::Compiled => {
            let own = cuda.own_driver();
            if let Some(own) = own.filter(|own| driver.is_some_and(|driver| driver < own)) {
                let reason = format!("{of} holds only PTX for {card}, which needs driver {own} or newer");
                findings.fail(subject, reason, format!("take driver {own} or newer, or a build with code for it"));
            } else {
                let reason = format!("{of} holds only PTX for {card}: the driver compiles it at the first start");
                findings.warn(subject, reason, "take a build with code for it");
            }
        }
        Fit::Never => {
            let reason = format!("{of} holds no code for {card}, only for {build}");
            findings.fail(subject, reason, "take a build with code for it");
        }
    }
}

fn vllm(findings: &mut Findings, image: &Image, gpu: &Gpu) {
    let Some(vllm) = image.wheel("vllm") else { return };
    let Some(build) = vllm_build(&vllm.version) else {
        let reason = format!("it is not known for which GPUs vllm {} holds code", vllm.version);
        findings.unresolved(Subject::image(&image.name), reason, "try it on a machine with the GPU");
        return;
    };
    if gpu.capability < build.least {
        let reason = format!(
            "vllm {} needs compute capability {} or newer, and the {} has {}",
            vllm.version, build.least, gpu.name, gpu.capability
        );
        findings.fail(Subject::image(&image.name), reason, "serve with another engine, or take another GPU");
    }
}

fn bitsandbytes(findings: &mut Findings, image: &Image, cuda: Cuda, gpu: &Gpu) {
    let Some(wheel) = image.wheel("bitsandbytes") else { return };
    let subject = Subject::image(&image.name);
    let of = format!("bitsandbytes {} beside CUDA {cuda}", wheel.version);
    match bitsandbytes_library(&wheel.version, cuda) {
        Library::Built(build) => fits(findings, subject, &of, &build, cuda, gpu, None),
        Library::Missing => {
            let reason = format!("bitsandbytes {} holds no library for CUDA {cuda}", wheel.version);
            findings.fail(subject, reason, "take a newer bitsandbytes, or a torch for another CUDA");
            return;
        }
        Library::Unknown => {
            let reason = format!("it is not known for which GPUs {of} holds code");
            findings.unresolved(subject, reason, "run `python -m bitsandbytes` on a machine with it");
            return;
        }
    }
    if gpu.capability < INT8_LEAST {
        let reason = format!(
            "8-bit products of bitsandbytes need compute capability {INT8_LEAST}, and the {} has {}",
            gpu.name, gpu.capability
        );
        findings.warn(Subject::image(&image.name), reason, "use 4 bits (NF4), which older GPUs know");
    }
}

//! The driver knows the GPUs, and runs what was built for the CUDA in the images.

use super::{Facts, Findings, Group, Rule, Subject};
use crate::check::{
    cuda::{Backend, Cuda, backend, last_branch, oldest_driver_for},
    facts::{Driver, Image},
};
use crate::recipe::Gpu;
use std::collections::BTreeMap;

pub(super) const RULE: Rule =
    Rule { group: Group::Infrastructure, name: "driver", otherwise: "nothing in the recipe computes on GPUs", apply };

fn apply(facts: &Facts, findings: &mut Findings) {
    let gpu = facts.target.as_ref().and_then(|target| target.gpu);
    let used: Vec<(&Image, BTreeMap<Cuda, &str>)> =
        facts.images.iter().map(|image| (image, cudas(image))).filter(|(_, cudas)| !cudas.is_empty()).collect();
    if gpu.is_none() && used.is_empty() {
        return;
    }
    let Some(driver) = &facts.driver else {
        let remedy = "add the driver's packages to the image that boots, or `driver = \"570.124.06\"` to `[target]`";
        findings.unresolved(Subject::RECIPE, "the version of the NVIDIA driver is not known", remedy);
        return;
    };
    if let Some(gpu) = &gpu {
        knows(findings, driver, gpu);
    }
    for (image, cudas) in used {
        for (cuda, wheel) in cudas {
            runs(findings, driver, gpu.as_ref(), image, cuda, wheel);
        }
    }
}

/// The versions of CUDA that wheels of an image were built for, each with one of the wheels.
fn cudas(image: &Image) -> BTreeMap<Cuda, &str> {
    let computing = image.wheels.iter().filter(|wheel| {
        let name = wheel.name.as_ref();
        !name.starts_with("nvidia-") && name != "cuda-toolkit"
    });
    let found = computing.filter_map(|wheel| match backend(wheel, image) {
        Backend::Cuda(cuda) => Some((cuda, wheel.name.as_ref())),
        Backend::Cpu | Backend::Foreign | Backend::Unknown => None,
    });
    found.collect()
}

fn knows(findings: &mut Findings, driver: &Driver, gpu: &Gpu) {
    let Driver { version, origin } = driver;
    if let Some(oldest) = oldest_driver_for(gpu).filter(|oldest| version < oldest) {
        let architecture = gpu.capability.architecture();
        let reason = format!(
            "driver {version} ({origin}) is older than {oldest}, the first that knows {architecture}, and does not know the {}",
            gpu.name
        );
        findings.fail(Subject::RECIPE, reason, format!("take driver {oldest} or newer"));
    } else if let Some(last) = last_branch(gpu.capability).filter(|last| version.branch() > *last) {
        let reason = format!(
            "driver {version} ({origin}) no longer knows the {}: the last branch that does is {last}",
            gpu.name
        );
        findings.fail(Subject::RECIPE, reason, format!("take a driver of branch {last}"));
    } else {
        findings.pass(Subject::RECIPE, format!("driver {version} ({origin}) knows the {}", gpu.name));
    }
}

fn runs(findings: &mut Findings, driver: &Driver, gpu: Option<&Gpu>, image: &Image, cuda: Cuda, wheel: &str) {
    let subject = Subject::image(&image.name);
    let version = &driver.version;
    let Some(oldest) = cuda.oldest_driver() else {
        let reason = format!("`{wheel}` is built for CUDA {cuda}, of which this release knows no oldest driver");
        findings.unresolved(subject, reason, "see the release notes of CUDA, table 2");
        return;
    };
    if *version < oldest {
        if let Some(package) = compat_package(image, cuda).filter(|_| gpu.is_some_and(|gpu| gpu.data_center)) {
            let reason =
                format!("`{wheel}` is built for CUDA {cuda}, and driver {version} runs it through `{package}`");
            findings.warn(subject, reason, "a driver of its own family is simpler");
            return;
        }
        let reason = format!(
            "`{wheel}` is built for CUDA {cuda}, which needs driver {oldest} or newer; driver {version} ({}) is older",
            driver.origin
        );
        findings.fail(subject, reason, remedy(cuda, version));
        return;
    }
    match cuda.own_driver() {
        Some(own) if *version < own => {
            let reason = format!(
                "`{wheel}` is built for CUDA {cuda}, and driver {version} runs it by minor-version compatibility: any \
                 {}.x on driver {oldest} or newer, except for code that the driver compiles (PTX) and features newer \
                 than the driver; nothing is limited from driver {own} on",
                cuda.major
            );
            findings.pass(subject, reason);
        }
        _ => findings.pass(subject, format!("`{wheel}` is built for CUDA {cuda}, which driver {version} runs")),
    }
}

/// The package that lets an older driver run this CUDA (forward compatibility).
fn compat_package(image: &Image, cuda: Cuda) -> Option<&str> {
    let package = format!("cuda-compat-{}-{}", cuda.major, cuda.minor);
    image.debian_package(&package).map(|package| package.name.as_str())
}

fn remedy(cuda: Cuda, driver: &crate::recipe::DriverVersion) -> String {
    let oldest = cuda.oldest_driver().map_or_else(String::new, |oldest| oldest.to_string());
    let older = (11..cuda.major).rev().map(|major| Cuda::new(major, 0));
    let fits = older.into_iter().find(|cuda| cuda.oldest_driver().is_some_and(|oldest| *driver >= oldest));
    match fits {
        Some(cuda) => format!("take driver {oldest} or newer, or wheels for CUDA {}.x", cuda.major),
        None => format!("take driver {oldest} or newer"),
    }
}

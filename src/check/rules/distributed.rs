//! Training on several GPUs has what it is set up by.

use super::{
    Facts, Findings, Group, Rule, Subject,
    configuration::{is_true, values},
};
use crate::recipe::{Job, Sharding, Target, Trainer, Work};
use pep440_rs::Version;
use serde_json::Value;

pub(super) const RULE: Rule = Rule {
    group: Group::Software,
    name: "distributed",
    otherwise: "no job of the recipe trains on several GPUs",
    apply,
};

/// FSDP as Accelerate uses it begins with this PyTorch.
const FSDP_TORCH: &str = "2.2";

fn apply(facts: &Facts, findings: &mut Findings) {
    for job in &facts.jobs {
        let Work::Train(training) = &job.work else { continue };
        let all = |target: &Target| u64::from(job.gpus.unwrap_or(target.count)) * u64::from(target.nodes);
        let total = facts.target.as_ref().map_or(1, all);
        let subject = Subject::job(&job.name);
        let owner = format!("job {}", job.name);
        let configs: Vec<&Value> = facts.configs_of(&owner).map(|(_, content)| content).collect();
        let by_hugging_face = matches!(training.trainer, Trainer::Transformers | Trainer::Trl);
        match training.sharding {
            Sharding::Fsdp if by_hugging_face => fsdp(findings, subject, facts, job, &configs),
            Sharding::Zero1 | Sharding::Zero2 | Sharding::Zero3 if by_hugging_face => {
                deepspeed(findings, subject, training.sharding, &configs);
            }
            _ if total > 1 && by_hugging_face => {
                launched(findings, subject, job, total, facts.target.as_ref().map_or(1, |target| target.nodes));
            }
            _ => {}
        }
    }
}

fn fsdp(findings: &mut Findings, subject: Subject, facts: &Facts, job: &Job, configs: &[&Value]) {
    let torch = facts.image(&job.image).and_then(|image| image.python_package("torch"));
    let old =
        |version: &Version| FSDP_TORCH.parse::<Version>().is_ok_and(|least| version.clone().without_local() < least);
    if let Some(version) = torch.filter(old) {
        let reason = format!("`sharding = \"fsdp\"` needs torch {FSDP_TORCH} or newer, and the image has {version}");
        findings.fail(subject, reason, format!("ask for `torch>={FSDP_TORCH}`"));
        return;
    }
    let set = |content: &&&Value| {
        let accelerate = values(content, "distributed_type").any(|value| value.as_str() == Some("FSDP"));
        accelerate || values(content, "fsdp").any(is_true) || values(content, "fsdp_config").next().is_some()
    };
    if configs.iter().any(|content| set(&content)) {
        findings.pass(subject, "FSDP is configured");
    } else {
        let reason = "`sharding = \"fsdp\"` needs a configuration, and none of `configs` has one";
        let remedy = "add Accelerate's configuration (`distributed_type: FSDP`) to `configs`";
        findings.fail(subject, reason, remedy);
    }
}

fn deepspeed(findings: &mut Findings, subject: Subject, sharding: Sharding, configs: &[&Value]) {
    let stage = match sharding {
        Sharding::Zero1 => 1,
        Sharding::Zero2 => 2,
        _ => 3,
    };
    let stages: Vec<u64> = configs
        .iter()
        .flat_map(|content| values(content, "zero_optimization"))
        .filter_map(|zero| zero.get("stage")?.as_u64())
        .chain(configs.iter().flat_map(|content| values(content, "zero_stage")).filter_map(Value::as_u64))
        .collect();
    let name = sharding.name();
    if stages.contains(&stage) {
        findings.pass(subject, format!("DeepSpeed is configured for stage {stage}"));
    } else if let Some(other) = stages.first() {
        let reason =
            format!("`sharding = \"{name}\"` is stage {stage}, and DeepSpeed's configuration has stage {other}");
        findings.fail(subject, reason, "make both the same");
    } else {
        let reason = format!("`sharding = \"{name}\"` needs a configuration, and none of `configs` has one");
        findings.fail(subject, reason, "add DeepSpeed's configuration (`zero_optimization`) to `configs`");
    }
}

fn launched(findings: &mut Findings, subject: Subject, job: &Job, total: u64, nodes: u32) {
    const LAUNCHERS: [&str; 4] = ["torchrun", "accelerate", "torch.distributed.run", "deepspeed"];
    let by_launcher = job.run.iter().any(|word| {
        let name = word.rsplit('/').next().unwrap_or(word);
        LAUNCHERS.contains(&name)
    });
    let own = job.run.iter().any(|word| word.contains("{gpus}"));
    if by_launcher || own {
        findings.pass(subject, format!("a launcher starts one process for each of {total} GPUs"));
    } else if nodes == 1 {
        findings.pass(subject, format!("the appliance starts it under torchrun, one process for each of {total} GPUs"));
    } else {
        let reason =
            format!("it trains on {total} GPUs of {nodes} nodes, and `run` does not start one process for each");
        findings.warn(subject, reason, "start it with `torchrun` or `accelerate launch`");
    }
}

//! The network between nodes and storage.

use super::{Facts, Findings, Group, Rule, Subject};
use crate::recipe::Work;

pub(super) const RULE: Rule = Rule {
    group: Group::Infrastructure,
    name: "network",
    otherwise: "everything runs on one node, which needs no network to others",
    apply,
};

fn apply(facts: &Facts, findings: &mut Findings) {
    let Some(target) = facts.target.as_ref().filter(|target| target.nodes > 1) else { return };
    if facts.jobs.iter().any(|job| matches!(job.work, Work::Train(_))) {
        let reason = format!("{} nodes train together, and nothing is known of the network between them", target.nodes);
        let remedy = "provide InfiniBand or Ethernet of 200 Gbit/s or more, and measure it with nccl-tests";
        findings.unresolved(Subject::RECIPE, reason, remedy);
    }
}

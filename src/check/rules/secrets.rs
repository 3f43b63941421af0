//! No layer and no environment of an image holds keys, tokens or credentials.

use super::{Facts, Findings, Group, Rule, Subject};
use crate::check::secrets::secret_variables;

pub(super) const RULE: Rule =
    Rule { group: Group::Software, name: "secrets", otherwise: "the recipe has no layers", apply };

/// Most places that are named for one layer.
const SHOWN: usize = 20;

fn apply(facts: &Facts, findings: &mut Findings) {
    for image in &facts.images {
        for (name, kind) in secret_variables(&image.env) {
            let reason = format!("the variable `{name}` of its environment looks like a {kind}");
            let remedy = "take it out and revoke it: whoever has the image reads it";
            findings.fail(Subject::image(&image.name), reason, remedy);
        }
    }
    let (mut scanned, mut harmless) = (0, 0);
    for layer in &facts.layers {
        let subject = Subject::layer(&layer.name);
        let Some(found) = &layer.secrets else {
            findings.unresolved(
                subject,
                "it is not built yet, and was not looked through",
                "build first: `gapimage build`",
            );
            continue;
        };
        scanned += 1;
        let secrets = &found.findings;
        harmless += secrets.iter().filter(|finding| finding.came_with_package).count();
        let real: Vec<_> = secrets.iter().filter(|finding| !finding.came_with_package).collect();
        for finding in real.iter().take(SHOWN) {
            let reason = format!("{}:{} looks like a {}", finding.path, finding.line, finding.kind);
            let remedy = "take it out and revoke it; if it opens nothing, name the path under `[secrets] allow`";
            findings.fail(subject.clone(), reason, remedy);
        }
        if real.len() > SHOWN {
            let least = if found.is_cut { "at least " } else { "" };
            let reason = format!("{least}{} places more look like secrets", real.len() - SHOWN);
            findings.fail(subject, reason, "take them out and revoke them");
        }
    }
    if scanned > 0 {
        let known = match harmless {
            0 => String::new(),
            some => format!("; keys that came with packages and do not count: {some}"),
        };
        findings.pass(Subject::RECIPE, format!("layers that were looked through: {scanned}{known}"));
    }
}

//! Decoding of `[licenses]`, `[secrets]` and `[acceptance]`.

use super::{DATASETS, Mention, job::carried};
use crate::{
    layer::tree::TreePath,
    recipe::{
        Acceptance, Criterion, LicensePolicy, SecretPolicy,
        problem::{Problems, nearest, suggestion},
        section::{Placed, Section, string},
        value::{Kind, Value},
    },
};
use spdx::{Expression, Licensee};
use std::collections::BTreeMap;

/// Comparisons, the longer before those that they begin with.
const COMPARISONS: [&str; 4] = ["<=", ">=", "<", ">"];

pub(super) fn licenses(value: &Value, problems: &Problems) -> Option<LicensePolicy> {
    let mut section = Section::open("`[licenses]`", value, problems)?;
    section.required("allow", "[\"Apache-2.0\", \"MIT\"]");
    let allow = licensees(&section.strings("allow"), problems);
    let exceptions = section.any("exceptions").and_then(|value| exceptions(value, problems)).unwrap_or_default();
    let clarified = section.string_table("clarify");
    let clarify = clarified.into_iter().filter_map(|(name, expression)| {
        if let Err(error) = Expression::parse(expression.value) {
            let message = format!("`{}` is no SPDX expression: {}", expression.value.escape_debug(), error.reason);
            problems.add_with_help(expression.at, message, "such as `Apache-2.0 OR MIT`, or `LicenseRef-NAME`");
            return None;
        }
        Some((name, expression.value.to_owned()))
    });
    let clarify = clarify.collect();
    section.finish();
    Some(LicensePolicy { allow, exceptions, clarify })
}

fn exceptions(value: &Value, problems: &Problems) -> Option<BTreeMap<String, Vec<String>>> {
    let mut exceptions = BTreeMap::new();
    for (key, value) in Section::open("`exceptions` of `[licenses]`", value, problems)?.entries() {
        let named = format!("the exception for `{}`", key.name.escape_debug());
        let Kind::Array(items) = &value.kind else {
            let message = format!("{named} should be a list, but this is {}", value.kind.type_name());
            problems.add_with_help(&value.at, message, "put it in `[ ]`");
            continue;
        };
        let texts: Vec<_> = items.iter().filter_map(|item| string(&key.name, item, problems)).collect();
        exceptions.insert(key.name.clone(), licensees(&texts, problems));
    }
    Some(exceptions)
}

fn licensees(texts: &[Placed<'_, &str>], problems: &Problems) -> Vec<String> {
    let good = texts.iter().filter(|text| match Licensee::parse(text.value) {
        Ok(_) => true,
        Err(_) => {
            let known: Vec<&str> = spdx::identifiers::LICENSES.iter().map(|license| license.name).collect();
            let help = match nearest(text.value, known) {
                Some(near) => format!("did you mean `{near}`?"),
                None => "an SPDX identifier such as `Apache-2.0`, or `LicenseRef-NAME`".to_owned(),
            };
            problems.add_with_help(text.at, format!("`{}` is no SPDX licence", text.value.escape_debug()), help);
            false
        }
    });
    good.map(|text| text.value.to_owned()).collect()
}

pub(super) fn secrets(value: &Value, problems: &Problems) -> Option<SecretPolicy> {
    let mut section = Section::open("`[secrets]`", value, problems)?;
    let allow = section.strings("allow").into_iter().filter(|path| {
        let good = path.value.starts_with('/') && TreePath::new(path.value).is_ok_and(|path| !path.is_root());
        if !good {
            let help = "an absolute path in the image; with `/` at the end, all below it";
            problems.add_with_help(path.at, format!("`{}` is no path", path.value.escape_debug()), help);
        }
        good
    });
    let allow = allow.map(|path| path.value.to_owned()).collect();
    section.finish();
    Some(SecretPolicy { allow })
}

pub(super) fn acceptance(value: &Value, mentions: &mut Vec<Mention>, problems: &Problems) -> Option<Acceptance> {
    let mut section = Section::open("`[acceptance]`", value, problems)?;
    let test_set = section.string("test_set").map(|name| carried(DATASETS, &name, mentions));
    let owned = |texts: Vec<Placed<'_, &str>>| texts.iter().map(|text| text.value.to_owned()).collect::<Vec<_>>();
    let metrics = owned(section.strings("metrics"));
    let baselines = owned(section.strings("baselines"));
    let criteria = section.strings("criteria");
    let criteria = criteria.iter().filter_map(|text| criterion(text, &metrics, problems)).collect();
    section.finish();
    Some(Acceptance { test_set, metrics, baselines, criteria })
}

fn criterion(text: &Placed<'_, &str>, metrics: &[String], problems: &Problems) -> Option<Criterion> {
    let found = COMPARISONS.iter().find_map(|comparison| Some((comparison, text.value.split_once(comparison)?)));
    let parts = found.map(|(comparison, (metric, bound))| (*comparison, metric.trim(), bound.trim()));
    let number = |bound: &str| bound.parse::<f64>().is_ok_and(f64::is_finite);
    let Some((comparison, metric, bound)) = parts.filter(|(_, metric, bound)| !metric.is_empty() && number(bound))
    else {
        let help = "a metric, one of `<`, `<=`, `>`, `>=`, and a number: `accuracy >= 0.9`";
        problems.add_with_help(text.at, format!("`{}` is no criterion", text.value.escape_debug()), help);
        return None;
    };
    if !metrics.iter().any(|known| known == metric) {
        let known: Vec<&str> = metrics.iter().map(String::as_str).collect();
        let message = format!("`{}` is none of `metrics`", metric.escape_debug());
        problems.add_with_help(text.at, message, suggestion(metric, &known));
        return None;
    }
    Some(Criterion { metric: metric.to_owned(), comparison, bound: bound.to_owned() })
}

//! Decoding of `[dataset.NAME]`.

use super::{
    DATASETS, MODELS, Mention, checked,
    hub::{self, globs},
};
use crate::recipe::{
    DatasetLayer, DatasetSource, FileBeside, Preparation, TokenizerSource, name,
    problem::Problems,
    section::{Placed, Section, wrong_type},
    value::{Kind, Value},
};
use gap_data::{
    BadRows,
    container::{Container, Delimiter, TextUnit},
    duplicates::Near,
    format::{Columns, Format, Slot},
    pii::{OwnPattern, PiiAction},
    split::Splitting,
};
use gap_format::Digest;
use std::collections::BTreeMap;

const CONTAINERS: [(&str, Container); 6] = [
    ("jsonl", Container::Jsonl),
    ("csv", Container::Csv { delimiter: Delimiter::Comma }),
    ("csv-semicolon", Container::Csv { delimiter: Delimiter::Semicolon }),
    ("tsv", Container::Csv { delimiter: Delimiter::Tab }),
    ("parquet", Container::Parquet),
    ("text", Container::Text),
];
const FORMATS: [(&str, Format); 4] = [
    ("instruction", Format::Instruction),
    ("conversation", Format::Conversation),
    ("preference", Format::Preference),
    ("text", Format::Text),
];
const UNITS: [(&str, TextUnit); 3] =
    [("line", TextUnit::Line), ("paragraph", TextUnit::Paragraph), ("document", TextUnit::Document)];
const BAD_ROWS: [(&str, BadRows); 2] = [("refuse", BadRows::Refuse), ("leave-out", BadRows::LeaveOut)];
/// Whether exact duplicates are left out, and what happens to near ones.
const DEDUPE: [(&str, (bool, Near)); 4] = [
    ("near", (true, Near::Remove)),
    ("together", (true, Near::Together)),
    ("exact", (true, Near::Off)),
    ("off", (false, Near::Off)),
];
const PII: [(&str, PiiAction); 4] = [
    ("redact", PiiAction::Redact),
    ("report", PiiAction::Report),
    ("refuse", PiiAction::Refuse),
    ("off", PiiAction::Off),
];
const SLOTS: [(&str, Slot); 10] = [
    ("instruction", Slot::Instruction),
    ("input", Slot::Input),
    ("output", Slot::Output),
    ("system", Slot::System),
    ("messages", Slot::Messages),
    ("tools", Slot::Tools),
    ("prompt", Slot::Prompt),
    ("chosen", Slot::Chosen),
    ("rejected", Slot::Rejected),
    ("text", Slot::Text),
];

/// Decodes the data set `name`.
pub(super) fn dataset(
    name: &str,
    value: &Value,
    mentions: &mut Vec<Mention>,
    problems: &Problems,
) -> Option<DatasetLayer> {
    let mut section = Section::open(format!("the data set `{name}`"), value, problems)?;
    let source = source(name, &mut section, problems);
    let tokenizer = section.any("tokenizer").and_then(|value| tokenizer(name, value, mentions, problems));
    let preparation = Preparation { tokenizer, ..preparation(&mut section, problems) };
    let license = section.string("license").map(|license| license.value.to_owned());
    section.finish();
    Some(DatasetLayer { source: source?, preparation, license })
}

fn source(name: &str, section: &mut Section<'_>, problems: &Problems) -> Option<DatasetSource> {
    let (path, url, hub) = (section.string("path"), section.string("url"), section.string("hub"));
    let sha256 = section.string("sha256");
    let beside_hub = hub::Keys::take(section);
    let (include, exclude) = (globs(section, "include"), globs(section, "exclude"));
    if url.is_none()
        && let Some(other) = &sha256
    {
        let help = "the lock notes the digests of everything else";
        problems.add_with_help(other.at, "`sha256` is for a `url`", help);
    }
    if hub.is_none() {
        beside_hub.refuse(problems);
        if !(include.is_empty() && exclude.is_empty()) {
            let help = "take them out, or name a directory that holds just these files";
            problems.add_with_help(section.at, "`include` and `exclude` mean nothing without `hub`", help);
        }
    }
    match (path, url, hub) {
        (Some(path), None, None) => beside(&path, problems).map(DatasetSource::Path),
        (None, Some(url), None) => at_address(name, &url, sha256.as_ref(), problems),
        (None, None, Some(hub)) => {
            let repository = beside_hub.repository(&hub, problems)?;
            Some(DatasetSource::Hub { repository, include, exclude })
        }
        (None, None, None) => {
            section.missing("path", "\"FILE OR DIRECTORY\"");
            None
        }
        (path, url, hub) => {
            let given = [("path", path), ("url", url), ("hub", hub)];
            let mut given = given.iter().filter_map(|(key, value)| Some((key, value.as_ref()?)));
            if let (Some((one, _)), Some((other, value))) = (given.next(), given.next()) {
                let message = format!("the data set `{name}` has both `{one}` and `{other}`");
                problems.add_with_help(value.at, message, "leave out one of the two");
            }
            None
        }
    }
}

fn at_address(
    name: &str,
    url: &Placed<'_, &str>,
    sha256: Option<&Placed<'_, &str>>,
    problems: &Problems,
) -> Option<DatasetSource> {
    let Some(sha256) = sha256 else {
        let help = "add `sha256 = \"…\"`: what comes from an address is only taken if it is what you meant";
        problems.add_with_help(url.at, format!("the data set `{name}` has a `url` and no `sha256`"), help);
        return None;
    };
    let address = checked("the address of a data set", url.value, url.at, name::mirror, problems);
    let digest = Digest::from_hex(sha256.value).ok().or_else(|| sha256.value.parse().ok());
    if digest.is_none() {
        problems.add_with_help(sha256.at, "`sha256` is no digest", "64 lower-case hexadecimal digits");
    }
    Some(DatasetSource::Url { url: address?.to_owned(), sha256: digest? })
}

fn beside(path: &Placed<'_, &str>, problems: &Problems) -> Option<FileBeside> {
    let shown = format!("the path `{}`", path.value.escape_debug());
    let written = checked(&shown, path.value, path.at, name::confined_path, problems)?;
    Some(FileBeside { base: path.at.file.dir().to_owned(), path: written.to_owned() })
}

fn preparation(section: &mut Section<'_>, problems: &Problems) -> Preparation {
    let usual = Preparation::default();
    let (exact, near) = choice(section, "dedupe", &DEDUPE, problems).unwrap_or((usual.exact, usual.near));
    Preparation {
        container: choice(section, "container", &CONTAINERS, problems),
        text: choice(section, "text", &UNITS, problems).unwrap_or(usual.text),
        format: choice(section, "format", &FORMATS, problems),
        columns: columns(section, problems),
        bad_rows: choice(section, "bad_rows", &BAD_ROWS, problems).unwrap_or(usual.bad_rows),
        exact,
        near,
        similarity: similarity(section, problems).unwrap_or(usual.similarity),
        pii: choice(section, "pii", &PII, problems).unwrap_or(usual.pii),
        patterns: patterns(section, problems),
        split: split(section, problems),
        tokenizer: None,
    }
}

/// A file beside the recipe, or `{ model = "NAME" }`.
fn tokenizer(
    dataset: &str,
    value: &Value,
    mentions: &mut Vec<Mention>,
    problems: &Problems,
) -> Option<TokenizerSource> {
    match &value.kind {
        Kind::String(path) => {
            beside(&Placed { value: path.as_str(), at: &value.at }, problems).map(TokenizerSource::Beside)
        }
        Kind::Table(_) => {
            let mut section = Section::open("`tokenizer`".to_owned(), value, problems)?;
            section.required("model", "\"MODEL\"");
            let model = section.string("model");
            section.finish();
            let Placed { value: name, at } = model?;
            let layer = format!("{MODELS}{name}");
            let by_layer = Some(format!("{DATASETS}{dataset}"));
            mentions.push(Mention { layer: layer.clone(), at: at.clone(), by_layer });
            Some(TokenizerSource::Model(layer))
        }
        _ => {
            wrong_type("tokenizer", "a path or `{ model = \"NAME\" }`", value, problems);
            None
        }
    }
}

/// One of a few words, if the key is there.
fn choice<T: Copy>(
    section: &mut Section<'_>,
    key: &'static str,
    choices: &[(&str, T)],
    problems: &Problems,
) -> Option<T> {
    let word = section.string(key)?;
    let found = choices.iter().find(|(name, _)| *name == word.value).map(|&(_, value)| value);
    if found.is_none() {
        let names: Vec<String> = choices.iter().map(|(name, _)| format!("`{name}`")).collect();
        let message = format!("`{key}` cannot be `{}`", word.value.escape_debug());
        problems.add_with_help(word.at, message, format!("one of {}", names.join(", ")));
    }
    found
}

fn columns(section: &mut Section<'_>, problems: &Problems) -> Columns {
    let mut columns = Columns::new();
    for (key, column) in section.string_table("columns") {
        match SLOTS.iter().find(|(name, _)| *name == key) {
            Some(&(_, slot)) => {
                columns.insert(slot, column.value.to_owned());
            }
            None => {
                let names: Vec<&str> = SLOTS.iter().map(|&(name, _)| name).collect();
                let message = format!("no format has a part `{}`", key.escape_debug());
                problems.add_with_help(column.at, message, format!("one of {}", names.join(", ")));
            }
        }
    }
    columns
}

fn similarity(section: &mut Section<'_>, problems: &Problems) -> Option<u8> {
    let percent = section.integer("similarity")?;
    let found = u8::try_from(percent.value).ok().filter(|value| (50..=100).contains(value));
    if found.is_none() {
        let message = format!("`similarity = {}` is no similarity of near duplicates", percent.value);
        problems.add_with_help(percent.at, message, "a whole percentage from 50 to 100");
    }
    found
}

fn patterns(section: &mut Section<'_>, problems: &Problems) -> BTreeMap<String, String> {
    let mut patterns = BTreeMap::new();
    for (name, pattern) in section.string_table("patterns") {
        match OwnPattern::new(&name, pattern.value) {
            Ok(_) => {
                patterns.insert(name, pattern.value.to_owned());
            }
            Err(error) => problems.add(pattern.at, error.to_string()),
        }
    }
    patterns
}

fn split(section: &mut Section<'_>, problems: &Problems) -> Splitting {
    let Some(text) = section.string("split").filter(|text| text.value != "by-size") else { return Splitting::BySize };
    text.value.parse().map(Splitting::Fixed).unwrap_or_else(|error: gap_data::split::ParseRatiosError| {
        problems.add_with_help(text.at, error.to_string(), "or `by-size`: 80/10/10, and 90/5/5 under 10,000 examples");
        Splitting::BySize
    })
}

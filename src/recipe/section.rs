//! Reading one table: each key asked for becomes a known key, and what is left over is an error.

use super::{
    problem::{At, Problems, suggestion},
    value::{Key, Kind, Table, Value},
};
use std::collections::BTreeMap;

/// A table that is being read.
pub(super) struct Section<'t> {
    /// What the table is, for messages (`[appliance]`, "the layer `base`").
    pub what: String,
    /// Where it is.
    pub at: &'t At,
    table: &'t Table,
    problems: &'t Problems,
    asked: Vec<&'static str>,
}

/// A value with its place.
#[derive(Debug, Clone)]
pub(super) struct Placed<'t, T> {
    pub value: T,
    pub at: &'t At,
}

impl<'t> Section<'t> {
    /// Reads `value` as a table; notes a problem if it is none.
    pub fn open(what: impl Into<String>, value: &'t Value, problems: &'t Problems) -> Option<Self> {
        let what = what.into();
        match &value.kind {
            Kind::Table(table) => Some(Self { what, at: &value.at, table, problems, asked: Vec::new() }),
            other => {
                problems.add_with_help(
                    &value.at,
                    format!("{what} should be a table, but this is {}", other.type_name()),
                    "write it as `[…]` with keys below, or as `{ key = value }`",
                );
                None
            }
        }
    }

    /// The value at `key`, whatever its type.
    pub fn any(&mut self, key: &'static str) -> Option<&'t Value> {
        self.asked.push(key);
        self.table.get(key).map(|(_, value)| value)
    }

    /// The value at `key`; notes a problem if it is missing.
    pub fn required(&mut self, key: &'static str, example: &str) -> Option<&'t Value> {
        let found = self.any(key);
        if found.is_none() {
            self.missing(key, example);
        }
        found
    }

    /// Notes that `key` is missing.
    pub fn missing(&self, key: &str, example: &str) {
        let help = format!("add `{key} = {example}`");
        self.problems.add_with_help(self.at, format!("{} has no `{key}`", self.what), help);
    }

    /// All entries, in the order written; nothing in this table is unknown then.
    pub fn entries(&self) -> impl Iterator<Item = (&'t Key, &'t Value)> + use<'t> {
        self.table.entries.iter().map(|(key, value)| (key, value))
    }

    /// A string, if the key is there.
    pub fn string(&mut self, key: &'static str) -> Option<Placed<'t, &'t str>> {
        let value = self.any(key)?;
        string(key, value, self.problems)
    }

    /// A boolean, or `default` if the key is not there.
    pub fn boolean(&mut self, key: &'static str, default: bool) -> bool {
        match self.any(key) {
            None => default,
            Some(Value { kind: Kind::Boolean(boolean), .. }) => *boolean,
            Some(value) => {
                wrong_type(key, "`true` or `false`", value, self.problems);
                default
            }
        }
    }

    /// An integer, if the key is there.
    pub fn integer(&mut self, key: &'static str) -> Option<Placed<'t, i64>> {
        match self.any(key)? {
            Value { kind: Kind::Integer(integer), at } => Some(Placed { value: *integer, at }),
            value => {
                wrong_type(key, "an integer", value, self.problems);
                None
            }
        }
    }

    /// A number, with a fraction or without, if the key is there.
    pub fn number(&mut self, key: &'static str) -> Option<Placed<'t, f64>> {
        match self.any(key)? {
            Value { kind: Kind::Float(number), at } => Some(Placed { value: *number, at }),
            #[allow(clippy::cast_precision_loss, reason = "nobody writes numbers that large")]
            Value { kind: Kind::Integer(integer), at } => Some(Placed { value: *integer as f64, at }),
            value => {
                wrong_type(key, "a number", value, self.problems);
                None
            }
        }
    }

    /// A list, if the key is there.
    pub fn list(&mut self, key: &'static str) -> Option<Placed<'t, &'t [Value]>> {
        match self.any(key)? {
            Value { kind: Kind::Array(items), at } => Some(Placed { value: items.as_slice(), at }),
            value => {
                wrong_type(key, "a list", value, self.problems);
                None
            }
        }
    }

    /// A list of strings; empty if the key is not there.
    pub fn strings(&mut self, key: &'static str) -> Vec<Placed<'t, &'t str>> {
        let items = self.list(key).map_or(&[][..], |list| list.value);
        items.iter().filter_map(|item| string(key, item, self.problems)).collect()
    }

    /// A table of strings; empty if the key is not there.
    pub fn string_table(&mut self, key: &'static str) -> BTreeMap<String, Placed<'t, &'t str>> {
        let Some(value) = self.any(key) else { return BTreeMap::new() };
        let Some(section) = Section::open(format!("`{key}`"), value, self.problems) else { return BTreeMap::new() };
        section
            .entries()
            .filter_map(|(name, value)| Some((name.name.clone(), string(&name.name, value, self.problems)?)))
            .collect()
    }

    /// Notes every key that nobody asked for.
    pub fn finish(self) {
        for (key, _) in &self.table.entries {
            if !self.asked.contains(&key.name.as_str()) {
                let message = format!("unknown key `{}` in {}", key.name, self.what);
                self.problems.add_with_help(&key.at, message, suggestion(&key.name, &self.asked));
            }
        }
    }
}

/// `value` as a string; notes a problem if it is none.
pub(super) fn string<'t>(key: &str, value: &'t Value, problems: &Problems) -> Option<Placed<'t, &'t str>> {
    match value {
        Value { kind: Kind::String(text), at } => Some(Placed { value: text, at }),
        _ => {
            wrong_type(key, "a string", value, problems);
            None
        }
    }
}

/// Notes that `key` should be something else.
pub(super) fn wrong_type(key: &str, wanted: &str, value: &Value, problems: &Problems) {
    let message = format!("`{key}` should be {wanted}, but this is {}", value.kind.type_name());
    match &value.kind {
        Kind::String(_) if wanted == "a list" => problems.add_with_help(&value.at, message, "put it in `[ ]`"),
        Kind::Integer(_) | Kind::Boolean(_) | Kind::Float(_) if wanted == "a string" => {
            problems.add_with_help(&value.at, message, "put it in quotes");
        }
        Kind::String(text) if wanted == "an integer" && text.parse::<i64>().is_ok() => {
            problems.add_with_help(&value.at, message, "take the quotes away");
        }
        Kind::String(text) if wanted == "`true` or `false`" && text.parse::<bool>().is_ok() => {
            problems.add_with_help(&value.at, message, "take the quotes away");
        }
        _ => problems.add(&value.at, message),
    }
}

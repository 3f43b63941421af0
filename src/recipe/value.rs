//! TOML values that know where they were written.

use super::problem::{At, Problems, SourceFile};

use std::{ops::Range, sync::Arc};
use toml::{
    Spanned,
    de::{DeTable, DeValue},
    value::Datetime,
};

/// A value and its place.
#[derive(Debug, Clone)]
pub(super) struct Value {
    pub kind: Kind,
    pub at: At,
}

/// What a value is.
#[derive(Debug, Clone)]
pub(super) enum Kind {
    String(String),
    Integer(i64),
    Float(f64),
    Boolean(bool),
    Datetime(Datetime),
    Array(Vec<Value>),
    Table(Table),
}

/// A table in the order in which it was written.
#[derive(Debug, Clone, Default)]
pub(super) struct Table {
    pub entries: Vec<(Key, Value)>,
}

/// A key and its place.
#[derive(Debug, Clone)]
pub(super) struct Key {
    pub name: String,
    pub at: At,
}

impl Kind {
    /// The type with its article, for messages.
    pub const fn type_name(&self) -> &'static str {
        match self {
            Self::String(_) => "a string",
            Self::Integer(_) => "an integer",
            Self::Float(_) => "a number with a fraction",
            Self::Boolean(_) => "a boolean",
            Self::Datetime(_) => "a date",
            Self::Array(_) => "a list",
            Self::Table(_) => "a table",
        }
    }
}

impl Table {
    /// The entry of this name.
    pub fn get(&self, name: &str) -> Option<(&Key, &Value)> {
        self.entries.iter().find(|(key, _)| key.name == name).map(|(key, value)| (key, value))
    }
}

/// Parses a whole file. Its syntax errors are noted; `None` if there were any.
pub(super) fn parse(file: &Arc<SourceFile>, problems: &Problems) -> Option<Value> {
    let (root, errors) = DeTable::parse_recoverable(file.text());
    // The parser goes on after an error and then stumbles over its consequences.
    if let Some(error) = errors.first() {
        let at = At { file: Arc::clone(file), span: error.span().unwrap_or(0..0) };
        problems.add(&at, format!("this is not TOML: {}", error.message().replace('\n', ", ")));
    }
    if !errors.is_empty() {
        return None;
    }
    let reader = Reader { file, problems };
    let span = root.span();
    Some(Value { kind: reader.table(root.get_ref()), at: reader.at(span) })
}

struct Reader<'a> {
    file: &'a Arc<SourceFile>,
    problems: &'a Problems,
}

impl Reader<'_> {
    fn at(&self, span: Range<usize>) -> At {
        At { file: Arc::clone(self.file), span }
    }

    fn table(&self, table: &DeTable<'_>) -> Kind {
        let mut entries: Vec<(Key, Value)> = table
            .iter()
            .map(|(key, value)| {
                let name = Key { name: key.get_ref().to_string(), at: self.at(key.span()) };
                (name, self.value(value))
            })
            .collect();
        entries.sort_by_key(|(key, _)| key.at.span.start);
        Kind::Table(Table { entries })
    }

    fn value(&self, value: &Spanned<DeValue<'_>>) -> Value {
        let at = self.at(value.span());
        let kind = match value.get_ref() {
            DeValue::String(text) => Kind::String(text.to_string()),
            DeValue::Integer(integer) => {
                Kind::Integer(i64::from_str_radix(integer.as_str(), integer.radix()).unwrap_or_else(|_| {
                    self.problems.add(&at, "this number is too large");
                    i64::MAX
                }))
            }
            DeValue::Float(float) => Kind::Float(float.as_str().parse().unwrap_or(f64::NAN)),
            DeValue::Boolean(boolean) => Kind::Boolean(*boolean),
            DeValue::Datetime(datetime) => Kind::Datetime(*datetime),
            DeValue::Array(items) => Kind::Array(items.iter().map(|item| self.value(item)).collect()),
            DeValue::Table(table) => self.table(table),
        };
        Value { kind, at }
    }
}

//! JSON as Python's `json.dumps` writes it, for the filter `tojson` of chat templates: the letters of a prompt must be those
//! that a model was trained on.

use minijinja::{
    Error, ErrorKind, Value,
    value::{Kwargs, Rest, ValueKind, ValueOrKwargs, from_args},
};
use std::fmt::Write;

/// Names of the options, in the order that they may be given in without them.
const OPTIONS: [&str; 4] = ["ensure_ascii", "indent", "separators", "sort_keys"];
/// Most values within one another.
const MAX_DEPTH: usize = 200;
/// Widest indentation of one level, in bytes.
const MAX_INDENT: usize = 64;

/// The filter. Transformers' own has these options in this order, leaves HTML alone and letters as they are.
///
/// # Errors
/// For what is no JSON, and for options that Python does not know.
pub fn to_json(value: &Value, options: Rest<ValueOrKwargs>) -> Result<String, Error> {
    let options = options.into_values();
    let (placed, named): (&[Value], Kwargs) = from_args(&options)?;
    if placed.len() > OPTIONS.len() {
        return Err(wrong(format!("`tojson` has {} options, not {}", OPTIONS.len(), placed.len())));
    }
    let option = |place: usize| -> Result<Option<Value>, Error> {
        let found = match (placed.get(place), OPTIONS.get(place)) {
            (None, Some(name)) => named.get(name)?,
            (found, _) => found.cloned(),
        };
        Ok(found.filter(|value| !value.is_none() && !value.is_undefined()))
    };
    let ensure_ascii = option(0)?.is_some_and(|value| value.is_true());
    let indent = option(1)?.map(|value| indentation(&value)).transpose()?;
    let separators = option(2)?.map(|value| pair(&value)).transpose()?;
    let sort_keys = option(3)?.is_some_and(|value| value.is_true());
    named.assert_all_used()?;
    let between = if indent.is_some() { "," } else { ", " };
    let (item, key) = separators.unwrap_or_else(|| (between.to_owned(), ": ".to_owned()));
    let mut writer = Writer { ensure_ascii, indent, item, key, sort_keys, out: String::new() };
    writer.value(value, 0)?;
    Ok(writer.out)
}

fn wrong(what: impl Into<String>) -> Error {
    Error::new(ErrorKind::InvalidOperation, what.into())
}

/// A number of spaces, or a text.
fn indentation(value: &Value) -> Result<String, Error> {
    let text = match value.as_str() {
        Some(text) => text.to_owned(),
        None => {
            let count = i64::try_from(value.clone())?;
            // Python takes a negative number for none.
            " ".repeat(usize::try_from(count.max(0)).unwrap_or(usize::MAX).min(MAX_INDENT + 1))
        }
    };
    if text.len() > MAX_INDENT {
        return Err(wrong(format!("`tojson` indents by at most {MAX_INDENT}")));
    }
    Ok(text)
}

/// What stands between items, and between a key and its value.
fn pair(value: &Value) -> Result<(String, String), Error> {
    let parts: Vec<Value> = value.try_iter()?.collect();
    match parts.as_slice() {
        [item, key] => match (item.as_str(), key.as_str()) {
            (Some(item), Some(key)) => Ok((item.to_owned(), key.to_owned())),
            _ => Err(wrong("the `separators` of `tojson` are texts")),
        },
        other => Err(wrong(format!("`tojson` has two `separators`, not {}", other.len()))),
    }
}

struct Writer {
    ensure_ascii: bool,
    indent: Option<String>,
    item: String,
    key: String,
    sort_keys: bool,
    out: String,
}

impl Writer {
    fn value(&mut self, value: &Value, depth: usize) -> Result<(), Error> {
        if depth > MAX_DEPTH {
            return Err(wrong(format!("`tojson` is given more than {MAX_DEPTH} values within one another")));
        }
        match value.kind() {
            ValueKind::None => self.out.push_str("null"),
            ValueKind::Bool => self.out.push_str(if value.is_true() { "true" } else { "false" }),
            ValueKind::Number => self.out.push_str(&number(value)?),
            ValueKind::String => self.text(value.as_str().unwrap_or_default()),
            // Slices are made as they are gone through.
            ValueKind::Seq | ValueKind::Iterable => {
                let items: Vec<Value> = value.try_iter()?.collect();
                self.items(['[', ']'], depth, items, |writer, item| writer.value(&item, depth + 1))?;
            }
            ValueKind::Map => {
                let mut keys: Vec<Value> = value.try_iter()?.collect();
                if self.sort_keys {
                    keys.sort();
                }
                self.items(['{', '}'], depth, keys, |writer, key| {
                    writer.text(&name(&key)?);
                    writer.out.push_str(&writer.key.clone());
                    writer.value(&value.get_item(&key)?, depth + 1)
                })?;
            }
            ValueKind::Undefined => return Err(wrong("Object of type Undefined is not JSON serializable")),
            other => return Err(wrong(format!("Object of type {other} is not JSON serializable"))),
        }
        Ok(())
    }

    fn items(
        &mut self,
        [open, close]: [char; 2],
        depth: usize,
        items: Vec<Value>,
        mut one: impl FnMut(&mut Self, Value) -> Result<(), Error>,
    ) -> Result<(), Error> {
        self.out.push(open);
        let empty = items.is_empty();
        for (index, item) in items.into_iter().enumerate() {
            if index > 0 {
                self.out.push_str(&self.item.clone());
            }
            self.line(depth + 1);
            one(self, item)?;
        }
        if !empty {
            self.line(depth);
        }
        self.out.push(close);
        Ok(())
    }

    /// A new line, where there are lines at all.
    fn line(&mut self, depth: usize) {
        if let Some(indent) = &self.indent {
            self.out.push('\n');
            for _ in 0..depth {
                self.out.push_str(indent);
            }
        }
    }

    fn text(&mut self, text: &str) {
        self.out.push('"');
        for letter in text.chars() {
            match letter {
                '"' => self.out.push_str("\\\""),
                '\\' => self.out.push_str("\\\\"),
                '\n' => self.out.push_str("\\n"),
                '\r' => self.out.push_str("\\r"),
                '\t' => self.out.push_str("\\t"),
                '\u{8}' => self.out.push_str("\\b"),
                '\u{c}' => self.out.push_str("\\f"),
                ' '..='~' => self.out.push(letter),
                '\u{7f}'.. if !self.ensure_ascii => self.out.push(letter),
                _ => {
                    for unit in letter.encode_utf16(&mut [0; 2]) {
                        // Writing to a text cannot fail.
                        let _ = write!(self.out, "\\u{unit:04x}");
                    }
                }
            }
        }
        self.out.push('"');
    }
}

/// A key as text: Python writes out those that are none.
fn name(key: &Value) -> Result<String, Error> {
    match key.kind() {
        ValueKind::String => Ok(key.as_str().unwrap_or_default().to_owned()),
        ValueKind::Number => number(key),
        ValueKind::Bool => Ok(if key.is_true() { "true" } else { "false" }.to_owned()),
        ValueKind::None => Ok("null".to_owned()),
        other => Err(wrong(format!("keys must be texts, numbers, booleans or none, not {other}"))),
    }
}

/// A number as Python's `repr` writes it.
fn number(value: &Value) -> Result<String, Error> {
    if value.is_integer() {
        return Ok(value.to_string());
    }
    Ok(float(f64::try_from(value.clone())?))
}

fn float(value: f64) -> String {
    if value.is_nan() {
        return "NaN".to_owned();
    }
    if value.is_infinite() {
        return if value > 0.0 { "Infinity" } else { "-Infinity" }.to_owned();
    }
    // The fewest digits that tell it from others, as in Python; what differs is when an exponent is written, and how.
    let short = format!("{value:e}");
    let Some((digits, exponent)) = short.split_once('e') else { return short };
    let exponent: i32 = exponent.parse().unwrap_or_default();
    if (-4..16).contains(&exponent) {
        return format!("{value:?}");
    }
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{digits}e{sign}{:02}", exponent.unsigned_abs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn floats_are_written_as_python_writes_them() {
        for (value, expected) in [
            (1.0, "1.0"),
            (-0.0, "-0.0"),
            (0.1 + 0.2, "0.30000000000000004"),
            (1e15, "1000000000000000.0"),
            (1e16, "1e+16"),
            (1.5e300, "1.5e+300"),
            (0.0001, "0.0001"),
            (0.00001, "1e-05"),
            (-1.25e-10, "-1.25e-10"),
        ] {
            assert_eq!(float(value), expected);
        }
    }
}

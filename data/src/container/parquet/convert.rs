//! Decoded rows as JSON values.

use super::super::{Broken, Content, lines::too_long, weight};
use crate::{Json, problem::Kind};
use parquet::record::{Field, Row};

/// Why a value has no JSON form.
struct NotText(String);

/// A row as named fields.
pub(super) fn row(row: &Row, limit: usize) -> Content {
    match object(row) {
        Ok(value) if weight(&value) > limit => too_long(limit),
        Ok(value) => Content::Fields(value),
        Err(NotText(name)) => {
            let mut broken = Broken::new(Kind::Encoding, "binary data that is not UTF-8");
            broken.0.field = Some(name);
            Content::Broken(broken)
        }
    }
}

fn object(row: &Row) -> Result<Json, NotText> {
    let mut entries: Vec<(String, Json)> = Vec::with_capacity(row.len());
    for (name, field) in row.get_column_iter() {
        let value = value(field).map_err(|NotText(inner)| {
            NotText(if inner.is_empty() { name.clone() } else { format!("{name}.{inner}") })
        })?;
        entries.push((name.clone(), value));
    }
    Ok(Json::Object(entries))
}

fn value(field: &Field) -> Result<Json, NotText> {
    Ok(match field {
        Field::Null => Json::Null,
        Field::Bool(value) => Json::Bool(*value),
        Field::Byte(value) => Json::Number((*value).into()),
        Field::Short(value) => Json::Number((*value).into()),
        Field::Int(value) => Json::Number((*value).into()),
        Field::Long(value) => Json::Number((*value).into()),
        Field::UByte(value) => Json::Number((*value).into()),
        Field::UShort(value) => Json::Number((*value).into()),
        Field::UInt(value) => Json::Number((*value).into()),
        Field::ULong(value) => Json::Number((*value).into()),
        Field::Float(value) => float(f64::from(*value)),
        Field::Double(value) => float(*value),
        Field::Str(value) => Json::Text(value.clone()),
        // Some writers do not mark texts as such.
        Field::Bytes(value) => {
            let text = std::str::from_utf8(value.data()).map_err(|_| NotText(String::new()))?;
            Json::Text(text.to_owned())
        }
        Field::Group(row) => object(row)?,
        Field::ListInternal(list) => Json::List(list.elements().iter().map(value).collect::<Result<_, _>>()?),
        Field::MapInternal(map) => {
            let mut entries: Vec<(String, Json)> = Vec::new();
            for (key, item) in map.entries() {
                let Json::Text(key) = value(key)? else { return Err(NotText(String::new())) };
                entries.push((key, value(item)?));
            }
            Json::Object(entries)
        }
        // Times, dates, decimals and half floats are no part of any format.
        other => Json::Text(other.to_string()),
    })
}

fn float(value: f64) -> Json {
    serde_json::Number::from_f64(value).map_or(Json::Null, Json::Number)
}

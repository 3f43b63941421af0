use super::{Columns, Format, FormatError, Sample, Schema, Slot, read_row, recognise};
use crate::{Json, container::Content, problem::Kind};
use proptest::prelude::*;

fn sample(text: &str) -> Sample {
    match Json::parse(text.as_bytes()).unwrap() {
        Json::Object(entries) => Sample::Fields(entries),
        _ => unreachable!(),
    }
}

fn recognised(rows: &[&str]) -> Result<Schema, FormatError> {
    let samples: Vec<Sample> = rows.iter().map(|row| sample(row)).collect();
    recognise(&samples, None, &Columns::new())
}

/// The line that a row becomes, or the kinds of all that is wrong with it and where.
fn read(row: &str) -> Result<String, Vec<String>> {
    let read = read_row(Content::Json(row.into()), &recognised(&[row]).unwrap());
    let faults: Vec<String> =
        read.faults.iter().map(|fault| format!("{} {}", fault.kind, fault.field.as_deref().unwrap_or("-"))).collect();
    read.example.map(|example| serde_json::to_string(&example).unwrap()).ok_or(faults)
}

fn wrong(row: &str) -> String {
    read(row).unwrap_err().join(", ")
}

#[test]
fn each_format_is_recognised_and_said_why() {
    let format = |row| recognised(&[row]).unwrap().format;
    assert_eq!(format(r#"{"instruction":"a","input":"","output":"b"}"#), Format::Instruction);
    assert_eq!(format(r#"{"question":"a","answer":"b","id":1}"#), Format::Instruction);
    assert_eq!(format(r#"{"messages":[]}"#), Format::Conversation);
    assert_eq!(format(r#"{"conversations":[]}"#), Format::Conversation);
    assert_eq!(format(r#"{"prompt":"a","chosen":"b","rejected":"c"}"#), Format::Preference);
    assert_eq!(format(r#"{"chosen":[],"rejected":[],"messages":[]}"#), Format::Preference);
    assert_eq!(format(r#"{"text":"a"}"#), Format::Text);
    let schema =
        recognised(&[r#"{"prompt":"a","response":"b"}"#, r#"{"prompt":"a","response":"b"}"#, r#"{"x":1}"#]).unwrap();
    assert_eq!(schema.because, "2 of the first 3 rows have `prompt` and `response`");
}

#[test]
fn what_is_not_recognised_names_the_columns() {
    let error = recognised(&[r#"{"frage":"a","antwort":"b"}"#]).unwrap_err().to_string();
    assert!(error.contains("`frage`, `antwort`"), "{error}");
    let named = Columns::from([(Slot::Instruction, "frage".to_owned()), (Slot::Output, "antwort".to_owned())]);
    let schema = recognise(&[sample(r#"{"frage":"a","antwort":"b"}"#)], None, &named).unwrap();
    let read = read_row(Content::Json(br#"{"frage":"a","antwort":"b"}"#.to_vec()), &schema);
    assert_eq!(serde_json::to_string(&read.example).unwrap(), r#"{"instruction":"a","input":"","output":"b"}"#);
    let stated = recognise(&[sample(r#"{"text":"a"}"#)], Some(Format::Preference), &Columns::new()).unwrap_err();
    assert_eq!(
        stated.to_string(),
        "the format is to be preference, and no row that was looked at has `chosen`, `rejected`; its columns are `text`"
    );
    let slot = recognise(&[sample(r#"{"text":"a"}"#)], None, &Columns::from([(Slot::Chosen, "x".to_owned())]));
    assert!(matches!(slot, Err(FormatError::Slot { .. })));
    assert!(matches!(
        recognise(&[Sample::Text], Some(Format::Instruction), &Columns::new()),
        Err(FormatError::Stated { .. })
    ));
}

#[test]
fn instructions_are_read() {
    let line = r#"{"instruction":"a","input":"","output":"b"}"#;
    assert_eq!(read(r#"{"instruction":"a","input":null,"output":"b","id":7}"#).unwrap(), line);
    assert_eq!(read(r#"{"output":"b","instruction":"a"}"#).unwrap(), line);
    assert_eq!(
        read(r#"{"prompt":"a","completion":5,"system":"s"}"#).unwrap(),
        r#"{"system":"s","instruction":"a","input":"","output":"5"}"#
    );
    assert_eq!(wrong(r#"{"instruction":"a","output":" \n"}"#), "empty output");
    assert_eq!(
        wrong(r#"{"instruction":"a\u0000","output":"\u001b[1m"}"#),
        "control-character instruction, control-character output"
    );
    assert_eq!(wrong(r#"{"instruction":["a"],"output":"b"}"#), "type instruction");
}

#[test]
fn conversations_are_read_in_all_their_spellings() {
    let line = r#"{"messages":[{"role":"system","content":"s"},{"role":"user","content":"a"},{"role":"assistant","content":"b"}]}"#;
    for row in [
        line,
        r#"{"conversations":[{"from":"system","value":"s"},{"from":"human","value":"a"},{"from":"gpt","value":"b"}]}"#,
        r#"{"system":"s","conversations":[{"role":"user","content":"a"},{"role":"assistant","content":"b"}]}"#,
        r#"{"messages":[{"role":"developer","content":"s"},{"role":"user","content":[{"type":"text","text":"a"}]},{"role":"assistant","content":"b","weight":1}]}"#,
        r#"{"messages":"[{\"role\":\"system\",\"content\":\"s\"},{\"role\":\"user\",\"content\":\"a\"},{\"role\":\"assistant\",\"content\":\"b\"}]"}"#,
    ] {
        assert_eq!(read(row).unwrap(), line, "{row}");
    }
    let tools = r#"{"messages":[{"role":"user","content":"a"},{"role":"assistant","content":"","tool_calls":[{"id":"1"}]},{"role":"tool","content":"r","tool_call_id":"1"},{"role":"assistant","content":"b"}],"tools":[{"x":1}]}"#;
    assert_eq!(read(tools).unwrap(), tools);
}

#[test]
fn what_is_wrong_with_turns_is_said_once_and_where() {
    let turns = |turns: &str| {
        let turn = |letter: char| match letter {
            's' => r#"{"role":"system","content":"x"}"#,
            'u' => r#"{"role":"user","content":"x"}"#,
            'a' => r#"{"role":"assistant","content":"x"}"#,
            't' => r#"{"role":"tool","content":"x"}"#,
            'e' => r#"{"role":"assistant","content":" "}"#,
            'n' => r#"{"role":"user"}"#,
            'r' => r#"{"role":"narrator","content":"x"}"#,
            _ => "5",
        };
        format!(r#"{{"messages":[{}]}}"#, turns.chars().map(turn).collect::<Vec<_>>().join(","))
    };
    for (given, expected) in [
        ("", "empty messages"),
        ("u", "no-assistant messages"),
        ("a", "role-order messages[0]"),
        ("uu", "role-order messages[1], no-assistant messages"),
        ("uaau", "role-order messages[2], open-end messages"),
        ("usa", "role-order messages[1]"),
        ("uta", "role-order messages[1]"),
        ("ue", "empty messages[1].content"),
        ("na", "missing messages[0].content"),
        ("ra", "role messages[0].role"),
        ("u5", "type messages[1]"),
    ] {
        assert_eq!(wrong(&turns(given)), expected, "{given}");
    }
    // Warnings only.
    assert!(read(&turns("uau")).is_ok());
    assert!(read(&turns("suaua")).is_ok());
    assert_eq!(wrong(r#"{"messages":{"role":"user"}}"#), "type messages");
    assert_eq!(wrong(r#"{"messages":"[{"}"#), "json messages");
    assert_eq!(wrong(r#"{"messages":[{"role":"user","content":[{"type":"image_url"}]}]}"#), "type messages[0].content");
}

#[test]
fn preferences_are_read_as_texts_and_as_turns() {
    let texts = r#"{"prompt":"p","chosen":"c","rejected":"r"}"#;
    assert_eq!(read(texts).unwrap(), texts);
    let turns = r#"{"prompt":[{"role":"user","content":"p"}],"chosen":[{"role":"assistant","content":"c"}],"rejected":[{"role":"assistant","content":"r"}]}"#;
    let whole = r#"[{"role":"user","content":"p"},{"role":"assistant","content":"c"}]"#;
    for row in [
        turns.to_owned(),
        turns.replace(r#"[{"role":"user","content":"p"}]"#, r#""p""#),
        format!(r#"{{"chosen":{whole},"rejected":{}}}"#, whole.replace(r#""c""#, r#""r""#)),
        format!(r#"{{"prompt":"p","chosen":{whole},"rejected":{}}}"#, whole.replace(r#""c""#, r#""r""#)),
    ] {
        assert_eq!(read(&row).unwrap(), turns, "{row}");
    }
    assert_eq!(wrong(r#"{"prompt":"p","chosen":"c","rejected":"c"}"#), "no-preference rejected");
    assert_eq!(wrong(r#"{"prompt":"p","chosen":"c","rejected":[]}"#), "type rejected");
    assert_eq!(wrong(r#"{"chosen":"c","rejected":"r"}"#), "missing prompt");
    assert_eq!(wrong(&format!(r#"{{"chosen":{whole},"rejected":{whole}}}"#)), "no-preference rejected");
    let unasked = r#"[{"role":"assistant","content":"c"}]"#;
    assert_eq!(wrong(&format!(r#"{{"chosen":{unasked},"rejected":{unasked}}}"#)), "missing prompt");
}

#[test]
fn rows_of_the_wrong_kind_are_named() {
    let schema = recognised(&[r#"{"instruction":"a","output":"b"}"#]).unwrap();
    let kinds =
        |content| read_row(content, &schema).faults.iter().map(|fault| (fault.kind, fault.column)).collect::<Vec<_>>();
    assert_eq!(kinds(Content::Text(b"a".to_vec())), [(Kind::Format, None)]);
    assert_eq!(kinds(Content::Json(b"[1]".to_vec())), [(Kind::Type, None)]);
    assert_eq!(kinds(Content::Json(b"{\"a\":}".to_vec())), [(Kind::Json, Some(6))]);
    assert_eq!(kinds(Content::Json(b"{\"\xff\"".to_vec())), [(Kind::Encoding, Some(3))]);
    assert_eq!(kinds(Content::Json(b"{\"text\":\"x\"}".to_vec())), [(Kind::Missing, None), (Kind::Missing, None)]);
}

proptest! {
    #[test]
    fn rows_of_any_shape_give_an_answer(
        keys in proptest::collection::vec(prop::sample::select(vec!["messages", "role", "content", "chosen", "rejected", "prompt", "text", "from", "value", "output"]), 1..6),
        values in proptest::collection::vec(prop::sample::select(vec!["null", "1", "\"a\"", "[]", "{}", "[{\"role\":\"user\",\"content\":\"x\"}]", "[{\"role\":\"assistant\"}]", "\"[\""]), 6),
    ) {
        let mut keys = keys;
        keys.sort_unstable();
        keys.dedup();
        let fields: Vec<String> = keys.iter().zip(&values).map(|(key, value)| format!("\"{key}\":{value}")).collect();
        let row = format!("{{{}}}", fields.join(","));
        if let Ok(schema) = recognised(&[&row]) {
            let read = read_row(Content::Json(row.clone().into()), &schema);
            prop_assert!(read.example.is_some() || !read.faults.is_empty(), "{}", row);
            if let Some(example) = read.example {
                // What was made is taken again as it is.
                let line = serde_json::to_string(&example).unwrap();
                let again = read_row(Content::Json(line.clone().into()), &recognised(&[&line]).unwrap());
                prop_assert_eq!(again.example, Some(example));
            }
        }
    }
}

use super::super::{Reading, read_bytes};
use crate::{Json, Limits, container::Content, problem::Kind};
use parquet::{
    basic::Compression,
    column::writer::ColumnWriter,
    data_type::ByteArray,
    file::{properties::WriterProperties, writer::SerializedFileWriter},
    schema::parser::parse_message_type,
};
use proptest::prelude::*;
use std::sync::Arc;

const INSTRUCTION: &str = "message m { required binary instruction (UTF8); optional binary output (UTF8); }";
const MESSAGES: &str = "message m { optional group messages (LIST) { repeated group list { optional group element {
    optional binary role (UTF8); optional binary content (UTF8); } } } }";

/// A column of text: values, definition levels, repetition levels.
type Column<'a> = (&'a [&'a [u8]], &'a [i16], &'a [i16]);

fn written(schema: &str, columns: &[Column<'_>], compression: Compression) -> Vec<u8> {
    let schema = Arc::new(parse_message_type(schema).unwrap());
    let properties = Arc::new(WriterProperties::builder().set_compression(compression).build());
    let mut writer = SerializedFileWriter::new(Vec::new(), schema, properties).unwrap();
    let mut group = writer.next_row_group().unwrap();
    for (values, definition, repetition) in columns {
        let mut column = group.next_column().unwrap().unwrap();
        let ColumnWriter::ByteArrayColumnWriter(typed) = column.untyped() else { unreachable!() };
        let values: Vec<ByteArray> = values.iter().map(|value| ByteArray::from(value.to_vec())).collect();
        let level = |levels: &&[i16]| (!levels.is_empty()).then(|| levels.to_vec());
        typed.write_batch(&values, level(definition).as_deref(), level(repetition).as_deref()).unwrap();
        column.close().unwrap();
    }
    group.close().unwrap();
    writer.into_inner().unwrap()
}

fn rows(bytes: &[u8]) -> Result<Vec<Content>, String> {
    read_bytes("a.parquet", bytes, &Reading::default(), &Limits { row_bytes: 10_000, ..Limits::default() })
        .map(|rows| rows.into_iter().map(|row| row.content).collect())
        .map_err(|error| error.to_string())
}

fn json(text: &str) -> Content {
    Content::Fields(Json::parse(text.as_bytes()).unwrap())
}

fn two_rows() -> Vec<u8> {
    written(INSTRUCTION, &[(&[b"a", b"b"], &[], &[]), (&[b"c"], &[1, 0], &[])], Compression::SNAPPY)
}

#[test]
fn texts_nulls_and_lists_are_read() {
    let expected = [json(r#"{"instruction":"a","output":"c"}"#), json(r#"{"instruction":"b","output":null}"#)];
    assert_eq!(rows(&two_rows()).unwrap(), expected);
    let messages = written(
        MESSAGES,
        &[(&[b"user", b"assistant", b"user"], &[4, 4, 4], &[0, 1, 0]), (&[b"x", b"y"], &[4, 4, 3], &[0, 1, 0])],
        Compression::ZSTD(Default::default()),
    );
    let expected = [
        json(r#"{"messages":[{"role":"user","content":"x"},{"role":"assistant","content":"y"}]}"#),
        json(r#"{"messages":[{"role":"user","content":null}]}"#),
    ];
    assert_eq!(rows(&messages).unwrap(), expected);
}

#[test]
fn text_that_is_not_utf8_is_a_broken_file_or_row() {
    let kinds = |schema| {
        let bytes = written(schema, &[(&[b"ok", b"\xff"], &[], &[])], Compression::UNCOMPRESSED);
        let Content::Broken(broken) = rows(&bytes).unwrap().pop().unwrap() else { panic!() };
        broken.0.kind
    };
    assert_eq!(kinds("message m { required binary text; }"), Kind::Encoding);
    assert_eq!(kinds("message m { required binary text (UTF8); }"), Kind::Container);
}

#[test]
fn a_row_that_is_too_long_is_named_and_the_rest_goes_on() {
    let long = vec![b'x'; 20_000];
    let bytes =
        written("message m { required binary text (UTF8); }", &[(&[&long, b"b"], &[], &[])], Compression::SNAPPY);
    let rows = rows(&bytes).unwrap();
    assert!(matches!(&rows[0], Content::Broken(broken) if broken.0.kind == Kind::TooLong));
    assert_eq!(rows[1], json(r#"{"text":"b"}"#));
}

#[test]
fn a_page_that_unpacks_to_more_than_memory_is_refused_before_it_is_unpacked() {
    let bomb = vec![b'x'; 600 << 20];
    let bytes = written(
        "message m { required binary text (UTF8); }",
        &[(&[&bomb], &[], &[])],
        Compression::ZSTD(Default::default()),
    );
    assert!(bytes.len() < 1 << 20);
    let rows = rows(&bytes).unwrap();
    assert!(
        matches!(&rows[..], [Content::Broken(broken)] if broken.0.message.contains("of memory at once")),
        "{rows:?}"
    );
}

#[test]
fn repeated_columns_that_are_no_lists_are_refused() {
    let bytes =
        written("message m { repeated binary text (UTF8); }", &[(&[b"a"], &[1], &[0])], Compression::UNCOMPRESSED);
    assert!(rows(&bytes).unwrap_err().contains("repeated without being a list"));
}

#[test]
fn a_file_that_is_cut_off_anywhere_is_refused() {
    let bytes = two_rows();
    for end in 5..bytes.len() {
        assert!(rows(&bytes[..end]).is_err(), "{end}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]
    #[test]
    fn altered_files_give_an_answer(at in any::<prop::sample::Index>(), to in any::<u8>()) {
        let mut bytes = two_rows();
        let index = at.index(bytes.len());
        bytes[index] = to;
        let _ = rows(&bytes);
    }
}

use super::*;
use proptest::prelude::*;

fn text(text: &str) -> Vec<u8> {
    [&(text.len() as u64).to_le_bytes()[..], text.as_bytes()].concat()
}

fn tensor_row(name: &str, shape: &[u64], kind: u32, offset: u64) -> Vec<u8> {
    let mut row = text(name);
    row.extend((shape.len() as u32).to_le_bytes());
    shape.iter().for_each(|side| row.extend(side.to_le_bytes()));
    row.extend(kind.to_le_bytes());
    row.extend(offset.to_le_bytes());
    row
}

/// A file with an architecture, a vocabulary of two tokens, these tensors and so many bytes of data.
fn file(tensors: &[Vec<u8>], data: usize) -> Vec<u8> {
    let mut file = b"GGUF".to_vec();
    file.extend(3_u32.to_le_bytes());
    file.extend((tensors.len() as u64).to_le_bytes());
    file.extend(4_u64.to_le_bytes());
    for (key, value) in [("general.architecture", "llama"), ("tokenizer.ggml.model", "gpt2")] {
        file.extend(text(key));
        file.extend(8_u32.to_le_bytes());
        file.extend(text(value));
    }
    file.extend(text("llama.embedding_length"));
    file.extend(4_u32.to_le_bytes());
    file.extend(64_u32.to_le_bytes());
    file.extend(text("tokenizer.ggml.tokens"));
    file.extend(9_u32.to_le_bytes());
    file.extend(8_u32.to_le_bytes());
    file.extend(2_u64.to_le_bytes());
    file.extend(text("a"));
    file.extend(text("b"));
    tensors.iter().for_each(|tensor| file.extend(tensor));
    file.resize(file.len().next_multiple_of(32) + data, 0);
    file
}

fn read(bytes: &[u8]) -> Result<Header, GgufError> {
    read_header(bytes, bytes.len() as u64)
}

#[test]
fn keys_and_tensors_are_read() {
    let tensors = [tensor_row("a", &[64, 2], 0, 0), tensor_row("b", &[32], 8, 512)];
    let file = file(&tensors, 512 + 34);
    let header = read(&file).unwrap();
    assert_eq!(header.data, file.len() as u64 - (512 + 34));
    assert_eq!(header.architecture(), Some("llama"));
    assert_eq!(header.of_architecture("embedding_length"), Some(64));
    assert!(header.has_tokenizer());
    assert_eq!(header.tensors["b"].bytes, Some(34));
    assert_eq!((header.tensors["a"].elements(), header.tensors["b"].kind.name()), (128, "Q8_0".to_owned()));
}

#[test]
fn overlaps_overruns_and_crooked_places_are_refused() {
    let overlap = [tensor_row("a", &[64], 0, 0), tensor_row("b", &[64], 0, 128)];
    assert!(matches!(read(&file(&overlap, 1024)), Err(GgufError::Overlap { .. })));
    let overrun = [tensor_row("a", &[64], 0, 0)];
    assert!(read(&file(&overrun, 256)).is_ok());
    assert!(matches!(read(&file(&overrun, 255)), Err(GgufError::Overrun { .. })));
    assert!(matches!(read(&file(&[tensor_row("a", &[1], 0, 4)], 64)), Err(GgufError::Odd(_))));
    assert!(matches!(read(&file(&[tensor_row("a", &[33], 8, 0)], 64)), Err(GgufError::Odd(_))));
    let huge = [tensor_row("a", &[u64::MAX, 2], 0, 0)];
    assert!(matches!(read(&file(&huge, 64)), Err(GgufError::TooLarge(_))));
    let twice = [tensor_row("a", &[1], 0, 0), tensor_row("a", &[1], 0, 32)];
    assert!(matches!(read(&file(&twice, 64)), Err(GgufError::Odd(_))));
}

#[test]
fn a_truncated_head_or_another_version_is_refused() {
    let whole = file(&[tensor_row("a", &[8], 0, 0)], 32);
    for end in 0..whole.len() - 32 {
        assert!(read(&whole[..end]).is_err(), "{end}");
    }
    let mut other = whole;
    other[4] = 4;
    assert!(matches!(read(&other), Err(GgufError::Version)));
}

proptest! {
    #[test]
    fn changed_files_are_read_or_refused(at in 0_usize..300, byte: u8) {
        let mut bytes = file(&[tensor_row("a", &[64, 2], 0, 0)], 512);
        let at = at % bytes.len();
        bytes[at] = byte;
        let _ = read(&bytes);
    }
}

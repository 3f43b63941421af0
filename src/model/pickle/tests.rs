use super::*;
use proptest::prelude::*;
use std::{
    fs::File,
    io::{Cursor, Write},
    process::{Command, Stdio},
};

fn imports(pickle: &[u8]) -> Vec<String> {
    stream(Cursor::new(pickle)).unwrap().iter().map(Import::to_string).collect()
}

#[test]
fn imports_are_named_however_they_are_written() {
    assert_eq!(imports(b"cos\nsystem\n(S'true'\ntR."), ["os.system"]);
    assert_eq!(imports(b"(S'true'\nios\nsystem\n."), ["os.system"]);
    assert_eq!(imports(b"\x80\x04\x8c\x02os\x8c\x06system\x93\x8c\x04true\x85R."), ["os.system"]);
    // Through the memo: both names are noted, dropped and taken up again.
    assert_eq!(imports(b"\x80\x04\x8c\x06system\x940\x8c\x02os\x940h\x01h\x00\x93."), ["os.system"]);
    assert_eq!(
        imports(b"\x80\x02X\x02\x00\x00\x00osq\x070X\x06\x00\x00\x00systemq\x050h\x07h\x05\x93."),
        ["os.system"]
    );
    // Numbers of the memo that are skipped, so that `MEMOIZE` overwrites one that was set before.
    assert_eq!(imports(b"V_codecs\np101\n0V_codecs\np2\n0Vos\n\x940h\x02Vsystem\n\x93."), ["os.system"]);
    // A duplicate stands for what it is a duplicate of.
    assert_eq!(imports(b"\x8c\x02os2\x93."), ["os.os"]);
}

#[test]
fn names_that_are_worked_out_and_registered_ones_are_dangerous() {
    for pickle in [&b"\x8c\x02os\x8c\x01s\x8c\x01s\x86\x93."[..], b"\x82\x01.", b"K\x01K\x02\x93."] {
        let found = stream(Cursor::new(pickle)).unwrap();
        assert_eq!(found.first().unwrap().danger(), Danger::Dangerous, "{pickle:?}");
    }
}

#[test]
fn what_weights_need_is_harmless_and_the_rest_is_told_apart() {
    let danger = |module, name| Import::new(module, name).danger();
    assert_eq!(danger("collections", "OrderedDict"), Danger::Harmless);
    assert_eq!(danger("torch", "BFloat16Storage"), Danger::Harmless);
    assert_eq!(danger("transformers.training_args", "TrainingArguments"), Danger::Unknown);
    for (module, name) in [
        ("os", "system"),
        ("os.path", "join"),
        ("builtins", "eval"),
        ("__builtin__", "getattr"),
        ("torch", "load"),
        ("torch.hub", "load"),
        ("torch", "os.system"),
        ("collections", "OrderedDict.__reduce__"),
        ("numpy", "__builtins__"),
    ] {
        assert_eq!(danger(module, name), Danger::Dangerous, "{module}.{name}");
    }
}

#[test]
fn damaged_pickles_are_refused() {
    // Python reads this number as 10.
    let hides = b"N.Np1_0\n.cos\nsystem\n.";
    for bad in [&b""[..], hides, b"\x80", b"R.", b"t.", b"\x80\x04\x8c\x09os.", b"<html>", b"cos\n", b"\xff."] {
        assert!(stream(Cursor::new(bad)).is_err(), "{bad:?}");
    }
}

#[test]
fn raw_data_may_follow_the_last_pickle_but_not_come_before_it() {
    let mut old = vec![0x80, 2];
    old.extend(LEGACY_MAGIC);
    let part = b"\x80\x02}q\x00.";
    let mut whole = old.clone();
    (0..4).for_each(|_| whole.extend(part));
    whole.extend([0xff; 100]);
    assert_eq!(imports(&whole), [""; 0]);
    let mut evil = old.clone();
    evil.extend(part);
    evil.extend(b"\xff");
    assert!(stream(Cursor::new(&evil)).is_err());
    let mut late = old;
    (0..3).for_each(|_| late.extend(part));
    late.extend(b"cos\nsystem\n.");
    assert_eq!(imports(&late), ["os.system"]);
}

fn zip(entries: &[(&str, &[u8])]) -> File {
    let mut writer = zip::ZipWriter::new(tempfile::tempfile().unwrap());
    for (name, data) in entries {
        writer.start_file(*name, zip::write::SimpleFileOptions::default()).unwrap();
        writer.write_all(data).unwrap();
    }
    let mut file = writer.finish().unwrap();
    file.rewind().unwrap();
    file
}

#[test]
fn archives_of_pytorch_are_looked_into() {
    let good = b"\x80\x02ccollections\nOrderedDict\n)R.";
    let found = scan(zip(&[("m/data.pkl", good), ("m/data/0", &[7; 99]), ("m/version", b"3\n")])).unwrap();
    assert_eq!(found.iter().map(Import::to_string).collect::<Vec<_>>(), ["collections.OrderedDict"]);
    let found = scan(zip(&[("m/data.pkl", good), ("m/other.pkl", b"cos\nsystem\n.")])).unwrap();
    assert!(found.contains(&Import::new("os", "system")));
    let program = scan(zip(&[("m/data.pkl", good), ("m/code/x.py", b"")])).unwrap();
    assert!(program.iter().any(|import| import.danger() == Danger::Dangerous));
    assert!(matches!(scan(zip(&[("m/version", b"3")])), Err(PickleError::NoData)));
}

#[test]
fn an_archive_with_two_files_of_one_name_is_refused() {
    let mut bytes = Vec::new();
    zip(&[("m/data.pkl", b"N."), ("m/data.pkx", b"cos\nsystem\n.")]).read_to_end(&mut bytes).unwrap();
    for at in 0..bytes.len() - 10 {
        if &bytes[at..at + 10] == b"m/data.pkx" {
            bytes[at + 9] = b'l';
        }
    }
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(&bytes).unwrap();
    file.rewind().unwrap();
    assert!(matches!(scan(file), Err(PickleError::Archive(_))));
}

#[test]
fn what_python_pickles_is_followed_in_every_protocol() {
    let script = "
import pickle, sys, collections, struct
value = [collections.OrderedDict(a=1), {'b': [1.5, None, True, -1, 10**30, b'x', 'ü' * 300]}, {1, 2}, frozenset([3]),
         tuple(range(9)), bytearray(b'y'), complex(1, 2), range(3)]
for protocol in range(6):
    data = pickle.dumps(value + [collections.OrderedDict], protocol)
    sys.stdout.buffer.write(struct.pack('<I', len(data)) + data)
";
    let output = Command::new("python3").args(["-c", script]).stderr(Stdio::inherit()).output().unwrap();
    let mut rest = output.stdout.as_slice();
    for protocol in 0..6 {
        let (length, after) = rest.split_first_chunk().unwrap();
        let (pickle, after) = after.split_at(u32::from_le_bytes(*length) as usize);
        assert!(imports(pickle).contains(&"collections.OrderedDict".to_owned()), "protocol {protocol}");
        rest = after;
    }
    assert!(rest.is_empty());
}

proptest! {
    #[test]
    fn any_bytes_are_followed_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let _ = stream(Cursor::new(&bytes));
    }
}

use super::{Detector, OwnPattern, PatternError, PiiKind, Redactor, shape};
use proptest::prelude::*;
use std::sync::LazyLock;

/// Compiling its patterns takes a while without optimisation.
fn detector() -> &'static Detector {
    static DETECTOR: LazyLock<Detector> = LazyLock::new(|| Detector::new(Vec::new()).unwrap());
    &DETECTOR
}

fn found(text: &str) -> Vec<(String, String)> {
    detector()
        .find(text)
        .into_iter()
        .map(|finding| (finding.kind.to_string(), text[finding.range].to_owned()))
        .collect()
}

/// Each line is `KIND value`; it is found in the middle of a sentence, and as all of a text.
fn each_is_found(lines: &[(&str, &str)]) {
    for &(kind, value) in lines {
        for text in [format!("I wrote {value}, as you know."), value.to_owned(), format!("({value})")] {
            assert_eq!(found(&text), [(kind.to_owned(), value.to_owned())], "{text}");
        }
    }
}

fn none_is_found(texts: &[&str]) {
    for text in texts {
        assert_eq!(found(text), [], "{text}");
    }
}

#[test]
fn email_addresses() {
    each_is_found(&[
        ("EMAIL", "jane.doe+tag@mail.example.co.uk"),
        ("EMAIL", "o'neil@example.org"),
        ("EMAIL", "jörg@müller.de"),
        ("EMAIL", "info@xn--mller-kva.xn--p1ai"),
        ("EMAIL", "jane [at] example [dot] org"),
    ]);
    none_is_found(&["@decorator", "icon@2x.png", "a @ b.c", "git@github.com:org/repo.git", "x@y", "5@10.50"]);
    assert_eq!(found("<mailto:jane@example.org>")[0].1, "jane@example.org");
    assert_eq!(found("mail='jane@example.org'")[0].1, "jane@example.org");
}

#[test]
fn telephone_numbers() {
    each_is_found(&[
        ("PHONE", "+49 30 1234567"),
        ("PHONE", "+1-212-555-0123"),
        ("PHONE", "0049 171 1234567"),
        ("PHONE", "212-555-0123"),
        ("PHONE", "030 / 12 34 56 78"),
        ("PHONE", "01 23 45 67 89"),
        ("PHONE", "020 7946 0958"),
        ("PHONE", "03-1234-5678"),
    ]);
    assert_eq!(found("(212) 555-0123 x45")[0].1, "(212) 555-0123 x45");
    assert_eq!(found("我的号码是13812345678。")[0].1, "13812345678");
    assert_eq!(found("reach us on 0612345678")[0].1, "0612345678");
    assert_eq!(found("Llama al 612 345 678 hoy")[0].1, "612 345 678");
    none_is_found(&[
        "on 2024-01-31 12:30",
        "01.02.2024",
        "10/12/2023",
        "1999-2005",
        "612 345 678 people",
        "3.14159265358979",
        "1,234,567.89",
        "ISBN 978-3-16-148410-0",
        "id 550e8400-e29b-41d4-a716-446655440000",
        "0x1234567890",
        "order #1234567890",
        "1700000000",
        "13812345678",
        "0306406152",
        "2 + 3 = 5",
        "$1234567890",
        "53.551086, 9.993682",
    ]);
}

#[test]
fn account_and_card_numbers_have_check_digits() {
    each_is_found(&[
        ("IBAN", "DE89370400440532013000"),
        ("IBAN", "DE89 3704 0044 0532 0130 00"),
        ("IBAN", "gb82west12345698765432"),
        ("CARD", "4111 1111 1111 1111"),
        ("CARD", "5555555555554444"),
        ("CARD", "3782-822463-10005"),
    ]);
    none_is_found(&["DE88370400440532013000", "XX89370400440532013000", "4111 1111 1111 1112", "0000000000000000"]);
}

#[test]
fn internet_addresses() {
    each_is_found(&[("IP", "192.168.17.4"), ("IP", "8.8.8.8"), ("IP", "2001:db8::8a2e:370:7334"), ("IP", "fe80::1")]);
    none_is_found(&[
        "127.0.0.1",
        "::1",
        "version 1.2.3.4",
        "v10.2.3.4",
        "1.2.3.4.5",
        "255.255.255.0",
        "std::vec",
        "a::b",
        "12:30:45",
        "00:1a:2b:3c:4d:5e",
        "256.1.1.1",
        "abc::def",
    ]);
}

#[test]
fn keys_and_tokens() {
    let random = "9fKq2LmXz7RtVbW4cYh8NpSd3GjA6eUo";
    for secret in [
        "AKIAQ4ZX7N2PLM5RT8WB".to_owned(),
        format!("ghp_{random}Ab12"),
        format!("hf_{random}"),
        format!("sk-proj-{random}"),
        "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.dBjftJeZ4CVPmB92K27uhbUJU1p1r".to_owned(),
        "-----BEGIN RSA PRIVATE KEY-----\nMIIEowIBAAKC\n-----END RSA PRIVATE KEY-----".to_owned(),
    ] {
        assert_eq!(found(&format!("use {secret} here")), [("SECRET".to_owned(), secret.clone())]);
    }
    for (text, secret) in [
        ("postgres://app:s3cr3tpw@db.example.org/x", "s3cr3tpw"),
        ("Authorization: Bearer abc123DEF456ghi", "abc123DEF456ghi"),
        ("password = \"hT7$kk29Lmz!\"", "hT7$kk29Lmz!"),
        ("DB_PASSWORD=3bn2DrcN)5Kn0t3iW.", "3bn2DrcN)5Kn0t3iW"),
        ("export API_KEY=9fKq2LmXz7RtVbW4", "9fKq2LmXz7RtVbW4"),
    ] {
        let values: Vec<_> =
            found(text).into_iter().filter(|(kind, _)| kind == "SECRET").map(|(_, value)| value).collect();
        assert_eq!(values, [secret], "{text}");
    }
    none_is_found(&[
        "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
        "the key is to listen carefully",
        "password: your_password_here",
        "token = tokenizer.encode(text)",
        "public_key: MIIBIjANBgkqhkiG9w0BAQEFAAOCAQ8A",
        "key=${API_KEY}",
    ]);
}

#[test]
fn patterns_of_ones_own_come_first() {
    let staff = OwnPattern::new("STAFF_ID", r"\bP\d{6}\b").unwrap();
    let detector = Detector::new(vec![staff.clone()]).unwrap();
    let mut redactor = Redactor::new(&detector);
    let (findings, text) = redactor.redact("P123456 and P999999 and P123456").unwrap();
    assert_eq!(text, "[STAFF_ID_1] and [STAFF_ID_2] and [STAFF_ID_1]");
    assert_eq!(shape(&findings[0].kind, "P123456"), "7 characters");
    assert!(matches!(OwnPattern::new("staff", "x"), Err(PatternError::Name(_))));
    assert!(matches!(OwnPattern::new("A", "x*"), Err(PatternError::Empty(_))));
    assert!(matches!(OwnPattern::new("A", "("), Err(PatternError::Invalid { .. })));
    assert!(matches!(OwnPattern::new("A", r"\w{1000}{1000}"), Err(PatternError::Invalid { .. })));
    assert!(matches!(Detector::new(vec![staff.clone(), staff]), Err(PatternError::Taken(_))));
    assert!(matches!(Detector::new(vec![OwnPattern::new("IP", "x").unwrap()]), Err(PatternError::Taken(_))));
}

#[test]
fn placeholders_are_stable_within_an_example() {
    let mut redactor = Redactor::new(detector());
    let (_, first) = redactor.redact("From a@example.org to b@example.org, cc A@example.org").unwrap();
    assert_eq!(first, "From [EMAIL_1] to [EMAIL_2], cc [EMAIL_1]");
    let (_, second) = redactor.redact("b@example.org has +49 30 1234567, also +49301234567").unwrap();
    assert_eq!(second, "[EMAIL_2] has [PHONE_1], also [PHONE_1]");
    assert!(redactor.redact("nothing here").is_none());
}

#[test]
fn shapes_tell_nothing() {
    assert_eq!(shape(&PiiKind::Email, "Jörg.7@example.org"), "aaaa.0@aaaaaaa.aaa");
    assert_eq!(shape(&PiiKind::Secret, "hf_abcdef"), "9 characters");
    assert_eq!(shape(&PiiKind::Phone, "+49 30 1"), "+00 00 0");
}

proptest! {
    #[test]
    fn findings_lie_in_the_text_in_order_and_apart(text in "[a-z0-9@.:+() ü-]{0,80}") {
        let mut end = 0;
        for finding in detector().find(&text) {
            prop_assert!(end <= finding.range.start && !finding.range.is_empty());
            prop_assert!(text.get(finding.range.clone()).is_some());
            end = finding.range.end;
        }
    }

    #[test]
    fn what_was_redacted_holds_nothing_more(digits in "[0-9]{9}", name in "[a-z]{1,9}") {
        let text = format!("{name}@example.org, +49{digits}");
        let (_, redacted) = Redactor::new(detector()).redact(&text).unwrap();
        prop_assert_eq!(&redacted, "[EMAIL_1], [PHONE_1]");
        prop_assert_eq!(detector().find(&redacted), []);
    }
}

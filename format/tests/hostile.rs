//! Artifacts that somebody altered: every one is refused, with a reason that fits.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs,
    reason = "a test fails by panicking"
)]

mod fixture;

use fixture::{Artifact, check, noise, policy, release, signing_key, time, trust, unsigned, verify_both, verify_with};
use gap_format::{
    Digest, VerifyError,
    dsse::Envelope,
    floor::{Floor, FloorError},
    statement::Kind,
    trust::{Clock, TrustError},
    verify::{Extent, verify, verify_stream},
};

fn refusal(bytes: &[u8]) -> String {
    verify_both(bytes).map(|_| ()).unwrap_err()
}

fn every_flip_is_refused(artifact: &Artifact, offsets: &[usize]) {
    let (trust, policy, check) = (trust(), policy(), check(1, false));
    let extent = Extent::File(artifact.bytes.len() as u64);
    std::thread::scope(|scope| {
        for part in offsets.chunks(offsets.len() / 2 + 1) {
            let (trust, policy, check) = (&trust, &policy, &check);
            let mut bytes = artifact.bytes.clone();
            scope.spawn(move || {
                for at in part {
                    bytes[*at] ^= 1 << (at % 8);
                    let result = verify(&bytes, extent, trust, policy, check);
                    assert!(result.is_err_and(|error| !error.could_not_run()), "byte {at}");
                    bytes[*at] ^= 1 << (at % 8);
                }
            });
        }
    });
}

#[test]
fn any_flipped_byte_of_an_archive_is_refused() {
    let artifact = Artifact::archive();
    every_flip_is_refused(&artifact, &(0..artifact.bytes.len()).collect::<Vec<_>>());
}

/// Every byte of what an archive does not have; steps through what it has too, and through a mebibyte of padding.
#[test]
fn any_flipped_byte_of_a_disk_is_refused() {
    let artifact = Artifact::appliance();
    let (tables, esp) = (artifact.find("oci-layout"), artifact.blob_offsets[0] as usize);
    let backup = artifact.bytes.len() - gap_format::gpt::BACKUP_LEN as usize;
    let padding = artifact.find(".pad/0") + 600..esp - 600;
    let wanted = |at: &usize| {
        let own = *at < tables || (esp - 600..esp + 600).contains(at) || *at >= backup;
        own || at % if padding.contains(at) { 4093 } else { 23 } == 0
    };
    every_flip_is_refused(&artifact, &(0..artifact.bytes.len()).filter(wanted).collect::<Vec<_>>());
}

#[test]
fn a_pipe_refuses_flipped_bytes_too() {
    let artifact = Artifact::archive();
    let (trust, policy) = (trust(), policy());
    let mut bytes = artifact.bytes.clone();
    for at in (0..bytes.len()).step_by(97) {
        bytes[at] ^= 0x10;
        assert!(verify_stream(&mut bytes.as_slice(), &trust, &policy, &check(1, false)).is_err(), "byte {at}");
        bytes[at] ^= 0x10;
    }
}

#[test]
fn a_truncated_artifact_is_refused_at_any_length() {
    let bytes = Artifact::archive().bytes;
    for len in (0..bytes.len()).step_by(61) {
        let error = verify_with(&bytes[..len], &policy()).unwrap_err();
        assert!(matches!(error, VerifyError::Truncated { .. }), "{len}: {error}");
        let error = verify_stream(&mut &bytes[..len], &trust(), &policy(), &check(1, false)).unwrap_err();
        assert!(matches!(error, VerifyError::Truncated { .. }), "{len}: {error}");
    }
}

#[test]
fn something_after_the_artifact_is_refused_in_a_file_and_reported_on_a_disk() {
    let mut bytes = Artifact::appliance().bytes;
    let len = bytes.len() as u64;
    bytes.push(0);
    assert!(refusal(&bytes).starts_with("something follows the artifact"));
    let on_disk = verify(&bytes, Extent::Disk(len + 1), &trust(), &policy(), &check(1, false)).unwrap();
    assert_eq!(on_disk.trailing, 1);
}

#[test]
fn swapped_doubled_and_added_members_are_refused() {
    let artifact = Artifact::archive();
    let (one, two) = (artifact.blob_offsets[2] as usize, artifact.blob_offsets[4] as usize);

    let mut swapped = artifact.bytes.clone();
    let (header_one, header_two) = (swapped[one - 512..one].to_vec(), swapped[two - 512..two].to_vec());
    swapped[one - 512..one].copy_from_slice(&header_two);
    swapped[two - 512..two].copy_from_slice(&header_one);
    assert!(refusal(&swapped).contains("the tar header of blobs/sha256/"));

    let member = artifact.bytes[one - 512..one + 8192].to_vec();
    let mut doubled = artifact.bytes.clone();
    doubled.splice(one - 512..one - 512, member);
    assert!(verify_both(&doubled).is_err());

    let mut added = artifact.bytes.clone();
    let end = added.len() - 4096;
    let header = gap_format::tar_header::encode("extra", 512, None).unwrap();
    added.splice(end..end, header.into_iter().chain(noise(9, 512)));
    assert!(verify_both(&added).is_err());

    let mut in_place = artifact.bytes.clone();
    let end = artifact.blob_offsets[5] as usize + 4096;
    in_place[end..end + 512].copy_from_slice(&header);
    assert_eq!(
        refusal(&in_place),
        format!("the end of the archive differs at offset {end} from what the format prescribes")
    );
}

#[test]
fn altered_partition_tables_and_padding_are_named_with_their_offset() {
    let artifact = Artifact::appliance();
    let len = artifact.bytes.len();
    let padding = artifact.find(".pad/0") + 100_000;
    let cases = [
        (450, "the tar header of .gpt"),
        (512 + 16, "the partition tables in .gpt"),
        (8192 + 40, "the partition tables in .gpt"),
        (len - 512 + 20, "the backup partition tables"),
        (len - 4096 + 200, "the backup partition tables"),
        (padding, "the data of .pad/0"),
    ];
    for (at, what) in cases {
        let mut bytes = artifact.bytes.clone();
        bytes[at] ^= 0x40;
        let reason = refusal(&bytes);
        if at == 450 {
            // The header's checksum is taken over the boot record, so it is no header any more.
            assert!(reason.contains("the tar header of .gpt should be at offset 0"), "{reason}");
        } else {
            assert!(reason.starts_with(what) && reason.contains(&format!("offset {at} ")), "{reason}");
        }
    }
}

#[test]
fn a_boot_record_with_a_right_checksum_is_still_compared() {
    let mut bytes = Artifact::appliance().bytes;
    let mut mbr: [u8; 66] = bytes[446..512].try_into().unwrap();
    mbr[20] = 7;
    bytes[..512].copy_from_slice(&gap_format::tar_header::encode(".gpt", 40_448, Some(&mbr)).unwrap());
    assert!(refusal(&bytes).starts_with("the tar header of .gpt differs at offset"));
}

#[test]
fn a_rotten_blob_is_named() {
    let artifact = Artifact::archive();
    for (number, words) in [(0, "its digest is"), (3, "its verity root is"), (5, "its digest is")] {
        let mut bytes = artifact.bytes.clone();
        let at = artifact.blob_offsets[number] as usize;
        bytes[at + 17] ^= 1;
        let reason = refusal(&bytes);
        assert!(reason.contains(words) && reason.contains(&format!("at offset {at} ")), "{reason}");
        for threads in 1..4 {
            let extent = Extent::File(bytes.len() as u64);
            let error = verify(&bytes, extent, &trust(), &policy(), &check(threads, true)).unwrap_err();
            assert!(error.to_string().contains(&format!("at offset {at} ")), "{error}");
        }
    }
}

#[test]
fn an_envelope_that_is_not_canonical_is_refused() {
    let artifact = Artifact::archive();
    let text = String::from_utf8(artifact.envelope().encode().unwrap()).unwrap();
    let (payload, rest) = text[1..text.len() - 1].split_once(",\"payloadType\"").unwrap();
    let others = [
        text.replacen('{', "{\"extra\":\"\\u001b[2J\",", 1),
        format!("{{\"payloadType\"{rest},{payload}}}"),
        format!("{text}x"),
        format!("{text} {{}}"),
        format!(" {text}"),
        text.replacen("{\"keyid\"", "{\"sig\":\"\",\"keyid\"", 1),
    ];
    for other in others {
        let mut changed = artifact.clone();
        let mut region = other.clone().into_bytes();
        region.resize(65_536, b' ');
        changed.set_region(&region);
        let reason = refusal(&changed.bytes);
        assert!(reason.starts_with("the envelope release.dsse.json at offset"), "{reason}");
        assert!(reason.is_ascii() && !reason.contains('\u{1b}'), "{reason}");
    }
}

#[test]
fn a_second_signature_of_random_bytes_is_refused() {
    let artifact = unsigned(false, &release(Kind::Appliance)).signed(&[1]);
    let text = String::from_utf8(artifact.envelope().encode().unwrap()).unwrap();
    let signature = &text[text.find("{\"keyid\"").unwrap()..text.len() - 2];
    for key in ["00".repeat(32), "ff".repeat(32)] {
        let start = signature.find("\":\"").unwrap() + 3;
        let random = [&signature[..start], &key, &signature[start + 64..]].concat();
        let both = if key < "8".repeat(64) { format!("{random},{signature}") } else { format!("{signature},{random}") };
        let mut region = text.replace(signature, &both).into_bytes();
        assert!(Envelope::decode(&region, "application/vnd.in-toto+json").is_ok());
        region.resize(65_536, b' ');
        let mut changed = artifact.clone();
        changed.set_region(&region);
        assert!(refusal(&changed.bytes).contains("which the trust file does not know"));
    }
}

#[test]
fn unknown_revoked_expired_misused_and_too_few_keys_are_refused() {
    let refused =
        |kind, seeds: &[u8]| match verify_with(&unsigned(false, &release(kind)).signed(seeds).bytes, &policy()) {
            Err(VerifyError::Trust(reason)) => reason,
            other => panic!("{:?}", other.map(|_| ())),
        };
    assert!(matches!(refused(Kind::Appliance, &[]), TrustError::Unsigned));
    assert!(matches!(refused(Kind::Appliance, &[9]), TrustError::UnknownKey(_)));
    assert!(matches!(refused(Kind::Appliance, &[1, 2, 9]), TrustError::UnknownKey(_)));
    assert!(matches!(refused(Kind::Appliance, &[1, 2, 4]), TrustError::Revoked { .. }));
    assert!(matches!(refused(Kind::Appliance, &[1, 5]), TrustError::TooLate { .. }));
    assert!(matches!(refused(Kind::Appliance, &[1]), TrustError::TooFew { needed: 2, found: 1, .. }));
    assert!(matches!(refused(Kind::Appliance, &[3]), TrustError::WrongRole { .. }));
    assert!(matches!(refused(Kind::Data, &[1, 2]), TrustError::WrongRole { .. }));
    assert!(matches!(refused(Kind::Sources, &[3]), TrustError::WrongRole { .. }));
    assert!(verify_with(&unsigned(false, &release(Kind::Data)).signed(&[3]).bytes, &policy()).is_ok());
}

#[test]
fn a_signature_for_another_release_is_refused() {
    let mut other = release(Kind::Appliance);
    other.serial = 6;
    let donor = unsigned(false, &other).signed(&[1, 2]);
    let mut artifact = Artifact::archive();
    artifact.set_region(&donor.region().to_vec());
    assert!(verify_both(&artifact.bytes).is_ok(), "the same content under another statement is that other release");
    let mut disk = Artifact::appliance();
    disk.set_region(&donor.region().to_vec());
    assert!(refusal(&disk.bytes).starts_with("layout.json at offset"));
}

#[test]
fn old_serials_and_equal_serials_with_other_content_are_refused() {
    let artifact = Artifact::archive();
    let with = |change: &dyn Fn(&mut gap_format::release::Policy)| {
        let mut policy = policy();
        change(&mut policy);
        verify_with(&artifact.bytes, &policy).map(|_| ())
    };
    let floor = |serial, index| Some(Floor { name: "example".into(), serial, index });
    assert!(with(&|it| it.min_serial = Some(5)).is_ok());
    assert!(matches!(with(&|it| it.min_serial = Some(6)), Err(VerifyError::Floor(FloorError::Older { .. }))));
    assert!(matches!(with(&|it| it.floor = floor(6, None)), Err(VerifyError::Floor(FloorError::Older { .. }))));
    let other = Some(Digest::of(b"other"));
    assert!(matches!(with(&|it| it.floor = floor(5, other)), Err(VerifyError::Floor(FloorError::OtherContent(5)))));
    assert!(with(&|it| it.floor = floor(5, Some(artifact.statement.index))).is_ok());
    assert!(matches!(with(&|it| it.name = Some("x".into())), Err(VerifyError::Floor(FloorError::OtherName { .. }))));
    assert!(matches!(with(&|it| it.kind = Some(Kind::Data)), Err(VerifyError::Kind { .. })));
}

#[test]
fn expiry_stops_acceptance_but_not_what_was_accepted() {
    let artifact = Artifact::archive();
    let mut policy = policy();
    policy.clock = Clock::Now(time("2027-01-01T00:00:01Z"));
    assert!(matches!(verify_with(&artifact.bytes, &policy), Err(VerifyError::Expired { .. })));
    policy.clock = Clock::AlreadyAccepted;
    assert!(verify_with(&artifact.bytes, &policy).is_ok());
}

#[test]
fn what_is_no_artifact_is_said_to_be_none() {
    let tar = gap_format::tar_header::encode("hello\u{7f}x", 1, None);
    assert_eq!(tar, None);
    for bytes in [vec![0; 100_000], noise(5, 100_000), gap_format::tar_header::encode("x", 1, None).unwrap().repeat(9)]
    {
        assert!(refusal(&bytes).starts_with("this is no gapimage artifact"), "{}", refusal(&bytes));
    }
    let huge = gap_format::tar_header::encode("index.json", 1 << 40, None).unwrap();
    let mut bytes = Artifact::archive().bytes;
    bytes[1024..1536].copy_from_slice(&huge);
    assert!(refusal(&bytes).contains("claims 1099511627776 bytes, and 4194304 are allowed"));
}

#[test]
fn a_failing_medium_is_not_called_untrusted() {
    struct Failing(Vec<u8>);
    impl gap_format::ReadAt for Failing {
        fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> std::io::Result<()> {
            if offset > 100_000 { Err(std::io::Error::other("bad sector")) } else { self.0.read_exact_at(buf, offset) }
        }
    }
    let artifact = Artifact::archive();
    let extent = Extent::File(artifact.bytes.len() as u64);
    let error = verify(&Failing(artifact.bytes), extent, &trust(), &policy(), &check(2, false)).unwrap_err();
    assert!(error.could_not_run(), "{error}");
    assert!(error.to_string().contains("bad sector"));
}

#[test]
fn a_key_that_is_not_in_the_trust_file_is_named_by_its_fingerprint() {
    let id = gap_format::key::KeyId::of(&signing_key(9).verifying_key());
    let artifact = unsigned(false, &release(Kind::Appliance)).signed(&[9]);
    assert!(refusal(&artifact.bytes).contains(&id.to_string()));
}

//! Any bytes as a Debian package: what is unpacked lies within the limits and the tree, whatever the package says.
#![no_main]

use gapimage::{
    layer::tree::Node,
    source::debian::{
        deb::{Limits, unpack},
        spool::Spool,
    },
};
use gapimage_fuzz::mend_tar_checksums;
use libfuzzer_sys::fuzz_target;

/// Small enough that a bomb is told from a package soon.
const LIMITS: Limits = Limits { data: 1 << 20, control: 1 << 18 };

fuzz_target!(|bytes: &[u8]| {
    let mut package = bytes.to_vec();
    mend_tar_checksums(&mut package);
    let spool = Spool::new_in(&std::env::temp_dir()).expect("a temporary file");
    let Ok(deb) = unpack(package.as_slice(), &spool, &LIMITS) else { return };
    let _ = deb.conffiles();
    let mut unpacked = 0;
    for (path, node) in deb.tree.iter() {
        assert!(!path.is_root());
        if let Node::File { content, .. } = node {
            assert_eq!(content.read().expect("it is in the spool").len() as u64, content.len());
            unpacked += content.len();
        }
    }
    assert!(unpacked <= LIMITS.data);
});

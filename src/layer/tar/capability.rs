//! File capabilities in one form: `VFS_CAP_REVISION_2` (`linux/capability.h`).
//!
//! `setcap` inside a user namespace stores revision 3 with the builder's uid, which would make the
//! layer depend on who built it and grant nothing on the appliance.

use std::borrow::Cow;

/// Name of the extended attribute.
pub(super) const NAME: &[u8] = b"security.capability";

const REVISION_MASK: u32 = 0xff00_0000;
const REVISION_1: u32 = 0x0100_0000;
const REVISION_2: u32 = 0x0200_0000;
const REVISION_3: u32 = 0x0300_0000;
const LEN_1: usize = 12;
const LEN_2: usize = 20;
const LEN_3: usize = 24;

/// `value` as revision 2; `None` if it is no capability set.
pub(super) fn normalise(value: &[u8]) -> Option<Cow<'_, [u8]>> {
    let (magic, sets) = value.split_first_chunk::<4>()?;
    let magic = u32::from_le_bytes(*magic);
    match (magic & REVISION_MASK, value.len()) {
        (REVISION_2, LEN_2) => return Some(Cow::Borrowed(value)),
        (REVISION_1, LEN_1) | (REVISION_3, LEN_3) => {}
        _ => return None,
    }
    let mut out = ((magic & !REVISION_MASK) | REVISION_2).to_le_bytes().to_vec();
    out.extend(sets.iter().take(LEN_2 - 4));
    out.resize(LEN_2, 0);
    Some(Cow::Owned(out))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_namespaced_capability_loses_its_root_id() {
        let mut namespaced = vec![1, 0, 0, 3];
        namespaced.extend([0x00, 0x20, 0, 0].iter().chain(&[0; 12]));
        namespaced.extend(100_000_u32.to_le_bytes());
        let plain = normalise(&namespaced).unwrap();
        assert_eq!(plain[..8], [1, 0, 0, 2, 0x00, 0x20, 0, 0]);
        assert_eq!(plain.len(), 20);
        assert_eq!(normalise(&plain).unwrap(), plain);
    }

    #[test]
    fn something_else_is_no_capability() {
        assert_eq!(normalise(b"cap_net_raw=ep"), None);
        assert_eq!(normalise(&[1, 0, 0, 2, 0]), None);
        assert_eq!(normalise(&[]), None);
    }
}

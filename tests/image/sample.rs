//! A tree with one of everything that is awkward.

use gapimage::layer::tree::{Content, Device, Meta, Node, Tree, TreePath, Xattrs};

pub fn path(raw: impl AsRef<[u8]>) -> TreePath {
    TreePath::new(raw).unwrap()
}

pub fn directory(mode: u32) -> Node {
    Node::Directory { meta: Meta::root_owned(mode, 1_700_000_000), opaque: false }
}

/// A file of `len` bytes that tell their place.
pub fn file(len: usize, seed: u8) -> Node {
    let data: Vec<u8> = (0..len).map(|at| seed.wrapping_add((at / 7 % 251) as u8) | 1).collect();
    Node::File { meta: Meta::root_owned(0o644, 1_700_000_000 + len as i64), content: Content::bytes(data) }
}

fn with_meta(node: Node, change: impl FnOnce(&mut Meta)) -> Node {
    let mut node = node;
    match &mut node {
        Node::Directory { meta, .. }
        | Node::File { meta, .. }
        | Node::Symlink { meta, .. }
        | Node::CharDevice { meta, .. }
        | Node::BlockDevice { meta, .. }
        | Node::Fifo { meta } => change(meta),
        Node::HardLink { .. } | Node::Whiteout => {}
    }
    node
}

fn xattrs(pairs: &[(&str, &[u8])]) -> Xattrs {
    pairs.iter().map(|(name, value)| (name.as_bytes().to_vec(), value.to_vec())).collect()
}

/// `security.capability` of version 2 with cap_net_raw permitted and effective.
const CAPABILITY: &[u8] = b"\x01\x00\x00\x02\x00\x20\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00";
/// A POSIX ACL: user::rw-, user:1000:r--, group::r--, mask::r--, other::---.
const ACL: &[u8] = b"\x02\x00\x00\x00\x01\x00\x06\x00\xff\xff\xff\xff\x02\x00\x04\x00\xe8\x03\x00\x00\
    \x04\x00\x04\x00\xff\xff\xff\xff\x10\x00\x04\x00\xff\xff\xff\xff\x20\x00\x00\x00\xff\xff\xff\xff";

/// Two layers, the lowest first.
pub fn trees() -> [Tree; 2] {
    [lower(), upper()]
}

fn lower() -> Tree {
    let mut tree = Tree::new();
    let mut put = |at: &[u8], node| {
        tree.insert(path(at), node);
    };
    put(b"", with_meta(directory(0o755), |meta| meta.mtime = 1));
    // Lengths around every boundary of inline, block and chunk.
    for len in [0, 1, 4031, 4032, 4033, 4095, 4096, 4097, 8127, 8128, 8129, 8191, 8192, 40_000, 77_777, 65_536 + 4090] {
        put(format!("lengths/{len:06}").as_bytes(), file(len, len as u8));
    }
    put(b"lengths", directory(0o755));
    // So many odd blocks that larger chunks, which leave some over, are cheaper.
    put(b"a-leftover", file(3073 * 4096 + 100, 7));
    put(b"big", with_meta(file((1 << 20) + 12_345, 9), |meta| meta.mode = 0o400));
    put(b"sticky", with_meta(directory(0o1777), |meta| (meta.uid, meta.gid) = (70_000, 4_000_000_000)));
    put(b"setuid", with_meta(file(5000, 3), |meta| meta.mode = 0o4755));
    put(b"ancient", with_meta(file(3, 3), |meta| meta.mtime = -86_400));
    put(b"capable", with_meta(file(6000, 1), |meta| meta.xattrs = xattrs(&[("security.capability", CAPABILITY)])));
    put(
        b"listed",
        with_meta(file(10, 1), |meta| {
            meta.mode = 0o640;
            meta.xattrs = xattrs(&[("system.posix_acl_access", ACL), ("trusted.t", b""), ("user.empty", b"")]);
        }),
    );
    put(
        b"heavy",
        with_meta(file(4090, 1), |meta| {
            meta.xattrs = xattrs(&[("user.large", &[7; 5000]), ("user.odd", &[8; 3])]);
        }),
    );
    put(b"heavy-chunked", with_meta(file(8190, 1), |meta| meta.xattrs = xattrs(&[("user.large", &[7; 4093])])));
    put(
        b"heavy-link",
        with_meta(Node::Symlink { meta: Meta::root_owned(0o777, 5), target: b"x/y".to_vec() }, |meta| {
            meta.xattrs = xattrs(&[("trusted.large", &[7; 4050])]);
        }),
    );
    put(b"link", Node::Symlink { meta: Meta::root_owned(0o777, 5), target: b"lengths/000001".to_vec() });
    put(b"long-link", Node::Symlink { meta: Meta::root_owned(0o777, 5), target: vec![b'l'; 4095] });
    put(b"null", Node::CharDevice { meta: Meta::root_owned(0o666, 5), device: Device { major: 1, minor: 3 } });
    put(b"disk", Node::BlockDevice { meta: Meta::root_owned(0o660, 5), device: Device { major: 259, minor: 70_000 } });
    put(b"fifo", Node::Fifo { meta: Meta::root_owned(0o600, 5) });
    put(b"bytes-\xff\x80\n\x01", file(7, 2));
    put("n".repeat(255).as_bytes(), file(8, 2));
    put(&[b"deep/".repeat(300), b"end".to_vec()].concat(), file(9, 2));
    for number in 0..3000 {
        put(format!("many/{number}-{}", "w".repeat(number % 90)).as_bytes(), file(number % 11, 4));
    }
    for name in [&b"!"[..], b"+", b"-", b"...", b"..a", b"~"] {
        put(&[b"dots/", name].concat(), file(1, 1));
    }
    put(b"gone", file(5000, 1));
    put(b"hidden/a/b", file(5000, 1));
    put(b"replaced", directory(0o700));
    put(b"replaced/child", file(5000, 1));
    put(b"grown", file(5000, 1));
    put(b"shared/one", file(9000, 6));
    put(b"shared/two", Node::HardLink { target: path("shared/one") });
    tree
}

fn upper() -> Tree {
    let mut tree = Tree::new();
    let mut put = |at: &str, node| {
        tree.insert(path(at), node);
    };
    put("gone", Node::Whiteout);
    put("hidden", Node::Directory { meta: Meta::root_owned(0o711, 6), opaque: true });
    put("hidden/c", file(4097, 8));
    put("replaced", file(12_288, 8));
    put("grown", directory(0o755));
    put("grown/child", file(20_000, 8));
    put("lengths/000001", file(5001, 8));
    put("shared", directory(0o750));
    put("shared/one", file(4096, 8));
    put("shared/three", file(9001, 8));
    put("shared/four", Node::HardLink { target: path("shared/three") });
    put("shared/zero", Node::HardLink { target: path("shared/three") });
    put("weights", file((1 << 20) + 1, 5));
    tree
}

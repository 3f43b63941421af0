//! The files of an image, one line each.

use crate::{
    image::merge::{Inode, InodeKind, Merged},
    layer::tree::Device,
};
use serde::{Serialize, Serializer};

/// One name in the tree of an image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Listed {
    /// Absolute path, escaped.
    pub path: String,
    /// What it is.
    #[serde(rename = "type")]
    pub kind: Kind,
    /// Permission bits; octal in JSON.
    #[serde(serialize_with = "octal")]
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Length in bytes; 0 for what has none.
    pub size: u64,
    /// Time of last change, seconds since 1970.
    pub mtime: i64,
    /// Where a symbolic link points, escaped.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// Major and minor number of a device.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub device: Option<(u32, u32)>,
}

/// What a name stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// A directory.
    Directory,
    /// A regular file.
    File,
    /// A symbolic link.
    Symlink,
    /// A character device.
    CharDevice,
    /// A block device.
    BlockDevice,
    /// A named pipe.
    Fifo,
}

impl Kind {
    /// What `inode` is.
    pub const fn of(inode: &InodeKind) -> Self {
        match inode {
            InodeKind::Directory(_) => Self::Directory,
            InodeKind::File(_) => Self::File,
            InodeKind::Symlink(_) => Self::Symlink,
            InodeKind::CharDevice(_) => Self::CharDevice,
            InodeKind::BlockDevice(_) => Self::BlockDevice,
            InodeKind::Fifo => Self::Fifo,
        }
    }

    /// The letter that `ls -l` begins a line with.
    const fn letter(self) -> char {
        match self {
            Self::Directory => 'd',
            Self::File => '-',
            Self::Symlink => 'l',
            Self::CharDevice => 'c',
            Self::BlockDevice => 'b',
            Self::Fifo => 'p',
        }
    }
}

/// Every name in the tree, in the order of a walk.
pub fn list(tree: &Merged) -> Vec<Listed> {
    tree.walk().map(|(path, inode)| listed(&path, inode)).collect()
}

/// The absolute path for a person: everything but printable ASCII as an escape.
pub fn shown(path: &[u8]) -> String {
    format!("/{}", path.escape_ascii())
}

/// The list as `ls -l` has it: type and mode, owner, group, size or device number, path.
pub fn table(files: &[Listed]) -> String {
    let size = |file: &Listed| match file.device {
        Some((major, minor)) => format!("{major},{minor}"),
        None => file.size.to_string(),
    };
    let width = |text: &dyn Fn(&Listed) -> usize| files.iter().map(text).max().unwrap_or_default();
    let sizes = width(&|file| size(file).len());
    let owners = width(&|file| file.uid.to_string().len());
    let groups = width(&|file| file.gid.to_string().len());
    let line = |file: &Listed| {
        let target = file.target.as_ref().map(|target| format!(" -> {target}")).unwrap_or_default();
        let (mode, size) = (mode(file.kind, file.mode), size(file));
        format!("{mode} {:>owners$} {:>groups$} {size:>sizes$} {}{target}\n", file.uid, file.gid, file.path)
    };
    files.iter().map(line).collect()
}

fn listed(path: &[u8], inode: &Inode) -> Listed {
    let number = |device: &Device| Some((device.major, device.minor));
    Listed {
        path: shown(path),
        kind: Kind::of(&inode.kind),
        mode: inode.meta.mode,
        uid: inode.meta.uid,
        gid: inode.meta.gid,
        size: if let InodeKind::File(extent) = &inode.kind { extent.len } else { 0 },
        mtime: inode.meta.mtime,
        target: if let InodeKind::Symlink(target) = &inode.kind {
            Some(target.escape_ascii().to_string())
        } else {
            None
        },
        device: match &inode.kind {
            InodeKind::CharDevice(device) | InodeKind::BlockDevice(device) => number(device),
            _ => None,
        },
    }
}

/// `drwxr-sr-t` and the like.
fn mode(kind: Kind, bits: u32) -> String {
    let mut text = String::from(kind.letter());
    for (shift, special, set) in [(6, 0o4000, 's'), (3, 0o2000, 's'), (0, 0o1000, 't')] {
        let bit = |value: u32, letter| if bits & (value << shift) != 0 { letter } else { '-' };
        text.push(bit(4, 'r'));
        text.push(bit(2, 'w'));
        text.push(match (bits & special != 0, bit(1, 'x')) {
            (true, 'x') => set,
            (true, _) => set.to_ascii_uppercase(),
            (false, plain) => plain,
        });
    }
    text
}

fn octal<S: Serializer>(mode: &u32, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&format_args!("{mode:04o}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        image::merge::merge,
        layer::{
            tar::TarPlan,
            tree::{Meta, Node, TreePath},
        },
        report::sample::tree,
    };

    #[test]
    fn files_are_listed_as_ls_does_and_names_are_escaped() {
        let mut tree = tree(&[("etc/motd", "hello"), ("etc/a\u{1b}[2J", "")]);
        let mut add = |path: &str, node| tree.insert(TreePath::new(path).unwrap(), node);
        add("dev/null", Node::CharDevice { meta: Meta::root_owned(0o666, 0), device: Device { major: 1, minor: 3 } });
        add("bin", Node::Symlink { meta: Meta::root_owned(0o777, 0), target: b"usr/bin\n".to_vec() });
        add("tmp", Node::Directory { meta: Meta { uid: 1000, ..Meta::root_owned(0o1777, 0) }, opaque: false });
        let files = list(&merge(&[&TarPlan::new(&tree).unwrap().index()]).unwrap());
        let text = table(&files);
        for line in [
            "lrwxrwxrwx    0 0   0 /bin -> usr/bin\\n",
            "crw-rw-rw-    0 0 1,3 /dev/null",
            "-rw-r--r--    0 0   0 /etc/a\\x1b[2J",
            "-rw-r--r--    0 0   5 /etc/motd",
            "drwxrwxrwt 1000 0   0 /tmp",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}\n{text}");
        }
        let json = serde_json::to_value(&files).unwrap();
        let motd = json.as_array().unwrap().iter().find(|file| file["path"] == "/etc/motd").unwrap();
        assert_eq!((&motd["type"], &motd["mode"], &motd["size"]), (&"file".into(), &"0644".into(), &5.into()));
    }

    #[test]
    fn special_bits_take_the_place_of_execute() {
        assert_eq!(mode(Kind::File, 0o4755), "-rwsr-xr-x");
        assert_eq!(mode(Kind::File, 0o6644), "-rwSr-Sr--");
        assert_eq!(mode(Kind::Directory, 0o1776), "drwxrwxrwT");
    }
}

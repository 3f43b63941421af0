//! The kernel command line inside the boot image.

use gap_format::Digest;

/// What the kernel is told besides what to start.
///
/// Both consoles, the serial one last so that it is `/dev/console`; only warnings of the kernel on
/// them, because the boot story is `gap-init`'s to tell and a slow serial line delays every start;
/// a kernel that panics restarts after a minute in which the reason can be read. Its ciphers do not
/// test themselves, which is upstream's default: a tenth of a start under emulation goes into that,
/// and a hash that is computed wrongly fails the verification anyway.
const KERNEL: &str = "console=tty0 console=ttyS0,115200 loglevel=4 panic=60 cryptomgr.notests";

/// The command line that starts release `serial` of the appliance `name` with the boot image whose
/// mount manifest is `os`.
pub fn command_line(name: &str, serial: u64, os: &Digest) -> String {
    format!("gap.name={name} gap.serial={serial} gap.os={os} {KERNEL}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_names_release_and_boot_image() {
        let line = command_line("demo", 7, &Digest::of(b"x"));
        assert!(line.starts_with("gap.name=demo gap.serial=7 gap.os=sha256:2d711642"), "{line}");
        assert!(line.contains(" console=tty0 console=ttyS0,115200 "), "the serial console is the last: {line}");
    }
}

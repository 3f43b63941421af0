//! The power button, which ACPI shows as a key of an input device.

use std::{
    collections::BTreeMap,
    fs::{self, File, OpenOptions},
    io::Read,
    os::{
        fd::{AsFd, BorrowedFd},
        unix::fs::OpenOptionsExt,
    },
    path::{Path, PathBuf},
};

const EV_KEY: u16 = 1;
const KEY_POWER: u16 = 116;
/// `struct input_event` on 64-bit machines: 16 bytes of time, then type, code and value.
const EVENT: usize = 24;

/// All buttons found so far.
#[derive(Debug)]
pub struct PowerButtons {
    root: PathBuf,
    devices: BTreeMap<String, File>,
}

impl PowerButtons {
    /// Looks for buttons below `root`.
    pub fn find_from(root: &Path) -> Self {
        let mut buttons = Self { root: root.into(), devices: BTreeMap::new() };
        buttons.look_again();
        buttons
    }

    /// Looks for buttons that came since; keyboards are plugged in late.
    pub fn look_again(&mut self) {
        let Ok(entries) = fs::read_dir(self.root.join("sys/class/input")) else { return };
        for name in entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()) {
            if !name.starts_with("event") || self.devices.contains_key(&name) || !has_power_key(&self.root, &name) {
                continue;
            }
            let node = self.root.join("dev/input").join(&name);
            if let Ok(file) = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(node) {
                self.devices.insert(name, file);
            }
        }
    }

    /// Descriptors to wait on.
    pub fn descriptors(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.devices.values().map(AsFd::as_fd)
    }

    /// Takes all waiting events; says whether the button went down. Devices that are gone are let go.
    pub fn pressed(&mut self) -> bool {
        let mut pressed = false;
        self.devices.retain(|_, device| {
            let mut events = [0; EVENT * 64];
            loop {
                match device.read(&mut events) {
                    Ok(0) => return true,
                    Ok(len) => pressed |= events.chunks_exact(EVENT).take(len / EVENT).any(is_press),
                    Err(error) => return error.kind() == std::io::ErrorKind::WouldBlock,
                }
            }
        });
        pressed
    }
}

fn is_press(event: &[u8]) -> bool {
    let short = |at: usize| Some(u16::from_ne_bytes(event.get(at..at + 2)?.try_into().ok()?));
    let down = event.get(20..24).is_some_and(|value| value == 1_i32.to_ne_bytes());
    short(16) == Some(EV_KEY) && short(18) == Some(KEY_POWER) && down
}

/// Whether bit 116 is set in the key bitmap: hexadecimal words of 64 bits, the highest first.
fn has_power_key(root: &Path, name: &str) -> bool {
    let path = root.join("sys/class/input").join(name).join("device/capabilities/key");
    let Ok(text) = fs::read_to_string(path) else { return false };
    let word = text.split_whitespace().rev().nth(usize::from(KEY_POWER) / 64);
    word.and_then(|word| u64::from_str_radix(word, 16).ok()).is_some_and(|word| word >> (KEY_POWER % 64) & 1 == 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(kind: u16, code: u16, value: i32) -> Vec<u8> {
        let mut event = vec![0; 16];
        event.extend(kind.to_ne_bytes());
        event.extend(code.to_ne_bytes());
        event.extend(value.to_ne_bytes());
        event
    }

    fn machine(keys: &str, events: &[u8]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        let device = root.path().join("sys/class/input/event3/device/capabilities");
        fs::create_dir_all(&device).unwrap();
        fs::create_dir_all(root.path().join("dev/input")).unwrap();
        fs::write(device.join("key"), keys).unwrap();
        fs::write(root.path().join("dev/input/event3"), events).unwrap();
        root
    }

    #[test]
    fn pressing_the_button_is_seen() {
        let root = machine("10000000000000 0\n", &[event(0, 0, 0), event(1, 116, 1)].concat());
        assert!(PowerButtons::find_from(root.path()).pressed());
    }

    #[test]
    fn other_keys_and_letting_go_are_not() {
        let root = machine("10000000000000 0\n", &[event(1, 30, 1), event(1, 116, 0)].concat());
        let mut buttons = PowerButtons::find_from(root.path());
        assert_eq!(buttons.descriptors().count(), 1);
        assert!(!buttons.pressed());
    }

    #[test]
    fn a_device_without_such_a_key_is_not_opened() {
        let root = machine("1f 0\n", &event(1, 116, 1));
        assert_eq!(PowerButtons::find_from(root.path()).descriptors().count(), 0);
    }
}

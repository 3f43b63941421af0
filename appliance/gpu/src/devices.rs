//! Major numbers of character devices, from `/proc/devices`.

use crate::driver::read;
use gap_root::Root;
use std::collections::BTreeMap;

/// The major number that NVIDIA's GPUs have had since Linux was given it.
const GPU_MAJOR: u32 = 195;

/// Names and major numbers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Majors(BTreeMap<String, u32>);

impl Majors {
    /// Reads `/proc/devices`; empty when there is none.
    pub fn read(root: &Root) -> Self {
        read(root, "/proc/devices").map_or_else(Self::default, |text| Self::parse(&text))
    }

    fn parse(text: &str) -> Self {
        let character = text.lines().skip_while(|line| !line.starts_with("Character devices")).skip(1);
        let entries = character.take_while(|line| !line.is_empty()).filter_map(|line| {
            let (major, name) = line.trim().split_once(' ')?;
            Some((name.trim().to_owned(), major.parse().ok()?))
        });
        Self(entries.collect())
    }

    /// The major number of a name.
    pub fn of(&self, name: &str) -> Option<u32> {
        self.0.get(name).copied()
    }

    /// That of GPUs: drivers before 555 call it `nvidia-frontend`.
    pub fn gpu(&self) -> u32 {
        self.of("nvidia").or_else(|| self.of("nvidia-frontend")).unwrap_or(GPU_MAJOR)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn block_devices_of_the_same_name_do_not_count() {
        let text =
            "Character devices:\n  1 mem\n195 nvidia-frontend\n234 nvidia-uvm\n\nBlock devices:\n  8 nvidia-caps\n";
        let majors = Majors::parse(text);
        assert_eq!(majors.gpu(), 195);
        assert_eq!(majors.of("nvidia-uvm"), Some(234));
        assert_eq!(majors.of("nvidia-caps"), None);
    }
}

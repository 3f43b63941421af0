//! Kernel modules, in the order that the initramfs was built with.

use rustix::{io::Errno, system::finit_module};
use std::{fs, fs::File, path::Path};

use crate::{Attempt, Stop, story::Story};

/// What became of the modules.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Loaded {
    /// Modules that are in the kernel now.
    pub loaded: usize,
    /// Modules whose hardware this machine does not have.
    pub idle: usize,
}

/// Loads every module that `gap/modules/order` names, one file name a line.
///
/// One that the kernel refuses is told and passed over: whether it was needed shows itself later, by what is missing.
///
/// # Errors
/// [`Stop`] when the list cannot be read or names something outside of its directory.
pub fn load_from(root: &Path, story: &Story) -> Result<Loaded, Stop> {
    let directory = root.join("gap/modules");
    let order =
        fs::read_to_string(directory.join("order")).attempt(|| "reading the module list /gap/modules/order".into())?;
    let mut result = Loaded::default();
    for name in names(&order)? {
        let file = File::open(directory.join(name)).attempt(|| format!("opening the module {name}"))?;
        match finit_module(file, c"", 0) {
            Ok(()) | Err(Errno::EXIST) => result.loaded += 1,
            Err(Errno::NODEV) => result.idle += 1,
            Err(error) => story.tell(format_args!("module {name} is not loaded: {error}")),
        }
    }
    Ok(result)
}

fn names(order: &str) -> Result<Vec<&str>, Stop> {
    order
        .lines()
        .filter(|line| !line.is_empty())
        .map(|line| match line.contains('/') || line.starts_with('.') {
            true => Err(Stop::Failed(format!("/gap/modules/order names `{line}`, which is no plain file name"))),
            false => Ok(line),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_order_is_kept_and_stays_in_its_directory() {
        assert_eq!(names("b.ko\na.ko\n\n").unwrap(), ["b.ko", "a.ko"]);
        assert!(names("../b.ko").is_err());
        assert!(names("x/b.ko").is_err());
    }
}

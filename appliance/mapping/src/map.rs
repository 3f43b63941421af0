//! From the blobs of a verified release to block devices that give right bytes or an error.

use crate::device_mapper::{BLOCK, Control, Mapped, Number, Target};
use gap_format::{Digest, release::Mount};
use std::{io, path::Path};

/// The devices of one image, in the order in which EROFS wants them, and all names to remove at the end.
#[derive(Debug, Default)]
pub struct Mapping {
    /// One verity device for each blob.
    pub devices: Vec<Mapped>,
    /// Every device-mapper name that was made, each after those it stands on.
    pub names: Vec<String>,
}

/// Why a blob is not mapped.
#[derive(Debug, thiserror::Error)]
pub enum MapError {
    /// The blob does not lie where blocks do.
    #[error("blob {0} does not lie on blocks of {BLOCK} bytes, two at least")]
    Misplaced(Digest),
    /// There is no device-mapper.
    #[error("opening /dev/mapper/control: {0}")]
    Control(io::Error),
    /// The kernel refuses a device.
    #[error("mapping {blob}: {source}")]
    Refused {
        /// The blob.
        blob: Digest,
        /// The kernel's answer.
        source: io::Error,
    },
    /// A device of that name shows something else.
    #[error("a device for {0} is there already, and shows something else")]
    Taken(Digest),
}

/// Maps every blob of `medium`: a slice of it, and over the slice the device that checks each read. What is mapped
/// already is used again.
///
/// # Errors
/// [`MapError`] when a blob does not lie on block boundaries or the kernel refuses a device.
pub fn map<'a>(root: &Path, medium: Number, blobs: impl IntoIterator<Item = &'a Mount>) -> Result<Mapping, MapError> {
    let control = Control::open_from(root).map_err(MapError::Control)?;
    let mut mapping = Mapping::default();
    for blob in blobs {
        map_one(&control, medium, blob, &mut mapping)?;
    }
    Ok(mapping)
}

fn map_one(control: &Control, medium: Number, blob: &Mount, mapping: &mut Mapping) -> Result<(), MapError> {
    let aligned = [blob.offset, blob.size, blob.tree_offset].iter().all(|value| value.is_multiple_of(BLOCK));
    if !aligned || blob.size < 2 * BLOCK {
        return Err(MapError::Misplaced(blob.digest));
    }
    let hex = blob.digest.to_hex();
    let slice_name = format!("gap-{hex}-slice");
    let slice = obtain(control, &slice_name, &Target::slice(medium, blob.offset, blob.size), blob.digest, mapping)?;
    // The tree needs no slice of its own: its table says where it begins on the medium.
    let target = Target::verity(slice.number, blob.size, medium, blob.tree_offset, &blob.root);
    let checked = obtain(control, &format!("gap-{hex}"), &target, blob.digest, mapping)?;
    mapping.devices.push(checked);
    Ok(())
}

/// Makes a device, or takes the one of that name if its table is the same.
fn obtain(
    control: &Control,
    name: &str,
    target: &Target,
    blob: Digest,
    mapping: &mut Mapping,
) -> Result<Mapped, MapError> {
    let refused = |source| MapError::Refused { blob, source };
    match control.create(name, target) {
        Ok(made) => {
            mapping.names.push(name.to_owned());
            Ok(made)
        }
        Err(error) if error.kind() == io::ErrorKind::ResourceBusy => {
            control.existing(name, target).map_err(refused)?.ok_or(MapError::Taken(blob))
        }
        Err(error) => Err(refused(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_blob_off_the_block_grid_is_refused_before_the_kernel_sees_it() {
        let digest = Digest::of(b"");
        let good = Mount { digest, offset: 4096, size: 8192, root: digest, tree_offset: 12_288, tree_size: 4096 };
        for bad in [
            Mount { offset: 512, ..good.clone() },
            Mount { size: 8193, ..good.clone() },
            Mount { size: 4096, ..good.clone() },
            Mount { tree_offset: 1, ..good },
        ] {
            let control = Control::open_at(Path::new("/dev/null")).unwrap();
            let result = map_one(&control, Number { major: 0, minor: 0 }, &bad, &mut Mapping::default());
            assert!(matches!(result, Err(MapError::Misplaced(_))));
        }
    }
}

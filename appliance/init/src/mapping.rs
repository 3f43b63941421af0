//! From the blobs of a verified release to block devices that give right bytes or an error.

use std::path::Path;

use crate::{
    Attempt, Stop,
    device_mapper::{BLOCK, Control, Mapped, Number, Target},
    release::Blob,
};

/// The devices of one image, in the order in which EROFS wants them, and all names to remove at the end.
#[derive(Debug, Default)]
pub struct Mapping {
    /// One verity device for each blob.
    pub devices: Vec<Mapped>,
    /// Every device-mapper name that was made, each after those it stands on.
    pub names: Vec<String>,
}

/// Maps every blob of `medium`: a slice of it, and over the slice the device that checks each read.
///
/// # Errors
/// [`Stop`] when a blob does not lie on block boundaries or the kernel refuses a device.
pub fn map(root: &Path, medium: Number, blobs: &[Blob]) -> Result<Mapping, Stop> {
    let control = Control::open_from(root).attempt(|| "opening /dev/mapper/control".into())?;
    let mut mapping = Mapping::default();
    for blob in blobs {
        map_one(&control, medium, blob, &mut mapping)?;
    }
    Ok(mapping)
}

fn map_one(control: &Control, medium: Number, blob: &Blob, mapping: &mut Mapping) -> Result<(), Stop> {
    let aligned = [blob.offset, blob.len, blob.tree_offset].iter().all(|value| value.is_multiple_of(BLOCK));
    if !aligned || blob.len < 2 * BLOCK {
        let reason = format!("blob {} does not lie on blocks of {BLOCK} bytes, two at least", blob.digest);
        return Err(Stop::NotTrusted(reason));
    }
    let hex = blob.digest.to_hex();
    let slice_name = format!("gap-{hex}-slice");
    let slice = control
        .create(&slice_name, &Target::slice(medium, blob.offset, blob.len))
        .attempt(|| format!("mapping {} of the medium", blob.digest))?;
    mapping.names.push(slice_name);
    // The tree needs no slice of its own: its table says where it begins on the medium.
    let target = Target::verity(slice.number, blob.len, medium, blob.tree_offset, &blob.root);
    let checked = control
        .create(&format!("gap-{hex}"), &target)
        .attempt(|| format!("mapping {} through its hash tree", blob.digest))?;
    mapping.names.push(checked.name.clone());
    mapping.devices.push(checked);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use gap_format::Digest;

    #[test]
    fn a_blob_off_the_block_grid_is_refused_before_the_kernel_sees_it() {
        let digest = Digest::of(b"");
        let good = Blob { name: "x".into(), digest, offset: 4096, len: 8192, root: digest, tree_offset: 12_288 };
        let control = Path::new("/dev/null");
        for bad in [
            Blob { offset: 512, ..good.clone() },
            Blob { len: 8193, ..good.clone() },
            Blob { len: 4096, ..good.clone() },
            Blob { tree_offset: 1, ..good },
        ] {
            let control = Control::open_at(control).unwrap();
            let result = map_one(&control, Number { major: 0, minor: 0 }, &bad, &mut Mapping::default());
            assert!(matches!(result, Err(Stop::NotTrusted(_))));
        }
    }
}

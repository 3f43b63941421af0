//! Python wheels, by the rows of the lock.

use crate::{
    check::{
        facts::{Image, Wheel},
        python::tags_of,
    },
    source::wheels::{LockedSdist, LockedWheel, LockedWheels},
};

/// Adds the wheels of a layer to the image that it is in, and the Python and the C library that they were chosen for.
pub(super) fn add(image: &mut Image, rows: &LockedWheels) {
    image.python = rows.python.to_string().parse().ok();
    image.glibc = rows.glibc.to_string().parse().ok();
    image.wheels.extend(rows.wheels.iter().filter_map(wheel));
    image.wheels.extend(rows.sdists.iter().filter_map(built));
    let provided = rows.provided.iter();
    image.provided.extend(provided.filter_map(|row| Some((row.name.as_str().to_owned(), row.version.parse().ok()?))));
}

/// A row as the rules see it; `None` where it names no wheel, which a lock never does.
fn wheel(row: &LockedWheel) -> Option<Wheel> {
    Some(Wheel {
        name: row.name.as_str().parse().ok()?,
        version: row.version.parse().ok()?,
        tags: tags_of(&row.file)?,
        requires: row.requires.iter().filter_map(|text| text.parse().ok()).collect(),
        licenses: row.licenses.clone(),
    })
}

/// What is built from source fits the image that it is built for.
fn built(row: &LockedSdist) -> Option<Wheel> {
    Some(Wheel {
        name: row.name.as_str().parse().ok()?,
        version: row.version.parse().ok()?,
        tags: tags_of("built-0-py3-none-any.whl")?,
        requires: row.requires.iter().filter_map(|text| text.parse().ok()).collect(),
        licenses: row.licenses.clone(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_of_the_lock_become_wheels() {
        let rows: LockedWheels = toml::from_str(concat!(
            "python = \"3.13.5\"\nglibc = \"2.41\"\n[[provided]]\nname = \"pyyaml\"\nversion = \"6.0.2\"\n",
            "package = \"python3-yaml\"\n[[wheel]]\nname = \"torch\"\nversion = \"2.9.1+cu128\"\n",
            "file = \"torch-2.9.1+cu128-cp313-cp313-manylinux_2_28_x86_64.whl\"\nsize = 1\ninstalled-size = 1\n",
            "sha256 = \"sha256:0000000000000000000000000000000000000000000000000000000000000000\"\n",
            "licenses = [\"BSD-3-Clause\"]\nrequires = [\"nvidia-cudnn-cu12==9.10.2.21\", \"sympy>=1.13.3\"]\n",
        ))
        .unwrap();
        let mut image = Image::default();
        add(&mut image, &rows);
        assert_eq!(image.python.unwrap().to_string(), "3.13.5");
        assert_eq!(image.glibc.unwrap().to_string(), "2.41");
        assert_eq!(image.provided["pyyaml"].to_string(), "6.0.2");
        let wheel = &image.wheels[0];
        assert_eq!((wheel.tags[0].platform.as_str(), wheel.requires.len()), ("manylinux_2_28_x86_64", 2));
        assert_eq!(wheel.requires[0].name.as_ref(), "nvidia-cudnn-cu12");
    }
}

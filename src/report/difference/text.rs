//! A difference for a person.

use super::{Change, Difference, FileDifference, ImageDifference, Package, State};
use gap_format::escape::escaped;
use std::fmt;

impl State {
    /// The sign before a line, as in `diff -u`.
    const fn sign(self) -> char {
        match self {
            Self::Same => ' ',
            Self::Changed => '~',
            Self::Added => '+',
            Self::Gone => '-',
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Same => "same",
            Self::Changed => "changed",
            Self::Added => "added",
            Self::Gone => "gone",
        })
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Kind => "kind",
            Self::Content => "content",
            Self::Mode => "mode",
            Self::Owner => "owner",
            Self::Time => "time",
            Self::Attributes => "attributes",
        })
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.identical {
            writeln!(
                f,
                "the same release in every byte{}",
                if self.statement.is_empty() { "" } else { " but the signatures" }
            )?;
        }
        for field in &self.statement {
            let value = |value: &Option<String>| value.as_deref().map_or_else(|| "(none)".to_owned(), escaped);
            writeln!(f, "{}: {} -> {}", field.field, value(&field.old), value(&field.new))?;
        }
        if let Some(state) = self.boot.filter(|state| *state != State::Same) {
            writeln!(f, "boot partition: {state}")?;
        }
        self.images.iter().filter(|image| image.differs()).try_for_each(|image| write_image(f, image))
    }
}

impl ImageDifference {
    fn differs(&self) -> bool {
        self.state != State::Same || self.layers.iter().any(|layer| layer.state != State::Same)
    }
}

fn write_image(f: &mut fmt::Formatter<'_>, image: &ImageDifference) -> fmt::Result {
    writeln!(f, "\nimage {}: {}", escaped(&image.name), image.state)?;
    for layer in &image.layers {
        writeln!(f, "  {} layer {}: {}", layer.state.sign(), escaped(&layer.name), layer.state)?;
    }
    if image.reordered {
        writeln!(f, "  ~ layers lie in another order")?;
    }
    image.packages.iter().try_for_each(|package| write_package(f, package))?;
    let only_time = |file: &&FileDifference| file.what == [Change::Time];
    for file in image.files.iter().filter(|file| !only_time(file)) {
        write!(f, "  {} {}", file.state.sign(), file.path)?;
        if !file.what.is_empty() {
            let what: Vec<String> = file.what.iter().map(ToString::to_string).collect();
            write!(f, " ({})", what.join(", "))?;
        }
        writeln!(f)?;
    }
    match image.files.iter().filter(only_time).count() {
        0 => Ok(()),
        count => writeln!(f, "  ~ {count} more that differ in nothing but their time (--json names them)"),
    }
}

fn write_package(f: &mut fmt::Formatter<'_>, package: &Package) -> fmt::Result {
    let name = escaped(&package.name);
    match (&package.old, &package.new) {
        (Some(old), Some(new)) => writeln!(f, "  ~ package {name}: {} -> {}", escaped(old), escaped(new)),
        (Some(old), None) => writeln!(f, "  - package {name}: {}", escaped(old)),
        (None, new) => writeln!(f, "  + package {name}: {}", escaped(new.as_deref().unwrap_or_default())),
    }
}

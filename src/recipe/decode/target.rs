//! Decoding of `[target]`.

use crate::recipe::{
    Gpu, Target,
    problem::{Problems, suggestion},
    section::{Placed, Section},
    value::Value,
};

/// Units of bytes, by the names that recipes use.
const UNITS: [(&str, u64); 8] = [
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("TB", 1_000_000_000_000),
    ("PB", 1_000_000_000_000_000),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
    ("PiB", 1 << 50),
];

pub(super) fn target(value: &Value, problems: &Problems) -> Option<Target> {
    let mut section = Section::open("`[target]`", value, problems)?;
    let gpu = section.string("gpu").and_then(|name| gpu(&name, problems));
    let default = u32::from(gpu.is_some());
    let count = section.integer("count").and_then(|count| number("count", &count, 0, problems)).unwrap_or(default);
    if count > 0 && gpu.is_none() && problems.is_empty() {
        let names: Vec<&str> = Gpu::names().collect();
        let help = format!("add `gpu = \"…\"`; {}", suggestion("", &names));
        problems.add_with_help(section.at, "`[target]` counts GPUs and does not say which", help);
    }
    let nodes = section.integer("nodes").and_then(|nodes| number("nodes", &nodes, 1, problems)).unwrap_or(1);
    let driver = section.string("driver").and_then(|driver| match driver.value.parse() {
        Ok(version) => Some(version),
        Err(error) => {
            let message = format!("`driver = \"{}\"` is no version", driver.value.escape_debug());
            problems.add_with_help(driver.at, message, format!("{error}"));
            None
        }
    });
    let memory = section.string("memory").and_then(|size| bytes("memory", &size, problems));
    let disk = section.string("disk").and_then(|size| bytes("disk", &size, problems));
    section.finish();
    Some(Target { gpu: gpu.filter(|_| count > 0), count, nodes, driver, memory, disk })
}

fn gpu(name: &Placed<'_, &str>, problems: &Problems) -> Option<Gpu> {
    let found = Gpu::named(name.value);
    if found.is_none() {
        let names: Vec<&str> = Gpu::names().collect();
        let message = format!("the GPU `{}` is not known", name.value.escape_debug());
        problems.add_with_help(name.at, message, suggestion(name.value, &names));
    }
    found
}

/// A number from `least` up.
pub(super) fn number(key: &str, number: &Placed<'_, i64>, least: u32, problems: &Problems) -> Option<u32> {
    match u32::try_from(number.value) {
        Ok(value) if value >= least => Some(value),
        _ => {
            let message = format!("`{key} = {}` is out of range", number.value);
            problems.add_with_help(number.at, message, format!("a number from {least} up"));
            None
        }
    }
}

fn bytes(key: &str, size: &Placed<'_, &str>, problems: &Problems) -> Option<u64> {
    let parsed = UNITS.iter().find_map(|(unit, factor)| {
        let count = size.value.strip_suffix(unit)?.trim_end();
        let digits = !count.is_empty() && count.bytes().all(|byte| byte.is_ascii_digit());
        digits.then(|| count.parse::<u64>().ok()?.checked_mul(*factor)).flatten()
    });
    if parsed.is_none() {
        let message = format!("`{key} = \"{}\"` is no size", size.value.escape_debug());
        problems.add_with_help(size.at, message, "a whole number and a unit: `512GB` or `4TiB`");
    }
    parsed
}

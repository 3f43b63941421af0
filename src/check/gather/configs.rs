//! The configurations of jobs and steps.

use crate::{
    check::facts::Config,
    recipe::{ConfigPath, Recipe},
};
use serde_json::Value;
use std::{
    fs::File,
    io::{self, Read},
    path::Path,
};

/// Largest configuration that is read, in bytes.
const MAX_LEN: u64 = 1 << 20;

/// Reads the configurations of all jobs and steps.
pub fn configs(recipe: &Recipe) -> Vec<Config> {
    let jobs = recipe.jobs.iter().map(|job| (format!("job {}", job.name), &job.configs));
    let steps = recipe.steps.iter().map(|step| (format!("step {}", step.name), &step.configs));
    let named = jobs.chain(steps).flat_map(|(owner, paths)| paths.iter().map(move |path| (owner.clone(), path)));
    named.map(|(owner, path)| Config { owner, path: path.shown.clone(), content: content(path) }).collect()
}

fn content(path: &ConfigPath) -> Result<Value, String> {
    let text = read(&path.path).map_err(|error| format!("it cannot be read: {error}"))?;
    parse(&path.shown, &text)
}

fn read(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    File::open(path)?.take(MAX_LEN + 1).read_to_string(&mut text)?;
    if text.len() as u64 > MAX_LEN {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, "it is longer than 1 MiB"));
    }
    Ok(text)
}

/// Decodes a configuration by its suffix.
///
/// # Errors
/// What is wrong with it, in one line.
pub fn parse(name: &str, text: &str) -> Result<Value, String> {
    let one_line = |error: String| error.lines().map(str::trim).collect::<Vec<_>>().join(" ");
    if name.ends_with(".json") {
        serde_json::from_str(text).map_err(|error| format!("this is not JSON: {error}"))
    } else if name.ends_with(".toml") {
        toml::from_str(text).map_err(|error| format!("this is not TOML: {}", error.message()))
    } else {
        serde_saphyr::from_str(text).map_err(|error| one_line(format!("this is not YAML: {error}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn all_three_forms_are_read() {
        let expected = json!({"bf16": true, "steps": 10, "args": {"names": ["a"]}});
        let json = r#"{"bf16": true, "steps": 10, "args": {"names": ["a"]}}"#;
        assert_eq!(parse("a.json", json).unwrap(), expected);
        assert_eq!(parse("a.yaml", "bf16: true\nsteps: 10\nargs:\n  names: [a]\n").unwrap(), expected);
        assert_eq!(parse("a.toml", "bf16 = true\nsteps = 10\n[args]\nnames = [\"a\"]\n").unwrap(), expected);
    }

    #[test]
    fn what_is_broken_or_a_bomb_is_refused_in_one_line() {
        for (name, text) in [("a.json", "{"), ("a.yaml", "a: [\n  b: }"), ("a.toml", "= 1")] {
            let error = parse(name, text).unwrap_err();
            assert!(!error.contains('\n'), "{error}");
        }
        let mut bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n".to_owned();
        for level in 1..12 {
            let last = level - 1;
            bomb += &format!("a{level}: &a{level} [{}]\n", vec![format!("*a{last}"); 9].join(", "));
        }
        assert!(parse("a.yaml", &bomb).is_err());
        assert!(parse("a.yaml", &"[".repeat(100_000)).is_err());
    }
}

//! Programs that a project declares (`entry_points.txt`; entry points specification).

/// Longest file read, in bytes.
pub(super) const MAX_LEN: u64 = 4 << 20;

/// A program that calls a function.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Program {
    /// The name of the program.
    pub name: String,
    /// The module to import.
    pub module: String,
    /// What to call in it, with dots between attributes.
    pub function: String,
}

/// Why an entry point is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EntryPointError {
    /// It is not UTF-8.
    #[error("entry_points.txt is not UTF-8")]
    Encoding,
    /// A program that cannot be a file, or does not name a function.
    #[error("entry_points.txt declares the program `{0}`, which cannot be made")]
    Program(String),
}

/// The programs, for the console and others, sorted by name.
///
/// # Errors
/// [`EntryPointError`].
pub fn programs(data: &[u8]) -> Result<Vec<Program>, EntryPointError> {
    let text = std::str::from_utf8(data).map_err(|_| EntryPointError::Encoding)?;
    let mut programs = Vec::new();
    let mut is_wanted = false;
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with(['#', ';'])) {
        if let Some(section) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            is_wanted = matches!(section.trim(), "console_scripts" | "gui_scripts");
        } else if is_wanted {
            let program = program(line).ok_or_else(|| EntryPointError::Program(line.escape_debug().to_string()))?;
            programs.push(program);
        }
    }
    programs.sort();
    programs.dedup_by(|a, b| a.name == b.name);
    Ok(programs)
}

/// `name = module:function [extras]`.
fn program(line: &str) -> Option<Program> {
    let (name, target) = line.split_once('=')?;
    let name = name.trim();
    let is_file_name = !matches!(name, "" | "." | "..") && !name.contains('/') && !name.chars().any(char::is_control);
    let target = target.split('[').next().unwrap_or_default();
    let (module, function) = target.split_once(':')?;
    let (module, function) = (module.trim(), function.trim());
    (is_file_name && name.len() <= 255 && is_dotted(module) && is_dotted(function)).then(|| Program {
        name: name.to_owned(),
        module: module.to_owned(),
        function: function.to_owned(),
    })
}

/// Python identifiers with dots between them.
fn is_dotted(text: &str) -> bool {
    text.split('.').all(|part| {
        let mut letters = part.chars();
        letters.next().is_some_and(|first| first == '_' || first.is_alphabetic())
            && letters.all(|letter| letter == '_' || letter.is_alphanumeric())
    })
}

impl Program {
    /// The text of the program for this interpreter.
    pub(super) fn script(&self, interpreter: &str) -> String {
        let Self { module, function, .. } = self;
        let object = function.split('.').next().unwrap_or_default();
        format!(
            "#!{interpreter}\nimport sys\nfrom {module} import {object}\nif __name__ == \"__main__\":\n    \
             sys.exit({function}())\n"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_become_scripts() {
        let text = b"[console_scripts]\nb-run = pkg.cli:App.main [extra]\na = pkg:main\n[other]\nno = x\n# c\n[gui_scripts]\ng=p:q\n";
        let programs = programs(text).unwrap();
        assert_eq!(programs.iter().map(|program| program.name.as_str()).collect::<Vec<_>>(), ["a", "b-run", "g"]);
        assert_eq!(
            programs[1].script("/usr/bin/python3.13"),
            "#!/usr/bin/python3.13\nimport sys\nfrom pkg.cli import App\nif __name__ == \"__main__\":\n    \
             sys.exit(App.main())\n"
        );
    }

    #[test]
    fn programs_that_climb_or_carry_code_are_refused() {
        for line in
            ["../x = a:b", ".. = a:b", "x = a", "x = a:b()", "x = a;b:c", "x = os:sys\u{2028}tem", "x = 1a:b", "= a:b"]
        {
            let text = format!("[console_scripts]\n{line}\n");
            assert!(programs(text.as_bytes()).is_err(), "{line}");
        }
        assert!(programs(b"\xff").is_err());
    }
}

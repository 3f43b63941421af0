//! Mapping user and group ids into a sandbox: 0–65535 inside, so that packages can own files.

use std::{fs, io, path::Path, process::Command};

/// Number of ids in a sandbox; `nobody` is 65534.
const IDS: u64 = 65_536;

/// Why ids cannot be mapped.
#[derive(Debug, thiserror::Error)]
pub enum IdMapError {
    /// No subordinate ids.
    #[error(
        "{user} has no range of {IDS} subordinate ids in {file}, which packages with several owners need; \
         as root run `usermod --add-subuids 100000-165535 --add-subgids 100000-165535 {user}`, or build as root"
    )]
    NoRange {
        /// Name of the user.
        user: String,
        /// `/etc/subuid` or `/etc/subgid`.
        file: &'static str,
    },
    /// The program that maps them is missing.
    #[error("{program} is not installed; install it (Debian: `apt install uidmap`), or build as root")]
    NoProgram {
        /// `newuidmap` or `newgidmap`.
        program: &'static str,
    },
    /// It was refused.
    #[error("mapping ids into the sandbox was refused ({program}: {message}){}", hint())]
    Refused {
        /// Who refused.
        program: String,
        /// What was said.
        message: String,
    },
}

/// Maps the ids of the process `pid`, which has just entered its user name space.
pub(super) fn map(pid: u32) -> Result<(), IdMapError> {
    if rustix::process::geteuid().is_root() {
        for kind in ["uid_map", "gid_map"] {
            let file = format!("/proc/{pid}/{kind}");
            fs::write(&file, format!("0 0 {IDS}\n"))
                .map_err(|error| IdMapError::Refused { program: file, message: error.to_string() })?;
        }
        return Ok(());
    }
    let (uid, gid) = (rustix::process::getuid().as_raw(), rustix::process::getgid().as_raw());
    let user = user_name(uid);
    map_with("newuidmap", "/etc/subuid", pid, uid, &user, uid)?;
    map_with("newgidmap", "/etc/subgid", pid, gid, &user, uid)
}

/// Runs `newuidmap` or `newgidmap`: 0 is the user, the rest comes from the subordinate range.
fn map_with(
    program: &'static str,
    file: &'static str,
    pid: u32,
    own: u32,
    user: &str,
    uid: u32,
) -> Result<(), IdMapError> {
    let table = fs::read_to_string(file).unwrap_or_default();
    let start =
        subordinate_range(&table, user, uid).ok_or_else(|| IdMapError::NoRange { user: user.to_owned(), file })?;
    let numbers = [u64::from(pid), 0, u64::from(own), 1, 1, start, IDS - 1];
    let output = Command::new(program).args(numbers.map(|number| number.to_string())).output();
    match output {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => Err(IdMapError::Refused {
            program: program.to_owned(),
            message: output.stderr.trim_ascii().escape_ascii().to_string(),
        }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Err(IdMapError::NoProgram { program }),
        Err(error) => Err(IdMapError::Refused { program: program.to_owned(), message: error.to_string() }),
    }
}

/// The first id of a large enough range in subuid(5) or subgid(5).
fn subordinate_range(table: &str, user: &str, uid: u32) -> Option<u64> {
    table.lines().find_map(|line| {
        let mut fields = line.trim().split(':');
        let owner = fields.next()?;
        let start = fields.next()?.parse().ok()?;
        let count: u64 = fields.next()?.parse().ok()?;
        let ours = owner == user || owner.parse() == Ok(uid);
        (ours && count >= IDS - 1).then_some(start)
    })
}

/// The name of a user in passwd(5), or the number.
fn user_name(uid: u32) -> String {
    let table = fs::read_to_string("/etc/passwd").unwrap_or_default();
    let found = table.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(uid)).then(|| name.to_owned())
    });
    found.unwrap_or_else(|| uid.to_string())
}

/// What to do where user name spaces are switched off, as far as the host tells.
pub(super) fn hint() -> String {
    let value = |name: &str| {
        let path = Path::new("/proc/sys").join(name.replace('.', "/"));
        fs::read_to_string(path).ok().map(|text| text.trim().to_owned())
    };
    let settings = [
        ("kernel.unprivileged_userns_clone", "0", "1"),
        ("kernel.apparmor_restrict_unprivileged_userns", "1", "0"),
        ("user.max_user_namespaces", "0", "15000"),
    ];
    for (name, off, on) in settings {
        if value(name).is_some_and(|value| value == off) {
            return format!(
                "; this host has {name} = {off}, which keeps programs from user name spaces: \
                 as root run `sysctl -w {name}={on}`, or build on another host"
            );
        }
    }
    String::new()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_belongs_to_a_name_or_a_number_and_must_suffice() {
        let table = "root:1:2\nalice:100000:1000\n# bob\nalice:200000:65536\n1001:300000:65535\n";
        assert_eq!(subordinate_range(table, "alice", 1000), Some(200_000));
        assert_eq!(subordinate_range(table, "bob", 1001), Some(300_000));
        assert_eq!(subordinate_range(table, "carol", 1002), None);
    }
}

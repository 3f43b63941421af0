//! Credentials that the user keeps for hosts, in netrc(5) form.

use std::{env, fs, path::PathBuf};
use url::Url;

/// Longest file read, in bytes.
const MAX_LEN: u64 = 1 << 20;

/// Logins by host.
#[derive(Default, Clone)]
pub struct Netrc {
    machines: Vec<Machine>,
}

#[derive(Default, Clone)]
struct Machine {
    /// Absent for `default`.
    host: Option<String>,
    login: String,
    password: String,
}

impl std::fmt::Debug for Netrc {
    /// How many there are; never which.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Netrc({})", self.machines.len())
    }
}

impl Netrc {
    /// The file that `NETRC` names, else `~/.netrc`; nothing if there is none or it cannot be read.
    pub fn of_user() -> Self {
        let home = env::var_os("HOME").map(|home| PathBuf::from(home).join(".netrc"));
        let path = env::var_os("NETRC").map(PathBuf::from).or(home);
        let small = |path: &PathBuf| fs::metadata(path).is_ok_and(|meta| meta.is_file() && meta.len() <= MAX_LEN);
        let text = path.filter(small).and_then(|path| fs::read_to_string(path).ok());
        Self::parse(&text.unwrap_or_default())
    }

    fn parse(text: &str) -> Self {
        let mut machines: Vec<Machine> = Vec::new();
        let mut words = text.lines().filter(|line| !line.trim_start().starts_with('#')).flat_map(str::split_whitespace);
        while let Some(word) = words.next() {
            match word {
                "machine" => machines.push(Machine { host: words.next().map(str::to_owned), ..Machine::default() }),
                "default" => machines.push(Machine::default()),
                // Macros run to an empty line and are for other programs; nothing after them counts here.
                "macdef" => break,
                "login" | "password" | "account" => {
                    let (Some(machine), Some(value)) = (machines.last_mut(), words.next()) else { break };
                    match word {
                        "login" => machine.login = value.to_owned(),
                        "password" => machine.password = value.to_owned(),
                        _ => {}
                    }
                }
                _ => {}
            }
        }
        Self { machines }
    }

    /// The address with the user's credentials for its host, unless it has some.
    pub fn sign_in(&self, mut url: Url) -> Url {
        if !url.username().is_empty() || url.password().is_some() || !url.scheme().starts_with("http") {
            return url;
        }
        let host = url.host_str().map(str::to_owned);
        let exact = self.machines.iter().find(|machine| machine.host.is_some() && machine.host == host);
        let found = exact.or_else(|| self.machines.iter().find(|machine| machine.host.is_none()));
        if let Some(machine) = found {
            let signed = url.set_username(&machine.login).and_then(|()| url.set_password(Some(&machine.password)));
            debug_assert!(signed.is_ok(), "an http address has a host");
        }
        url
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn signed(netrc: &str, url: &str) -> String {
        Netrc::parse(netrc).sign_in(Url::parse(url).unwrap()).to_string()
    }

    #[test]
    fn the_hosts_own_login_is_used() {
        let netrc = "# machine example.org login no password no\nmachine example.org\n login me\n password p@ss\n\
                     machine other login o password o";
        assert_eq!(signed(netrc, "https://example.org/x"), "https://me:p%40ss@example.org/x");
        assert_eq!(signed(netrc, "https://elsewhere.example.org/x"), "https://elsewhere.example.org/x");
        assert_eq!(signed(netrc, "https://a:b@example.org/x"), "https://a:b@example.org/x");
        assert_eq!(signed(netrc, "file:///x"), "file:///x");
        assert_eq!(signed("default login d password e", "http://any/"), "http://d:e@any/");
        assert!(!format!("{:?}", Netrc::parse(netrc)).contains("p@ss"));
    }
}

//! The user's token for a hub, from where Hugging Face's own tools look for it.

use std::{
    env, fmt, fs,
    io::Read,
    path::{Path, PathBuf},
};
use zeroize::Zeroizing;

/// Longest file that is read as a token, in bytes.
const TOKEN_MAX: u64 = 4096;

/// A token. It is never shown, stored or put into anything that is built.
#[derive(Clone)]
pub struct Token(Zeroizing<String>);

/// The parts of the environment that say where the token is.
#[derive(Debug, Default)]
struct Places {
    token: Option<String>,
    token_path: Option<PathBuf>,
    hf_home: Option<PathBuf>,
    cache_home: Option<PathBuf>,
    home: Option<PathBuf>,
}

impl Token {
    /// The token of `HF_TOKEN`, else of the file at `HF_TOKEN_PATH`, else of `$HF_HOME/token`, which is
    /// `~/.cache/huggingface/token` unless the environment says otherwise. `None` where there is none.
    pub fn find() -> Option<Self> {
        let text = |name| env::var(name).ok().filter(|value| !value.trim().is_empty());
        let path = |name| text(name).map(PathBuf::from);
        Self::find_in(&Places {
            token: text("HF_TOKEN"),
            token_path: path("HF_TOKEN_PATH"),
            hf_home: path("HF_HOME"),
            cache_home: path("XDG_CACHE_HOME"),
            home: path("HOME"),
        })
    }

    fn find_in(places: &Places) -> Option<Self> {
        if let Some(token) = &places.token {
            return Self::new(token);
        }
        let cache = places.cache_home.clone().or_else(|| Some(places.home.as_ref()?.join(".cache")));
        let home = places.hf_home.clone().or_else(|| Some(cache?.join("huggingface")));
        let path = places.token_path.clone().or_else(|| Some(home?.join("token")));
        Self::read(&path?)
    }

    fn read(path: &Path) -> Option<Self> {
        let mut text = Zeroizing::new(String::new());
        fs::File::open(path).ok()?.take(TOKEN_MAX).read_to_string(&mut text).ok()?;
        Self::new(&text)
    }

    /// A token with blanks around it taken off; `None` if nothing is left.
    pub fn new(text: &str) -> Option<Self> {
        let text = text.trim();
        (!text.is_empty()).then(|| Self(Zeroizing::new(text.to_owned())))
    }

    pub(super) fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_token_is_found_where_the_tools_of_the_hub_keep_it() {
        let dir = tempfile::tempdir().unwrap();
        let cache = dir.path().join(".cache/huggingface");
        fs::create_dir_all(&cache).unwrap();
        fs::write(cache.join("token"), "hf_home\n").unwrap();
        fs::write(dir.path().join("mine"), "hf_mine").unwrap();
        let found = |places: Places| Token::find_in(&places).map(|token| token.expose().to_owned());
        let home = || Some(dir.path().to_owned());
        assert_eq!(found(Places { home: home(), ..Places::default() }).as_deref(), Some("hf_home"));
        let own = Places { token_path: Some(dir.path().join("mine")), home: home(), ..Places::default() };
        assert_eq!(found(own).as_deref(), Some("hf_mine"));
        let given = Places { token: Some(" hf_env ".into()), home: home(), ..Places::default() };
        assert_eq!(found(given).as_deref(), Some("hf_env"));
        assert_eq!(found(Places { hf_home: home(), ..Places::default() }), None);
    }

    #[test]
    fn a_token_is_not_shown() {
        assert!(!format!("{:?}", Token::new("hf_secret").unwrap()).contains("secret"));
    }
}

//! Bytecode that was compiled before, remembered in the store by wheel and interpreter: a wheel that comes to others costs
//! its own compiling alone, and a build that was interrupted goes on.

use super::{InstallError, Scheme, bytecode::Bytecode};
use crate::{
    source::debian::spool::Spool,
    store::{KeyBuilder, Store, StoreError},
};
use gap_format::Digest;

/// Raised when something else comes of the same sources.
const FORMAT: u64 = 1;
/// What it is called in the store.
const NAME: &str = "bytecode";
/// Longest bytecode of one wheel that is remembered, in bytes.
const MAX_LEN: u64 = 512 << 20;
/// Length of a digest.
const DIGEST: usize = 32;

/// Where bytecode of one interpreter is remembered.
#[derive(Clone, Copy)]
pub struct Memory<'a> {
    /// Keeps it.
    pub store: &'a Store,
    /// What the interpreter is made of.
    pub interpreter: Digest,
}

impl Memory<'_> {
    /// The bytecode of the wheel with this digest, which has so many sources, if it was compiled before. It goes through
    /// `spool`, so that it lies in no memory.
    pub(super) fn recall(&self, wheel: &Digest, scheme: &Scheme, sources: usize, spool: &Spool) -> Option<Bytecode> {
        let bytes = self.store.recall(NAME, &self.key(wheel, scheme), MAX_LEN)?;
        // A crash of the machine may have left anything.
        let (digest, mut body) = bytes.split_at_checked(DIGEST)?;
        if Digest::of(body).as_bytes().as_slice() != digest {
            return None;
        }
        let len = body.len() as u64;
        let held = spool.store(&mut body, len, &mut Vec::new()).ok()?;
        Bytecode::read(&held, sources)
    }

    /// Remembers what a wheel was compiled to.
    ///
    /// # Errors
    /// What the store said.
    pub(super) fn remember(&self, wheel: &Digest, scheme: &Scheme, bytecode: &Bytecode) -> Result<(), InstallError> {
        let failed = |source| StoreError::io("reading bytecode in", self.store.session_dir())(source);
        let mut body = Vec::new();
        bytecode.write(&mut body).map_err(failed)?;
        if body.len() as u64 + DIGEST as u64 > MAX_LEN {
            return Ok(());
        }
        let bytes = [Digest::of(&body).as_bytes().as_slice(), &body].concat();
        Ok(self.store.remember(NAME, &self.key(wheel, scheme), &bytes)?)
    }

    fn key(&self, wheel: &Digest, scheme: &Scheme) -> Digest {
        let mut key = KeyBuilder::new(NAME, FORMAT);
        key.digest("interpreter", &self.interpreter).digest("wheel", wheel).list("site", [scheme.site.as_bytes()]);
        key.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::{super::bytecode::tests::sample, *};

    #[test]
    fn what_was_compiled_is_found_again_for_the_same_wheel_interpreter_and_place_and_only_whole() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let spool = Spool::new_in(dir.path()).unwrap();
        let scheme = |at: Option<&str>| {
            let at = at.map(|at| crate::layer::tree::TreePath::new(at).unwrap());
            Scheme::new("3.13.5".parse().unwrap(), at.as_ref()).unwrap()
        };
        let [wheel, other] = [b"a", b"b"].map(|name| Digest::of(name));
        let memory = Memory { store: &store, interpreter: Digest::of(b"python") };
        memory.remember(&wheel, &scheme(None), &sample()).unwrap();
        let recalled = memory.recall(&wheel, &scheme(None), 3, &spool).unwrap();
        let bytes = |number| recalled.of(number).map(|content| content.read().unwrap());
        assert_eq!([bytes(0), bytes(1), bytes(2)], [Some(b"one".to_vec()), None, Some(b"three".to_vec())]);
        let is_known = |memory: &Memory<'_>, wheel, scheme: &Scheme, sources| {
            memory.recall(wheel, scheme, sources, &spool).is_some()
        };
        assert!(!is_known(&memory, &other, &scheme(None), 3));
        assert!(!is_known(&memory, &wheel, &scheme(Some("opt/train")), 3));
        assert!(!is_known(&memory, &wheel, &scheme(None), 4), "it is of other sources");
        let newer = Memory { interpreter: Digest::of(b"newer"), ..memory };
        assert!(!is_known(&newer, &wheel, &scheme(None), 3));
        let key = memory.key(&wheel, &scheme(None));
        let mut damaged = store.recall(NAME, &key, MAX_LEN).unwrap();
        *damaged.last_mut().unwrap() ^= 1;
        store.remember(NAME, &key, &damaged).unwrap();
        assert!(!is_known(&memory, &wheel, &scheme(None), 3));
    }
}

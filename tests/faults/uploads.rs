//! Files on their way to an appliance that goes away and comes back.

use crate::{client::Api, machine::bulk};
use gapctl::{
    client::ClientError,
    upload::{UploadError, Uploaded},
};
use indicatif::ProgressBar;
use std::{
    fs,
    path::PathBuf,
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

/// Length of a file, in MiB: more than a part.
const LENGTH: u32 = 18;
/// How many files stay on the appliance.
const STAY: usize = 3;
/// Pause before something is tried again.
const PAUSE: Duration = Duration::from_secs(1);

/// One file after another, each brought whole whatever becomes of the appliance meanwhile.
pub struct Uploads {
    client: Api,
    directory: PathBuf,
    /// What is on the appliance, whole, and stays. Locked while one of them is deleted.
    there: Mutex<Vec<Uploaded>>,
    number: AtomicU64,
    bar: ProgressBar,
    is_enough: AtomicBool,
    is_given_up: AtomicBool,
}

/// No file is begun once this is gone, and none is brought to its end when that was a panic.
pub struct Until<'a>(pub &'a Uploads);

impl Drop for Until<'_> {
    fn drop(&mut self) {
        self.0.is_enough.store(true, Ordering::Relaxed);
        self.0.is_given_up.store(thread::panicking(), Ordering::Relaxed);
    }
}

impl Uploads {
    /// Files that are made in this directory.
    pub fn new(client: Api, directory: PathBuf) -> Self {
        fs::create_dir_all(&directory).unwrap();
        let (there, number, bar) = (Mutex::default(), AtomicU64::new(0), ProgressBar::hidden());
        Self { client, directory, there, number, bar, is_enough: false.into(), is_given_up: false.into() }
    }

    /// Number of the file that is on its way, and how many bytes of it are there.
    pub fn sent(&self) -> (u64, u64) {
        (self.number.load(Ordering::Relaxed), self.bar.position())
    }

    /// Names of the files that have to be on the appliance now, each of which is there as it was sent.
    #[track_caller]
    pub fn are_whole(&self) -> Vec<String> {
        let there = self.there.lock().unwrap();
        there.iter().for_each(|file| self.client.has(file));
        there.iter().map(|file| file.id.clone()).collect()
    }

    /// Brings files until somebody has enough.
    pub fn bring(&self) {
        while !self.is_enough.load(Ordering::Relaxed) {
            let number = self.number.fetch_add(1, Ordering::Relaxed) + 1;
            let path = self.directory.join(number.to_string());
            bulk(&path, LENGTH, u32::try_from(number).unwrap());
            let bring = || match self.client.bring_shown(&path, "user_data", &self.bar) {
                Err(UploadError::Client(error)) => Err(error),
                other => Ok(other.unwrap()),
            };
            let Some(brought) = self.through_everything(bring) else { return };
            fs::remove_file(&path).unwrap();
            let mut there = self.there.lock().unwrap();
            there.push(brought);
            if there.len() > STAY {
                let old = format!("/v1/files/{}", there.remove(0).id);
                self.through_everything(|| match self.client.delete(&old) {
                    // The answer to an earlier try was lost.
                    Err(ClientError::Refused { status: 404, .. }) => Ok(()),
                    other => other.map(drop),
                });
            }
        }
    }

    /// Tries again whenever the appliance went away.
    fn through_everything<T>(&self, mut attempt: impl FnMut() -> Result<T, ClientError>) -> Option<T> {
        loop {
            match attempt() {
                Ok(done) => return Some(done),
                Err(error) => assert!(error.is_passing(), "{error}"),
            }
            if self.is_given_up.load(Ordering::Relaxed) {
                return None;
            }
            thread::sleep(PAUSE);
        }
    }
}

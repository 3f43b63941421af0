//! The appliance's work: files that are brought, jobs that are run, models that come of them.

pub mod catalog;
pub mod checking;
pub mod devices;
pub mod files;
mod history;
pub mod images;
pub mod left;
pub mod need;
mod news;
pub mod opening;
pub mod order;
pub mod promotion;
pub mod relay;
pub mod runtime;
pub mod serving;
pub mod site;
mod sockets;
pub mod stirred;
pub mod storage;
pub mod submit;
pub mod terminals;
pub mod uploads;
pub mod volume;

use crate::gpus;
use catalog::Catalog;
use files::{Files, FilesError};
use gap_jobs::{
    Database, DatabaseError, Dispatcher, JobId, Machine, Patience, Queue, Runtime,
    dispatcher::{Complain, StartError},
};
use promotion::{Promotions, PromotionsError};
use serving::Serving;
use site::SiteRules;
use std::{
    io,
    sync::{Arc, Mutex},
};
use stirred::Stirred;
use storage::Storage;
use terminals::Terminals;
use tokio::sync::Semaphore;
use uploads::{UploadError, Uploads};

/// Most who move many bytes of files at once.
const MAX_BULK: usize = 4;

/// Everything about jobs, once there is a data volume.
pub struct Work {
    /// Where everything lies.
    pub storage: Storage,
    /// What the release brings.
    pub catalog: Catalog,
    /// Uploaded files.
    pub files: Files,
    /// Files that arrive in parts.
    pub uploads: Uploads,
    /// Stable names of models.
    pub promotions: Promotions,
    /// Runs what is in the queue.
    pub dispatcher: Dispatcher,
    /// What there is to share out among jobs.
    pub machine: Machine,
    /// Servers that run.
    pub serving: Arc<Serving>,
    /// What the site decides about jobs.
    pub site: Arc<SiteRules>,
    /// Terminals that wait for somebody.
    pub terminals: Arc<Terminals>,
    /// Told when jobs print a line or end.
    pub stirred: Arc<Stirred>,
    /// Held while a file is checked.
    pub checking: Semaphore,
    /// Held by each who moves many bytes of files: threads are left for what is quick.
    pub bulk: Arc<Semaphore>,
    /// Held by who looks at what is needed, or needs something from now on.
    needs: Mutex<()>,
}

/// What the runtime of jobs holds too.
#[derive(Clone)]
pub struct Shared {
    /// Servers that run.
    pub serving: Arc<Serving>,
    /// What the site decides about jobs.
    pub site: Arc<SiteRules>,
    /// Terminals that wait for somebody.
    pub terminals: Arc<Terminals>,
    /// Told when jobs print a line or end.
    pub stirred: Arc<Stirred>,
    /// GPUs, which may fail.
    pub gpus: Arc<gpus::Board>,
}

/// Why there is no work.
#[derive(Debug, thiserror::Error)]
pub enum WorkError {
    /// The database.
    #[error(transparent)]
    Database(#[from] DatabaseError),
    /// The files.
    #[error(transparent)]
    Files(#[from] FilesError),
    /// Uploads.
    #[error(transparent)]
    Uploads(#[from] UploadError),
    /// The promotions.
    #[error(transparent)]
    Promotions(#[from] PromotionsError),
    /// The dispatcher.
    #[error(transparent)]
    Start(#[from] StartError),
    /// The data volume.
    #[error("the data volume: {0}")]
    Io(#[from] io::Error),
}

impl Work {
    /// Puts the queue back in order and begins to run jobs.
    ///
    /// # Errors
    /// [`WorkError`].
    pub fn start(
        database: &Database,
        storage: Storage,
        catalog: Catalog,
        machine: Machine,
        runtime: Arc<dyn Runtime>,
        shared: Shared,
        complain: Box<Complain>,
    ) -> Result<Self, WorkError> {
        let Shared { serving, site, terminals, stirred, .. } = shared;
        let files = Files::open(database.clone(), storage.clone())?;
        let uploads = Uploads::open(database.clone(), storage.clone())?;
        let promotions = Promotions::open(database.clone())?;
        let queue = Queue::new(database.clone());
        let dispatcher = Dispatcher::start(queue, runtime, machine.clone(), Patience::default(), complain)?;
        let (checking, bulk) = (Semaphore::new(1), Arc::new(Semaphore::new(MAX_BULK)));
        Ok(Self {
            storage,
            catalog,
            files,
            uploads,
            promotions,
            dispatcher,
            machine,
            serving,
            site,
            terminals,
            stirred,
            checking,
            bulk,
            needs: Mutex::default(),
        })
    }

    /// Deletes what jobs that are over kept between their runs, and what was to be deleted: a power cut may have come before.
    ///
    /// # Errors
    /// What the system said of the list.
    pub fn sweep(&self) -> io::Result<()> {
        self.storage.empty_trash()?;
        for name in self.storage.cached_jobs()? {
            let Ok(id) = JobId::try_from(name) else { continue };
            if self.queue().job(&id).is_ok_and(|job| job.state.is_final()) {
                self.storage.delete_cache(id.as_str())?;
            }
        }
        Ok(())
    }

    /// The queue.
    pub const fn queue(&self) -> &Queue {
        self.dispatcher.queue()
    }
}

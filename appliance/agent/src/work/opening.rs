//! Opening the work: data volume, database, audit log, tokens, then the dispatcher. Beside the start of the API, which
//! does not wait for it.

use super::{
    Shared, Work,
    catalog::Catalog,
    files::damage,
    images::MediumImages,
    runtime::Containers,
    serving::Serving,
    site::SiteRules,
    storage::{Storage, Volume},
    terminals::Terminals,
    volume,
};
use crate::{
    access::{Access, audit::Audit},
    certificate::Identity,
    clock, console, gpus, machine,
    modules::Modules,
    recheck::Verified,
    root::Root,
};
use gap_handover::site::{Data, EndpointName, SiteAddress};
use gap_jobs::{
    Database, Machine,
    database::salvage::{self, Salvaged},
    dispatcher::now,
    placement::Slot,
};
use std::{collections::BTreeMap, path::Path, sync::Arc, time::Duration};

/// How often servers are asked how they are.
const PROBE: Duration = Duration::from_secs(2);
/// How often it is looked whether there is too much of what ended jobs printed and told.
const FORGET: Duration = Duration::from_secs(3600);
/// Memory that is left to the agent, the kernel and its caches: this share of all, in per cent.
const KEPT_PERCENT: u64 = 25;
/// Most jobs that run at once.
const MAX_JOBS: usize = 64;
/// The module of the data volume's file system.
const MODULES: [&str; 1] = ["ext4"];

/// All that it takes.
pub struct Opening {
    /// The directory that stands for `/`.
    pub root: Root,
    /// What the site says of the data volume.
    pub data: Data,
    /// The device that the release lies on.
    pub medium: String,
    /// The release.
    pub verified: Arc<Verified>,
    /// Tokens, to which those of the database are added.
    pub access: Arc<Access>,
    /// The audit log, which gets its file.
    pub audit: Arc<Audit>,
    /// The API's certificate, which the data volume keeps from one boot to the next.
    pub identity: Arc<Identity>,
    /// The clock, for which jobs may have to wait.
    pub clock: Arc<clock::Board>,
    /// Services of the site that jobs may be let to reach.
    pub endpoints: BTreeMap<EndpointName, SiteAddress>,
    /// GPUs, which may fail.
    pub gpus: Arc<gpus::Board>,
    /// GPUs for jobs; waits until they are provisioned.
    pub slots: Box<dyn FnOnce() -> Vec<Slot> + Send>,
}

impl Opening {
    /// Opens everything. Takes its time: a disk may have to be formatted.
    ///
    /// # Errors
    /// A sentence that says why no jobs are taken.
    pub fn open(self) -> Result<Arc<Work>, String> {
        let images = MediumImages::new(self.verified, self.root.at("/"));
        let declared = images.declared()?;
        let load = || load_modules(&self.root);
        let say = |what| console::say(format_args!("data volume: {what}"));
        let volume = volume::open(&self.root, &self.data, &self.medium, load, say);
        tell(&volume);
        let place = self.root.at(volume::PLACE);
        let storage = Storage::open(&place, volume).map_err(|error| format!("the data volume: {error}"))?;
        if let Volume::Disk { .. } = storage.volume() {
            settle(&self.identity, storage.root());
        }
        self.audit.attach(&storage.audit()).or_else(|error| {
            console::say(format_args!("{error}; it is set aside, and another one begins"));
            self.audit.attach(&storage.audit()).map_err(|error| error.to_string())
        })?;
        let database = open_database(&storage)?;
        let code = self.access.attach(database.clone(), now()).map_err(|error| error.to_string())?;
        tell_code(code.as_deref());
        let catalog = Catalog { declared, images: Arc::new(images) };
        let serving = Arc::new(Serving::default());
        let terminals = Arc::<Terminals>::default();
        let site = Arc::new(SiteRules::new(self.clock, self.endpoints, self.audit));
        let shared = Shared { serving, site, terminals, stirred: Arc::default(), gpus: self.gpus };
        let runtime = Arc::new(Containers::new(storage.clone(), catalog.clone(), shared.clone()));
        let complain = Box::new(|complaint| console::say(format_args!("jobs: {complaint}")));
        let capacity = capacity(&self.root, &storage, (self.slots)());
        let work = Work::start(&database, storage, catalog, capacity, runtime, shared, complain);
        work.map(Arc::new).map_err(|error| error.to_string())
    }
}

/// Goes on with the certificate of the last boot. Until now clients saw another one, for a moment.
fn settle(identity: &Identity, volume: &Path) {
    match identity.settle(volume) {
        Ok(true) => {
            let sha256 = identity.fingerprint().to_hex();
            console::say(format_args!("certificate of the key on the data volume, SHA-256 {sha256}"));
        }
        Ok(false) => {}
        Err(error) => console::say(error),
    }
    identity.keep().unwrap_or_else(console::say);
}

/// Opens the database. One that is damaged is set aside, and what can be read of it goes into another, which the console
/// tells, at each start until every file was compared with it.
fn open_database(storage: &Storage) -> Result<Database, String> {
    let (database, salvaged) = salvage::open(&storage.database(), now()).map_err(|error| error.to_string())?;
    if let Some(Salvaged { aside, reason, rows, held }) = salvaged {
        let aside = aside.file_name().unwrap_or_default().display();
        console::say(format_args!(
            "THE JOB DATABASE IS DAMAGED ({reason}): it is kept as {aside}, and {rows} rows of it were taken over; {held} jobs \
             wait until somebody resumes them, and all tokens that were made here are void"
        ));
        damage::settle(database.clone(), storage.clone()).map_err(|error| error.to_string())?;
        salvage::settled(&database).map_err(|error| error.to_string())?;
    }
    Ok(database)
}

/// What there is for jobs.
fn capacity(root: &Root, storage: &Storage, slots: Vec<Slot>) -> Machine {
    let volume = match storage.volume() {
        Volume::Memory { .. } => storage.space().map_or(0, |(_, total)| total),
        Volume::Disk { .. } => 0,
    };
    Machine { slots, memory: memory_for_jobs(machine::memory(root).total, volume), jobs: MAX_JOBS }
}

/// Memory for jobs where there is so much in all, and a data volume may take so much of it.
const fn memory_for_jobs(total: u64, volume: u64) -> u64 {
    let left = total.saturating_sub(volume);
    left.saturating_sub(left / 100 * KEPT_PERCENT)
}

fn load_modules(root: &Root) {
    match Modules::read(root, &machine::kernel().release) {
        Ok(modules) => {
            for name in MODULES {
                modules
                    .load_named(root, name)
                    .unwrap_or_else(|error| console::say(format_args!("module {name}: {error}")));
            }
        }
        Err(error) => console::say(error),
    }
}

fn tell(volume: &Volume) {
    match volume {
        Volume::Disk { device } => console::say(format_args!("data volume: the disk {device}")),
        Volume::Memory { reason } => {
            console::say(format_args!("NO DATA DISK: files, jobs and tokens are FORGOTTEN AT POWER-OFF ({reason})"));
        }
    }
}

/// Lets tokens be kept in memory where no data volume could be opened, so that somebody can look at what is wrong and
/// switch the machine off. The code is a new one at each start of the agent.
///
/// # Errors
/// A sentence that says why there can be no token but the site's.
pub fn without_volume(access: &Access) -> Result<(), String> {
    if access.is_attached() {
        return Ok(());
    }
    let database = Database::in_memory().map_err(|error| error.to_string())?;
    let code = access.attach(database, now()).map_err(|error| error.to_string())?;
    tell_code(code.as_deref());
    Ok(())
}

fn tell_code(code: Option<&str>) {
    if let Some(code) = code {
        console::say(format_args!("NOT CLAIMED: who becomes the first admin (gapctl claim) needs the code {code}"));
    }
}

/// Forgets what is too much of what ended jobs printed and told, for ever.
pub async fn forget_history(work: Arc<Work>) {
    loop {
        let here = Arc::clone(&work);
        if let Ok(Err(error)) = tokio::task::spawn_blocking(move || here.forget_history()).await {
            console::say(error);
        }
        tokio::time::sleep(FORGET).await;
    }
}

/// Asks servers how they are, for ever, and has those started again that fell silent.
pub async fn watch_servers(work: Arc<Work>) {
    loop {
        for job in work.serving.probe().await {
            console::say(format_args!("the server {job} does not answer and is started again"));
            work.dispatcher.kill(&job);
        }
        tokio::time::sleep(PROBE).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_volume_in_memory_may_take_is_not_given_to_jobs() {
        assert_eq!(memory_for_jobs(1000, 0), 750);
        assert_eq!(memory_for_jobs(1000, 600), 300);
        assert_eq!(memory_for_jobs(1000, 2000), 0);
    }
}

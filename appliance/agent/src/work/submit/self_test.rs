//! `POST /v1/appliance/selftest`: memory and disk, tested by the agent's own program in a job.

use super::{SubmitError, Wishes};
use crate::{
    self_test::SELF_TEST,
    work::{
        Work,
        order::{Asked, Order, inside},
    },
};
use gap_jobs::{Demand, Job, Kind};
use schemars::JsonSchema;
use serde::Deserialize;
use std::collections::BTreeMap;

/// The agent in the OS image.
const AGENT: &str = "/usr/bin/gapd";
/// Memory that the program itself needs, in bytes.
const OWN: u64 = 64 << 20;
/// What is written to the disk where the request does not say, in bytes.
const DISK: u64 = 1 << 30;
/// Longest that it may take, in seconds.
const LIMIT: u64 = 6 * 3600;

/// How much is to be tested.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateSelfTest {
    /// Bytes of memory; all that jobs may have when absent, so that it waits until no other runs.
    #[serde(default)]
    pub memory: Option<u64>,
    /// Bytes that are written to the data volume and read back; 1 GiB when absent.
    #[serde(default)]
    pub disk: Option<u64>,
}

impl Work {
    /// Takes a self-test in.
    ///
    /// # Errors
    /// [`SubmitError`] when it asks for more than there is.
    pub fn self_test(&self, request: &CreateSelfTest) -> Result<Job, SubmitError> {
        // In a data volume of memory both come from the same.
        let disk = request.disk.unwrap_or(DISK);
        let memory = request.memory.unwrap_or_else(|| self.machine.memory.saturating_sub(OWN));
        let words = [AGENT, SELF_TEST, &memory.to_string(), &disk.to_string(), inside::OUTPUT];
        let order = Order {
            declared: String::new(),
            command: words.map(str::to_owned).to_vec(),
            image: self.catalog.images.own()?,
            env: BTreeMap::new(),
            datasets: Vec::new(),
            endpoints: BTreeMap::new(),
            training: None,
            validation: None,
            job: None,
            asked: Asked::default(),
            model: None,
            has_terminal: false,
        };
        self.complete(&order)?;
        let demand = self.possible(Demand { gpus: 0, gpu_memory: 0, memory: memory.saturating_add(OWN) })?;
        let wishes = Wishes { attempts: Some(1), time_limit_seconds: Some(LIMIT), ..Wishes::default() };
        self.enqueue(Kind::Run, SELF_TEST, &order, demand, &wishes)
    }
}

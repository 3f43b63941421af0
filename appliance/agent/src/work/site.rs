//! What the site configuration decides about jobs.

use crate::{access::audit::Audit, clock};
use gap_handover::site::{EndpointName, SiteAddress};
use std::{collections::BTreeMap, sync::Arc};
use tokio::sync::Semaphore;

/// Most connections of all jobs to endpoints at a time.
const MAX_CONNECTIONS: usize = 1024;

/// What the site configuration decides about jobs, and where it is written down what is done with that.
#[derive(Debug)]
pub struct SiteRules {
    /// The clock, for which jobs may have to wait, or because of which none may be taken.
    pub clock: Arc<clock::Board>,
    /// Services that jobs may be let to reach.
    pub endpoints: BTreeMap<EndpointName, SiteAddress>,
    /// The audit log.
    pub audit: Arc<Audit>,
    /// One for each connection of a job to an endpoint.
    pub connections: Arc<Semaphore>,
}

impl SiteRules {
    /// What the site says of the clock and of endpoints.
    pub fn new(clock: Arc<clock::Board>, endpoints: BTreeMap<EndpointName, SiteAddress>, audit: Arc<Audit>) -> Self {
        Self { clock, endpoints, audit, connections: Arc::new(Semaphore::new(MAX_CONNECTIONS)) }
    }
}

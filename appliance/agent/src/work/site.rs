//! What the site configuration decides about jobs.

use crate::{access::audit::Audit, clock};
use gap_handover::site::{EndpointName, SiteAddress};
use std::{collections::BTreeMap, sync::Arc};

/// What the site configuration decides about jobs, and where it is written down what is done with that.
#[derive(Debug)]
pub struct SiteRules {
    /// The clock, for which jobs may have to wait, or because of which none may be taken.
    pub clock: Arc<clock::Board>,
    /// Services that jobs may be let to reach.
    pub endpoints: BTreeMap<EndpointName, SiteAddress>,
    /// The audit log.
    pub audit: Arc<Audit>,
}

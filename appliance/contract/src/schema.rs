//! JSON Schemas of the contract's files.

use crate::{Event, JobSpec, Lineage, Metrics};
use schemars::{Schema, schema_for};

/// The schema of each file by its name in `schema/`.
#[must_use]
pub fn schemas() -> [(&'static str, Schema); 4] {
    [
        ("job.schema.json", schema_for!(JobSpec)),
        ("metrics.schema.json", schema_for!(Metrics)),
        ("event.schema.json", schema_for!(Event)),
        ("lineage.schema.json", schema_for!(Lineage)),
    ]
}

//! Jobs of the appliance: the queue that survives a power cut, and where each job runs.
//!
//! [`state`] is the life of a job as a pure function, [`placement`] decides what may start where, also purely.
//! [`Queue`] keeps all jobs in one SQLite database in which every change of state is one transaction; [`Dispatcher`]
//! takes jobs from it, runs them by a [`Runtime`] and writes back how they ended.

#![deny(unsafe_code)]

pub mod container;
pub mod database;
pub mod dispatcher;
pub mod identifier;
pub mod job;
pub mod log;
pub mod placement;
pub mod queue;
pub mod runtime;
pub mod state;

pub use database::{Database, DatabaseError};
pub use dispatcher::{Dispatcher, Patience};
pub use identifier::JobId;
pub use job::{Job, JobEvent, Kind, Level, NewJob, Retry};
pub use placement::{Demand, Machine, Placement, Slot};
pub use queue::{Queue, QueueError};
pub use runtime::{CannotStart, Control, End, News, Runtime, Started};
pub use state::{Ending, State};

//! The job contract: what a job is told and what it leaves behind.

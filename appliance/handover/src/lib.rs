//! What crosses between the parts of the appliance: the site configuration that its owner gives it,
//! and the report that `gap-init` leaves for the agent.

#![forbid(unsafe_code)]

pub mod boot_report;
pub mod control;
pub mod site;

pub use boot_report::BootReport;
pub use site::SiteConfig;

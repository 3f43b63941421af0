//! What crosses between the parts of the appliance: the site configuration that its owner gives it,
//! the report that `gap-init` leaves for the agent, and the jobs that a release declares.

#![forbid(unsafe_code)]

pub mod boot_report;
pub mod control;
pub mod declared;
pub mod site;

pub use boot_report::BootReport;
pub use declared::Declared;
pub use site::SiteConfig;

//! The client of the fault tests, which share no code with the appliance or `gapctl`: what is asked is what stands here.

mod form;
mod request;
mod upload;
mod wait;

pub use request::{Client, ClientError};
pub use upload::UploadError;

//! Who may do what: tokens with roles, and the record of what was done with them.

pub mod audit;
mod expiry;
mod role;
mod tokens;

pub use role::Role;
pub use tokens::{Access, Caller, ClaimError, NewToken, TokenRow, TokensError};

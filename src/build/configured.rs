//! x
use super::{Problem, Request};
use crate::{
    layer::tree::Tree,
    source::debian::{LockedPackage, deb::Deb},
};
pub fn build(_: &Request<'_>, _: &Tree, _: &[LockedPackage], _: Vec<Deb>) -> Result<Tree, Problem> {
    Err("x".into())
}

//! What a recipe says of a layer that a program makes.

use crate::layer::tree::TreePath;
use std::{collections::BTreeMap, time::Duration};

/// What a program leaves in one directory when it runs on named layers, without a network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunLayer {
    /// The layers that make the tree in which it runs, bottom to top; models and data sets as `model/NAME` and
    /// `dataset/NAME`.
    pub on: Vec<String>,
    /// The program and its arguments.
    pub command: Vec<String>,
    /// Variables besides those that every program gets.
    pub env: BTreeMap<String, String>,
    /// The directory whose contents become the layer; it is empty when the program starts.
    pub output: TreePath,
    /// Where they lie in the layer.
    pub to: TreePath,
    /// How long the program may take.
    pub time_limit: Duration,
    /// Whether the program runs twice, and the build fails if it does not leave the same bytes.
    pub twice: bool,
}

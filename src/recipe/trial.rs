//! What a recipe says of tests of its images.

use std::{collections::BTreeMap, time::Duration};

/// `[[test]]`: something that must work in an image, without a network, before anything crosses the gap.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Test {
    /// Its name, unlike those of all other tests.
    pub name: String,
    /// The image that it runs in.
    pub image: String,
    /// Layers of models and data sets that the image finds besides its own.
    pub with: Vec<String>,
    /// Python modules that must be importable.
    pub imports: Vec<String>,
    /// The program and its arguments; nothing but the imports is tried when empty.
    pub command: Vec<String>,
    /// Variables besides those of the image.
    pub env: BTreeMap<String, String>,
    /// Texts that the program must print.
    pub expect: Vec<String>,
    /// How long it may take.
    pub time_limit: Duration,
}

//! What the owner of an appliance allows in it and demands of it.

use std::collections::BTreeMap;

/// `[licenses]`: which licences may cross.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LicensePolicy {
    /// SPDX identifiers, those with `WITH` and an exception, and `LicenseRef-…`.
    pub allow: Vec<String>,
    /// Further ones, for one model, data set or package by its name.
    pub exceptions: BTreeMap<String, Vec<String>>,
    /// The SPDX expression of a model, data set or package whose own words say nothing, by its name.
    pub clarify: BTreeMap<String, String>,
}

/// `[secrets]`: what looks like a secret and is none.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SecretPolicy {
    /// Absolute paths in images; with `/` at the end, all below.
    pub allow: Vec<String>,
}

/// `[acceptance]`: by what the outcome is judged.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Acceptance {
    /// Data set that nothing is trained on, by its name in the recipe.
    pub test_set: Option<String>,
    /// What is measured.
    pub metrics: Vec<String>,
    /// What it is compared with.
    pub baselines: Vec<String>,
    /// What must hold.
    pub criteria: Vec<Criterion>,
}

/// A condition on a metric, such as `accuracy >= 0.9`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Criterion {
    /// The metric.
    pub metric: String,
    /// How it is compared: one of `<`, `<=`, `>`, `>=`.
    pub comparison: &'static str,
    /// With what, as it was written.
    pub bound: String,
}

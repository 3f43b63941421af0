//! Whether the tensors are those that the configuration asks for.

use super::{Inspector, Tensors};
use crate::model::{
    Config, Family,
    family::Expected,
    safetensors::{Dtype, Tensor},
};
use std::collections::BTreeMap;

/// More layers than any model has.
const LAYERS_MAX: u64 = 4096;
/// How many mistakes of one kind are told.
const TOLD: usize = 4;

impl Inspector<'_> {
    /// Compares names and shapes with what the family needs.
    pub(super) fn shapes(&mut self, config: &Config, tensors: &Tensors) {
        if !self.description.is_complete || tensors.is_empty() {
            return;
        }
        let Some(family) = Family::of(config) else {
            let kind = config.model_type().or_else(|| config.architecture()).unwrap_or("nothing that is named");
            let what = format!("the shapes of a model of type `{}` are not known", kind.escape_debug());
            self.warn(Some("config.json"), what, "only the headers were checked: try the model with a `[[test]]`");
            return;
        };
        // Models one directory down are parts of something else.
        let top = tensors.iter().filter(|(path, _)| !path.contains('/'));
        let stored: BTreeMap<&str, (&str, &Tensor)> = top
            .flat_map(|(path, header)| header.tensors.iter().map(move |(name, tensor)| (name, path, tensor)))
            .map(|(name, path, tensor)| (plain(name, family), (path.as_str(), tensor)))
            .collect();
        if stored.is_empty() {
            return;
        }
        self.expected(&family.expected(config, LAYERS_MAX), &stored);
        self.layers(config, family, &stored);
        self.types(&stored);
    }

    fn expected(&mut self, expected: &[Expected], stored: &BTreeMap<&str, (&str, &Tensor)>) {
        let (mut missing, mut wrong) = (Vec::new(), Vec::new());
        for expected in expected {
            match find(stored, &expected.name) {
                None if expected.required => missing.push(expected.name.as_str()),
                None => {}
                Some((path, tensor)) if !fits(expected, tensor) => {
                    let asked: Vec<String> = expected
                        .shape
                        .iter()
                        .map(|side| side.map_or_else(|| "?".to_owned(), |n| n.to_string()))
                        .collect();
                    let what = format!(
                        "`{}` has the shape {:?}, but config.json asks for [{}]",
                        expected.name,
                        tensor.shape,
                        asked.join(", ")
                    );
                    wrong.push((path, what));
                }
                Some(_) => {}
            }
        }
        let remedy = "configuration and weights are not of one model: take both again from one revision";
        let more = wrong.len().saturating_sub(TOLD);
        for (path, what) in wrong.into_iter().take(TOLD) {
            self.fail(Some(path), what, remedy);
        }
        if more > 0 {
            self.fail(None, format!("{more} more tensors have other shapes than config.json asks for"), remedy);
        }
        if !missing.is_empty() {
            let named: Vec<String> = missing.iter().take(TOLD).map(|name| format!("`{name}`")).collect();
            let what = format!("{} tensors are missing that config.json asks for: {}", missing.len(), named.join(", "));
            self.fail(None, what, "take all shards of one revision");
        }
    }

    /// Says where there are layers that the configuration does not know.
    fn layers(&mut self, config: &Config, family: Family, stored: &BTreeMap<&str, (&str, &Tensor)>) {
        let Some(layers) = config.layers() else { return };
        let number = |name: &str| name.strip_prefix(family.layers())?.split('.').next()?.parse::<u64>().ok();
        let highest = stored.iter().filter_map(|(name, (path, _))| Some((number(name)?, *path))).max();
        if let Some((highest, path)) = highest.filter(|(highest, _)| *highest >= layers) {
            let what = format!("it has a layer of number {highest}, but config.json knows {layers} layers, from 0");
            self.fail(Some(path), what, "configuration and weights are not of one model: take both again");
        }
    }

    /// Says where weights are integers although nothing says that they are quantized.
    fn types(&mut self, stored: &BTreeMap<&str, (&str, &Tensor)>) {
        let whole = |tensor: &Tensor| matches!(tensor.dtype, Dtype::I8 | Dtype::U8 | Dtype::I32 | Dtype::U32);
        let found = stored.iter().find(|(name, (_, tensor))| name.ends_with(".weight") && whole(tensor));
        if let Some((name, (path, tensor))) = found {
            let what = format!("`{name}` holds {:?}, but config.json says nothing of a quantization", tensor.dtype);
            self.fail(Some(path), what, "take the configuration that belongs to these weights");
        }
    }
}

/// A tensor's name without what the outermost class puts before it.
fn plain(name: &str, family: Family) -> &str {
    name.strip_prefix(family.prefix()).unwrap_or(name)
}

/// A tensor by its name, or by the one that TensorFlow's checkpoints had for it.
fn find<'s>(stored: &BTreeMap<&str, (&'s str, &'s Tensor)>, name: &str) -> Option<(&'s str, &'s Tensor)> {
    let old = || {
        let old = name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta");
        stored.get(old.as_str())
    };
    stored.get(name).or_else(old).copied()
}

fn fits(expected: &Expected, tensor: &Tensor) -> bool {
    let same = |(asked, found): (&Option<u64>, &u64)| asked.is_none_or(|asked| asked == *found);
    expected.shape.len() == tensor.shape.len() && expected.shape.iter().zip(&tensor.shape).all(same)
}

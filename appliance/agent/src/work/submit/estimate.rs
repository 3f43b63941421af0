//! How much memory a job takes, roughly, where the request does not say.

use gap_handover::declared::DeclaredKind;
use serde_json::{Map, Value};

/// What a program takes besides its model, in bytes.
pub const PROGRAM: u64 = 512 << 20;

/// What decides how much a job takes.
#[derive(Debug, Clone, Copy)]
pub struct Takes<'a> {
    /// What it does.
    pub kind: DeclaredKind,
    /// How it trains, where it does: what the recipe and the request say together.
    pub parameters: &'a Map<String, Value>,
    /// Bytes of its model, where it has one.
    pub weights: Option<u64>,
}

impl Takes<'_> {
    /// Memory of the machine.
    pub fn memory(self) -> u64 {
        let Some(weights) = self.weights else { return PROGRAM.saturating_mul(2) };
        let share = match self.kind {
            DeclaredKind::Train if self.says("lora") => 4,
            DeclaredKind::Train => 8,
            DeclaredKind::Serve | DeclaredKind::Run => 3,
        };
        weights.saturating_mul(share).saturating_add(PROGRAM)
    }

    /// Memory of each of so many GPUs: enough to choose among GPUs of different sizes. Training has all weights on each, a
    /// server shares them out.
    pub fn gpu_memory(self, gpus: u32) -> u64 {
        let (Some(weights), 1..) = (self.weights, gpus) else { return 0 };
        let (tenths, parts) = match self.kind {
            DeclaredKind::Train if self.says("quantization") => (10, 1),
            DeclaredKind::Train if self.says("lora") => (20, 1),
            DeclaredKind::Train => (80, 1),
            DeclaredKind::Serve | DeclaredKind::Run => (12, u64::from(gpus)),
        };
        weights.div_ceil(parts).saturating_mul(tenths).saturating_div(10).saturating_add(PROGRAM)
    }

    fn says(self, name: &str) -> bool {
        self.parameters.get(name).is_some_and(|value| !value.is_null())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const GIB: u64 = 1 << 30;

    fn takes(kind: DeclaredKind, parameters: &Value, weights: Option<u64>) -> Takes<'_> {
        Takes { kind, parameters: parameters.as_object().unwrap(), weights }
    }

    #[test]
    fn more_of_the_weights_is_more_memory_and_several_gpus_share_a_server() {
        let (full, adapter) = (json!({"lora": null}), json!({"lora": {"r": 8}}));
        let quantized = json!({"lora": {"r": 8}, "quantization": "nf4"});
        let train = |parameters| takes(DeclaredKind::Train, parameters, Some(10 * GIB)).gpu_memory(1) - PROGRAM;
        assert_eq!([train(&full), train(&adapter), train(&quantized)], [80 * GIB, 20 * GIB, 10 * GIB]);
        let serve = |gpus| takes(DeclaredKind::Serve, &full, Some(10 * GIB)).gpu_memory(gpus);
        assert_eq!([serve(0), serve(1) - PROGRAM, serve(4) - PROGRAM], [0, 12 * GIB, 3 * GIB]);
        assert_eq!(takes(DeclaredKind::Run, &full, None).gpu_memory(1), 0);
    }

    #[test]
    fn a_hostile_size_does_not_overflow() {
        let parameters = json!({});
        let job = takes(DeclaredKind::Train, &parameters, Some(u64::MAX));
        assert!(job.memory() == u64::MAX && job.gpu_memory(1) > u64::MAX / 16);
    }
}

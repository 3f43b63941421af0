//! How much memory a job takes, roughly, where the request does not say.

use gap_handover::declared::{DeclaredJob, DeclaredKind};

/// What a program takes besides its model, in bytes.
pub const PROGRAM: u64 = 512 << 20;

/// Memory of the machine that a job takes whose model has so many bytes.
pub fn memory(declared: &DeclaredJob, weights: Option<u64>) -> u64 {
    let Some(weights) = weights else { return PROGRAM.saturating_mul(2) };
    let share = match declared.kind {
        DeclaredKind::Train if declared.parameters.contains_key("lora") => 4,
        DeclaredKind::Train => 8,
        DeclaredKind::Serve | DeclaredKind::Run => 3,
    };
    weights.saturating_mul(share).saturating_add(PROGRAM)
}

/// Memory of each of so many GPUs that it takes: enough to choose among GPUs of different sizes. Training has all weights on
/// each, a server shares them out.
pub fn gpu_memory(declared: &DeclaredJob, weights: Option<u64>, gpus: u32) -> u64 {
    let (Some(weights), 1..) = (weights, gpus) else { return 0 };
    let is = |name: &str| declared.parameters.contains_key(name);
    let (tenths, parts) = match declared.kind {
        DeclaredKind::Train if is("quantization") => (10, 1),
        DeclaredKind::Train if is("lora") => (20, 1),
        DeclaredKind::Train => (80, 1),
        DeclaredKind::Serve | DeclaredKind::Run => (12, u64::from(gpus)),
    };
    weights.div_ceil(parts).saturating_mul(tenths).saturating_div(10).saturating_add(PROGRAM)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use std::collections::BTreeMap;

    const GIB: u64 = 1 << 30;

    fn job(kind: DeclaredKind, parameters: &serde_json::Value) -> DeclaredJob {
        DeclaredJob {
            name: "x".into(),
            kind,
            image: "x".into(),
            run: Vec::new(),
            engine: None,
            gpus: 1,
            model: None,
            datasets: Vec::new(),
            parameters: parameters.as_object().unwrap().clone(),
            length: None,
            concurrency: None,
            endpoints: BTreeMap::new(),
        }
    }

    #[test]
    fn more_of_the_weights_is_more_memory_and_several_gpus_share_a_server() {
        let (full, adapter) = (json!({}), json!({"lora": {"r": 8}}));
        let quantized = json!({"lora": {"r": 8}, "quantization": "nf4"});
        let train = |parameters| gpu_memory(&job(DeclaredKind::Train, parameters), Some(10 * GIB), 1) - PROGRAM;
        assert_eq!([train(&full), train(&adapter), train(&quantized)], [80 * GIB, 20 * GIB, 10 * GIB]);
        let serve = |gpus| gpu_memory(&job(DeclaredKind::Serve, &full), Some(10 * GIB), gpus);
        assert_eq!([serve(0), serve(1) - PROGRAM, serve(4) - PROGRAM], [0, 12 * GIB, 3 * GIB]);
        assert_eq!(gpu_memory(&job(DeclaredKind::Run, &full), None, 1), 0);
    }

    #[test]
    fn a_hostile_size_does_not_overflow() {
        let parameters = json!({});
        let job = job(DeclaredKind::Train, &parameters);
        assert!(memory(&job, Some(u64::MAX)) == u64::MAX && gpu_memory(&job, Some(u64::MAX), 1) > u64::MAX / 16);
    }
}

//! Loads an adapter as mistral.rs does and compares what comes of it with a merged model.
//!
//!     gap-mistralrs BASE ADAPTER MERGED

use candle_core::{DType, Device, Result, Tensor, safetensors::load};
use mistralrs_quant::{LoraAdapter, LoraConfig, ShardedSafeTensors, ShardedVarBuilder, linear_no_bias, push_applied_lora};
use std::{collections::HashMap, fs, path::Path, sync::Arc};

fn opened(file: &Path) -> Result<ShardedVarBuilder> {
    // SAFETY: nobody writes the file meanwhile.
    unsafe { ShardedSafeTensors::sharded(&[file], DType::F32, &Device::Cpu, None, Arc::new(|_| true)) }
}

/// Largest difference of two matrices.
fn distance(one: &Tensor, other: &Tensor) -> Result<f32> {
    (one.to_dtype(DType::F32)? - other.to_dtype(DType::F32)?)?.abs()?.max_all()?.to_scalar()
}

fn main() -> Result<()> {
    let paths: Vec<String> = std::env::args().skip(1).collect();
    let [base, adapter, merged] = paths.as_slice() else { panic!("gap-mistralrs BASE ADAPTER MERGED") };
    let [base, adapter, merged] = [base, adapter, merged].map(Path::new);
    let config = fs::read_to_string(adapter.join("adapter_config.json"))?;
    let config: LoraConfig = serde_json::from_str(&config).map_err(candle_core::Error::wrap)?;
    push_applied_lora(LoraAdapter { config, weights: opened(&adapter.join("adapter_model.safetensors"))? });
    let base = base.join("model.safetensors");
    let (weights, merged) = (opened(&base)?, load(merged.join("model.safetensors"), &Device::Cpu)?);
    let before: HashMap<String, Tensor> = load(&base, &Device::Cpu)?;
    let (mut compared, mut changed) = (0, 0);
    for (name, tensor) in &before {
        let Some(layer) = name.strip_suffix("_proj.weight") else { continue };
        let (out, inner) = tensor.dims2()?;
        let linear = linear_no_bias(inner, out, &None, weights.pp(format!("{layer}_proj")))?;
        let theirs = linear.dequantize_w()?;
        let ours = merged.get(name).ok_or_else(|| candle_core::Error::msg(format!("{name} is not in the merged model")))?;
        let far = distance(&theirs, ours)?;
        assert!(far < 1e-5, "{name} differs by {far}");
        compared += 1;
        changed += usize::from(distance(&theirs, tensor)? > 1e-4);
    }
    assert!(compared > 0 && changed == compared, "{changed} of {compared} matrices are not those of the base");
    println!("mistral.rs makes the same of {compared} matrices");
    Ok(())
}

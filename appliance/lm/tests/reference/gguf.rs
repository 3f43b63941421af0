//! The reference model of Llama as one file.

use crate::reference::{recorded, shapes, weights};
use candle_core::{
    Device, Tensor,
    quantized::{
        GgmlDType, QTensor,
        gguf_file::{
            self,
            Value::{F32, String as Text, U32},
        },
    },
};
use std::{fs, path::Path};

/// A GGUF file of the reference model of Llama, as llama.cpp's converter writes it.
pub fn write_gguf(path: &Path, kind: GgmlDType) {
    let recorded = recorded("llama");
    let tensors: Vec<(String, QTensor)> = shapes(&recorded)
        .into_iter()
        .map(|(name, shape)| {
            let mut tensor = Tensor::from_vec(weights(&name, &shape), shape.as_slice(), &Device::Cpu).unwrap();
            for (part, heads) in [("q_proj", 4), ("k_proj", 2)] {
                if name.contains(part) {
                    let (rows, width) = tensor.dims2().unwrap();
                    tensor = tensor.reshape((heads, 2, rows / heads / 2, width)).unwrap();
                    tensor = tensor.transpose(1, 2).unwrap().contiguous().unwrap().reshape((rows, width)).unwrap();
                }
            }
            let own = name
                .replace("model.layers.", "blk.")
                .replace("self_attn.o_proj", "attn_output")
                .replace("self_attn.", "attn_")
                .replace("_proj", "")
                .replace("mlp.", "ffn_")
                .replace("input_layernorm", "attn_norm")
                .replace("post_attention_layernorm", "ffn_norm")
                .replace("model.embed_tokens", "token_embd")
                .replace("model.norm", "output_norm")
                .replace("lm_head", "output");
            let kind = if shape.len() == 1 { GgmlDType::F32 } else { kind };
            (own, QTensor::quantize(&tensor, kind).unwrap())
        })
        .collect();
    let tensors: Vec<(&str, &QTensor)> = tensors.iter().map(|(name, tensor)| (name.as_str(), tensor)).collect();
    let metadata = [
        ("general.architecture", Text("llama".to_owned())),
        ("llama.embedding_length", U32(64)),
        ("llama.feed_forward_length", U32(160)),
        ("llama.block_count", U32(3)),
        ("llama.attention.head_count", U32(4)),
        ("llama.attention.head_count_kv", U32(2)),
        ("llama.attention.layer_norm_rms_epsilon", F32(1e-5)),
        ("llama.rope.freq_base", F32(5000.0)),
        ("llama.context_length", U32(256)),
        ("tokenizer.ggml.eos_token_id", U32(1)),
    ];
    let metadata: Vec<(&str, &gguf_file::Value)> = metadata.iter().map(|(name, value)| (*name, value)).collect();
    gguf_file::write(&mut fs::File::create(path).unwrap(), &metadata, &tensors).unwrap();
}

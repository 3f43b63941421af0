//! A small model that lacks nothing.

/// Configuration of a Llama with one layer.
pub const CONFIG: &str = r#"{"architectures":["LlamaForCausalLM"],"model_type":"llama","hidden_size":8,
"num_attention_heads":2,"num_key_value_heads":1,"num_hidden_layers":1,"intermediate_size":16,"vocab_size":32,
"max_position_embeddings":64,"torch_dtype":"float32","tie_word_embeddings":true}"#;

/// A tokenizer of three words.
pub const TOKENIZER: &str = r#"{"version":"1.0","truncation":null,"padding":null,"added_tokens":[],"normalizer":null,
"pre_tokenizer":{"type":"Whitespace"},"post_processor":null,"decoder":null,
"model":{"type":"WordLevel","vocab":{"[UNK]":0,"hello":1,"world":2},"unk_token":"[UNK]"}}"#;

/// Names and shapes of its tensors.
fn tensors() -> Vec<(&'static str, Vec<usize>)> {
    let layer = "model.layers.0.";
    let named = |name: &str| -> &'static str { format!("{layer}{name}.weight").leak() };
    vec![
        ("model.embed_tokens.weight", vec![32, 8]),
        (named("input_layernorm"), vec![8]),
        (named("self_attn.q_proj"), vec![8, 8]),
        (named("self_attn.k_proj"), vec![4, 8]),
        (named("self_attn.v_proj"), vec![4, 8]),
        (named("self_attn.o_proj"), vec![8, 8]),
        (named("post_attention_layernorm"), vec![8]),
        (named("mlp.gate_proj"), vec![16, 8]),
        (named("mlp.up_proj"), vec![16, 8]),
        (named("mlp.down_proj"), vec![8, 16]),
        ("model.norm.weight", vec![8]),
    ]
}

/// Safetensors of these tensors, filled with `seed`.
fn safetensors(tensors: &[(&str, Vec<usize>)], seed: u8) -> Vec<u8> {
    let (mut rows, mut at) = (Vec::new(), 0);
    for (name, shape) in tensors {
        let end = at + 4 * shape.iter().product::<usize>();
        rows.push(format!(r#""{name}":{{"dtype":"F32","shape":{shape:?},"data_offsets":[{at},{end}]}}"#));
        at = end;
    }
    let header = format!(r#"{{"__metadata__":{{"format":"pt"}},{}}}"#, rows.join(","));
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend_from_slice(header.as_bytes());
    file.extend((0..at).map(|number| (number as u8).wrapping_mul(31) ^ seed));
    file
}

/// Its files: two shards with an index, and what belongs to them.
pub fn files() -> Vec<(&'static str, Vec<u8>)> {
    let all = tensors();
    let (first, second) = all.split_at(4);
    let entry =
        |number: usize| move |(name, _): &(&str, _)| format!(r#""{name}":"model-0000{number}-of-00002.safetensors""#);
    let map: Vec<String> = first.iter().map(entry(1)).chain(second.iter().map(entry(2))).collect();
    vec![
        (".gitattributes", b"*.safetensors filter=lfs\n".to_vec()),
        ("README.md", b"---\nlicense: apache-2.0\n---\n# Tiny\n".to_vec()),
        ("config.json", CONFIG.as_bytes().to_vec()),
        ("generation_config.json", b"{}".to_vec()),
        ("model-00001-of-00002.safetensors", safetensors(first, 1)),
        ("model-00002-of-00002.safetensors", safetensors(second, 2)),
        (
            "model.safetensors.index.json",
            format!(r#"{{"metadata":{{}},"weight_map":{{{}}}}}"#, map.join(",")).into_bytes(),
        ),
        ("tokenizer.json", TOKENIZER.as_bytes().to_vec()),
        (
            "tokenizer_config.json",
            br#"{"tokenizer_class":"PreTrainedTokenizerFast","unk_token":"[UNK]","chat_template":"{{ messages }}"}"#
                .to_vec(),
        ),
    ]
}

/// [`files`] as a hub takes them.
pub fn put(hub: &crate::hub::Hub, repo: &str, files: &[(&'static str, Vec<u8>)]) -> gapimage::source::model::GitId {
    let files: Vec<(&str, &[u8])> = files.iter().map(|(name, data)| (*name, data.as_slice())).collect();
    hub.put(repo, &files)
}

/// [`files`] without some, and with others instead.
pub fn files_with(without: &[&str], with: &[(&'static str, Vec<u8>)]) -> Vec<(&'static str, Vec<u8>)> {
    let mut files = files();
    files.retain(|(name, _)| !without.contains(name) && !with.iter().any(|(other, _)| other == name));
    files.extend(with.iter().cloned());
    files
}

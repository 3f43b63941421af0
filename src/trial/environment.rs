//! The environment in which nothing looks for a network.

/// Variables by which the usual programs stay offline, send no telemetry, and write their caches where that is possible
/// on a read-only root. Images with Python packages, models or data sets carry them, and tests run with them.
pub const OFFLINE: [(&str, &str); 16] = [
    ("DO_NOT_TRACK", "1"),
    ("HF_DATASETS_OFFLINE", "1"),
    ("HF_HOME", "/tmp/huggingface"),
    ("HF_HUB_CACHE", "/models/hub"),
    ("HF_HUB_DISABLE_TELEMETRY", "1"),
    ("HF_HUB_OFFLINE", "1"),
    ("MPLCONFIGDIR", "/tmp/matplotlib"),
    ("NUMBA_CACHE_DIR", "/tmp/numba"),
    ("PYTHONDONTWRITEBYTECODE", "1"),
    ("TIKTOKEN_ENCODINGS_BASE", "/models/tiktoken"),
    ("TORCHINDUCTOR_CACHE_DIR", "/tmp/torchinductor"),
    ("TRANSFORMERS_OFFLINE", "1"),
    ("TRITON_CACHE_DIR", "/tmp/triton"),
    ("VLLM_NO_USAGE_STATS", "1"),
    ("WANDB_MODE", "offline"),
    ("XDG_CACHE_HOME", "/tmp/cache"),
];

#[cfg(test)]
mod tests {
    use super::OFFLINE;

    #[test]
    fn every_variable_is_there_once_in_order() {
        assert!(OFFLINE.windows(2).all(|pair| pair[0].0 < pair[1].0));
    }
}

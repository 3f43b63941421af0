//! Fine-tunes language models from a job file: LoRA, full and DPO, on candle.

fn main() {}

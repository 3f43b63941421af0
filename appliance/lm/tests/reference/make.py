#!/usr/bin/env python3
"""Makes the reference numbers beside this file: what unmodified Transformers computes with small models.

Weights come from a formula that the Rust tests follow as well, so only configurations and results are recorded.
Run where torch and transformers are (tests/torch.sh):  make.py OUTPUT_DIRECTORY
"""

import json
import os
import sys

import numpy
import torch
import transformers
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

OUT = sys.argv[1]
VOCABULARY = 384
PROMPTS = [
    "Hello", "The quick brown fox", "a", "1 + 1 = 2", "Berlin is in Germany.", "import os\n", "ä ö ü", "日本語",
    "What is the capital of France?", "one two three four five six seven eight nine ten eleven twelve", "\n\n",
    "{\"key\": [1, 2, 3]}", "SELECT * FROM t;", "x" * 60, "To be, or not to be", "1234567890", "    indented",
    "UPPER lower", "e=mc^2", "The end of the list of prompts, which is longer than a block of the cache is: " * 2,
]
NEW_TOKENS = 24

DECODER = dict(
    vocab_size=VOCABULARY, hidden_size=64, intermediate_size=160, num_hidden_layers=3, num_attention_heads=4,
    num_key_value_heads=2, max_position_embeddings=256, bos_token_id=0, eos_token_id=1, pad_token_id=1,
)
DECODERS = {
    "llama": transformers.LlamaConfig(**DECODER, rope_theta=5000.0, rms_norm_eps=1e-5, tie_word_embeddings=False),
    "llama3": transformers.LlamaConfig(
        **DECODER, tie_word_embeddings=True, attention_bias=True, mlp_bias=True,
        rope_scaling=dict(
            rope_type="llama3", rope_theta=10000.0, factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0,
            original_max_position_embeddings=64,
        ),
    ),
    "mistral": transformers.MistralConfig(**DECODER, sliding_window=16, head_dim=32, tie_word_embeddings=False),
    "qwen2": transformers.Qwen2Config(
        **DECODER, use_sliding_window=True, sliding_window=24, max_window_layers=2, tie_word_embeddings=True,
    ),
    "qwen3": transformers.Qwen3Config(**DECODER, head_dim=24, tie_word_embeddings=False, attention_bias=False),
    "yarn": transformers.Qwen3Config(
        **DECODER, head_dim=32, tie_word_embeddings=True,
        rope_scaling=dict(rope_type="yarn", rope_theta=10000.0, factor=4.0, original_max_position_embeddings=64),
    ),
}
ENCODER = dict(vocab_size=VOCABULARY, max_position_embeddings=130, pad_token_id=1, num_labels=3)
ENCODER_SIZES = dict(hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4)
ENCODERS = {
    "bert": transformers.BertConfig(**ENCODER, **ENCODER_SIZES, type_vocab_size=2),
    "distilbert": transformers.DistilBertConfig(**ENCODER, dim=64, hidden_dim=128, n_layers=2, n_heads=4),
    "roberta": transformers.RobertaConfig(**ENCODER, **ENCODER_SIZES, type_vocab_size=1, hidden_act="gelu_new"),
}


def hashed(name, count):
    """Numbers in -1…1 that follow from a name."""
    state = 0x811C9DC5
    for byte in name.encode():
        state = (state ^ byte) * 0x01000193 & 0xFFFFFFFF
    x = (numpy.arange(count, dtype=numpy.uint64) * 0x9E3779B1 + state) & 0xFFFFFFFF
    x ^= x >> 16
    x = x * 0x85EBCA6B & 0xFFFFFFFF
    x ^= x >> 13
    x = x * 0xC2B2AE35 & 0xFFFFFFFF
    x ^= x >> 16
    return x.astype(numpy.float64) / 2**31 - 1.0


def weights(name, shape):
    values = hashed(name, int(numpy.prod(shape)))
    if len(shape) == 1:
        values = 0.1 * values + (1.0 if "norm" in name.lower() and name.endswith("weight") else 0.0)
    elif "embed" not in name:
        values = values * (2.0 if "layers" in name or "layer." in name else 6.0) / float(numpy.sqrt(shape[-1]))
    return torch.from_numpy(values.astype(numpy.float32).reshape(shape))


def fill(model):
    state = model.state_dict()
    tied = "lm_head.weight" in state and model.config.tie_word_embeddings
    for name, tensor in state.items():
        if tensor.dtype == torch.float32 and not (tied and name == "lm_head.weight"):
            tensor.copy_(weights(name, tuple(tensor.shape)))
    return model.eval()


def shapes(model):
    tied = model.config.tie_word_embeddings
    return {
        name: list(tensor.shape) for name, tensor in model.state_dict().items()
        if tensor.dtype == torch.float32 and not (tied and name == "lm_head.weight")
    }


def tokenizer():
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    special = ["<|begin|>", "<|end|>", "<|im_start|>", "<|im_end|>", "[TOOL_CALLS]"]
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY - 4, special_tokens=special, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    made.train_from_iterator(PROMPTS + ["\"name\": \"arguments\": {\"tool_call\": true} user assistant system"] * 3, trainer)
    made.add_tokens([AddedToken("<tool_call>", special=False, normalized=False), AddedToken("</tool_call>", special=False, normalized=False)])
    made.save(os.path.join(OUT, "tokenizer.json"))
    return made


def decoder(name, config, made):
    model = fill(transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float32, attn_implementation="eager"))
    rows = []
    for prompt in PROMPTS:
        ids = made.encode(prompt).ids
        with torch.no_grad():
            logits = model(torch.tensor([ids])).logits[0]
        chosen = list(ids)
        for _ in range(NEW_TOKENS):
            with torch.no_grad():
                last = model(torch.tensor([chosen])).logits[0, -1]
            top = torch.topk(last, 2).values
            assert top[0] - top[1] > 1e-3, f"{name}: two tokens are equally likely after {prompt!r}"
            chosen.append(int(last.argmax()))
        rows.append(dict(
            prompt=prompt, tokens=ids, logits=[round(float(value), 6) for value in logits[-1]],
            greedy=chosen[len(ids):], text=made.decode(chosen[len(ids):]),
        ))
    return dict(config=config.to_dict(), shapes=shapes(model), rows=rows)


def encoder(name, config, made):
    classes = transformers.AutoModelForSequenceClassification
    model = fill(classes.from_config(config, dtype=torch.float32, attn_implementation="eager"))
    config.architectures = [type(model).__name__]
    rows = []
    for prompt in PROMPTS:
        ids = made.encode(prompt).ids[:100]
        with torch.no_grad():
            base = getattr(model, model.base_model_prefix)
            hidden = base(torch.tensor([ids])).last_hidden_state[0]
            logits = model(torch.tensor([ids])).logits[0]
        rows.append(dict(
            prompt=prompt, tokens=ids, mean=[round(float(value), 7) for value in hidden.mean(0)],
            logits=[round(float(value), 6) for value in logits],
        ))
    return dict(config=config.to_dict(), shapes=shapes(model), rows=rows)


def main():
    torch.manual_seed(0)
    made = tokenizer()
    for name, config in DECODERS.items():
        result = decoder(name, config, made)
        with open(os.path.join(OUT, f"{name}.json"), "w") as file:
            json.dump(result, file, ensure_ascii=False)
            file.write("\n")
    for name, config in ENCODERS.items():
        result = encoder(name, config, made)
        with open(os.path.join(OUT, f"{name}.json"), "w") as file:
            json.dump(result, file, ensure_ascii=False)
            file.write("\n")


main()

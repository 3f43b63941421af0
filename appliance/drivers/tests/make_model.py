"""Makes a tiny Llama with a tokenizer and a chat template, and data to train it on: make_model.py DIR"""

import json
import sys
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
COLOURS = ["red", "green", "blue", "white", "black", "grey"]
THINGS = ["door", "lamp", "wall", "roof", "gate", "desk", "vase", "coat"]


def rows():
    """Questions whose answer follows from the question."""
    for number, thing in enumerate(THINGS):
        for colour in COLOURS:
            yield {"instruction": f"Say the colour of the {thing}.", "input": f"The {thing} is {colour}.", "output": colour}


def write(path: Path, lines) -> None:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))


def main(directory: Path) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    examples = list(rows())
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([" ".join(row.values()) + " user assistant system" for row in examples], trainer)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="<|im_end|>", pad_token="<|endoftext|>", chat_template=TEMPLATE
    )
    fast.save_pretrained(directory / "model")
    torch.manual_seed(1)
    config = LlamaConfig(
        vocab_size=len(fast), hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=256, eos_token_id=fast.eos_token_id,
        pad_token_id=fast.pad_token_id, bos_token_id=None,
    )
    LlamaForCausalLM(config).save_pretrained(directory / "model")
    write(directory / "train.jsonl", examples)
    write(directory / "validation.jsonl", examples[::5])
    write(
        directory / "preferences.jsonl",
        (
            {
                "prompt": [{"role": "user", "content": f"{row['instruction']}\n\n{row['input']}"}],
                "chosen": [{"role": "assistant", "content": row["output"]}],
                "rejected": [{"role": "assistant", "content": "unknown"}],
            }
            for row in examples
        ),
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]))

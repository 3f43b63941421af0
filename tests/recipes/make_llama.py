"""Makes a small language model of Llama's shape with Transformers itself, with a tokenizer of its own and a chat template, and prints how large it is.

usage: make_llama.py DIR TEXT..."""
import json
import sys

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)

directory, *paths = sys.argv[1:]
torch.manual_seed(7)
torch.set_num_threads(1)
lines = [line for path in paths for line in open(path, encoding="utf-8")]

tokenizer = Tokenizer(models.BPE())
tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
tokenizer.decoder = decoders.ByteLevel()
special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
alphabet = pre_tokenizers.ByteLevel.alphabet()
tokenizer.train_from_iterator(
    lines, trainers.BpeTrainer(vocab_size=1024, special_tokens=special, initial_alphabet=alphabet, show_progress=False)
)
fast = PreTrainedTokenizerFast(
    tokenizer_object=tokenizer, bos_token="<|im_start|>", eos_token="<|im_end|>", pad_token="<|im_end|>",
    unk_token="<|endoftext|>", model_max_length=2048, chat_template=TEMPLATE,
)
config = LlamaConfig(
    vocab_size=tokenizer.get_vocab_size(), hidden_size=96, intermediate_size=256, num_hidden_layers=3, num_attention_heads=6,
    num_key_value_heads=3, max_position_embeddings=2048, tie_word_embeddings=True,
    bos_token_id=1, eos_token_id=2, pad_token_id=2,
)
model = LlamaForCausalLM(config)
model.save_pretrained(directory)
fast.save_pretrained(directory)
print(json.dumps({"parameters": sum(weights.numel() for weights in model.parameters())}))

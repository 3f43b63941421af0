#!/usr/bin/env python3
"""A language model of about 110 M parameters in unmodified Transformers, for comparison with gap-serve.

decode.py make DIRECTORY                    makes the model, with random weights
decode.py run DIRECTORY TYPE THREADS COUNT  prints seconds from the start of the process to the first token, and tokens
                                            a second after it
"""
import os
import sys
import time

import torch  # noqa: E402
import transformers  # noqa: E402


def make(directory):
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=32000, hidden_size=768, intermediate_size=2048, num_hidden_layers=12, num_attention_heads=12,
        num_key_value_heads=12, max_position_embeddings=2048, tie_word_embeddings=True,
    )
    model = transformers.AutoModelForCausalLM.from_config(config)
    print(sum(parameter.numel() for parameter in model.parameters()))
    model.save_pretrained(directory)
    model.to(torch.bfloat16).save_pretrained(directory + "-bf16")


def run(directory, kind, threads, count):
    torch.set_num_threads(threads)
    model = transformers.AutoModelForCausalLM.from_pretrained(directory, dtype=getattr(torch, kind))
    prompt = torch.arange(5, 69).unsqueeze(0)
    times = []

    class Watch(transformers.generation.streamers.BaseStreamer):
        def put(self, _):
            times.append(time.time())

        def end(self):
            pass

    model.generate(
        prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=count, min_new_tokens=count, do_sample=False,
        streamer=Watch(), pad_token_id=0,
    )
    # The first time is the prompt's own.
    print(times[1] - float(os.environ["BEGAN"]), (len(times) - 2) / (times[-1] - times[1]))


if sys.argv[1] == "make":
    make(sys.argv[2])
else:
    run(sys.argv[2], sys.argv[3], int(sys.argv[4]), int(sys.argv[5]))

"""Answers a question with an adapter, merged into the model it was trained on.

usage: answer.py MODEL ADAPTER QUESTION"""
import sys

import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

name, adapter, question = sys.argv[1:]
tokenizer = AutoTokenizer.from_pretrained(name)
model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(name), adapter).merge_and_unload()
prompt = tokenizer.apply_chat_template(
    [{"role": "user", "content": question}], add_generation_prompt=True, return_tensors="pt", return_dict=True
)
with torch.no_grad():
    written = model.generate(**prompt, max_new_tokens=24, do_sample=False)
new = written[0, prompt["input_ids"].shape[1]:]
print(f"{len(new)} tokens: {tokenizer.decode(new, skip_special_tokens=True)}")

"""The other side of the training benchmark: unmodified PEFT under Hugging Face's Trainer, on the tokens of a job.

    PYTHONPATH=/opt/site:/opt/peft python3 peft_trainer.py JOB.json ROWS.json

ROWS holds [[tokens, first counted token], …]. Prints JSON: seconds from the start of the process to the first step,
tokens a second over the later steps, the losses, and the peak of memory in bytes.
"""
import json
import os
import resource
import sys
import tempfile
import time

BEGAN = time.time() - (time.clock_gettime(time.CLOCK_BOOTTIME) - int(open("/proc/self/stat").read().rsplit(") ", 1)[1].split()[19]) / os.sysconf("SC_CLK_TCK"))

import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, Trainer, TrainerCallback, TrainingArguments

job = json.load(open(sys.argv[1]))
rows = json.load(open(sys.argv[2]))
torch.set_num_threads(2)


def collate(batch):
    longest = max(len(tokens) for tokens, _ in batch)
    pad = lambda values, fill: values + [fill] * (longest - len(values))
    return {
        "input_ids": torch.tensor([pad(tokens, 0) for tokens, _ in batch]),
        "attention_mask": torch.tensor([pad([1] * len(tokens), 0) for tokens, _ in batch]),
        "labels": torch.tensor([pad([-100] * first + tokens[first:], -100) for tokens, first in batch]),
    }


class Clock(TrainerCallback):
    begins, ends, losses = [], [], []

    def on_step_begin(self, *_, **__):
        self.begins.append(time.time())

    def on_step_end(self, *_, **__):
        self.ends.append(time.time())

    def on_log(self, args, state, control, logs=None, **_):
        if logs and "loss" in logs:
            self.losses.append(logs["loss"])


class InOrder(Trainer):
    def _get_train_sampler(self, *_):
        return torch.utils.data.SequentialSampler(self.train_dataset)


lora = job["lora"]
model = AutoModelForCausalLM.from_pretrained(job["model"], dtype=torch.float32)
model = get_peft_model(model, LoraConfig(
    r=lora["r"], lora_alpha=lora["alpha"], task_type="CAUSAL_LM",
    target_modules=["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]))
clock = Clock()
trainer = InOrder(
    model=model, train_dataset=rows, data_collator=collate, callbacks=[clock],
    args=TrainingArguments(
        output_dir=tempfile.mkdtemp(), max_steps=job["max_steps"], per_device_train_batch_size=job["batch_size"],
        learning_rate=job["learning_rate"], logging_steps=1, save_strategy="no", report_to=[], use_cpu=True,
        disable_tqdm=True, remove_unused_columns=False))
trainer.train()
size = job["batch_size"]
count = lambda step: sum(len(tokens) for tokens, _ in (rows[i % len(rows)] for i in range(step * size, (step + 1) * size)))
steps = range(1, job["max_steps"])
print(json.dumps({
    "start": clock.begins[0] - BEGAN,
    "tokens_per_second": sum(map(count, steps)) / (clock.ends[-1] - clock.ends[0]),
    "losses": clock.losses,
    "memory": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
}))

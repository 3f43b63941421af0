"""Trains a classifier on top of a model with the Trainer of Transformers, keeps the best checkpoint, evaluates it, and loads
what was saved. The last line of output is JSON.

usage: train.py MODEL EXAMPLES CONFIG; EXAMPLES is a CSV file with the columns `text` and `label`, CONFIG a YAML file with
TrainingArguments"""
import json
import os
import sys

import numpy
import yaml
from datasets import ClassLabel, load_dataset
from transformers import (
    AutoModelForSequenceClassification, AutoTokenizer, DataCollatorWithPadding, Trainer, TrainingArguments,
)

name, examples, config = sys.argv[1:]
with open(config, encoding="utf-8") as file:
    arguments = TrainingArguments(**yaml.safe_load(file))
# Without it, an evaluation before the training is logged to the current directory, which is read-only.
os.environ.setdefault("TENSORBOARD_LOGGING_DIR", os.path.join(arguments.output_dir, "runs"))
data = load_dataset("csv", data_files=examples, split="train")
labels = sorted(set(data["label"]))
data = data.cast_column("label", ClassLabel(names=labels))
tokenizer = AutoTokenizer.from_pretrained(name)
data = data.map(lambda batch: tokenizer(batch["text"], truncation=True), batched=True, remove_columns="text")
data = data.train_test_split(test_size=0.25, seed=arguments.seed, stratify_by_column="label")
model = AutoModelForSequenceClassification.from_pretrained(
    name, num_labels=len(labels), id2label=dict(enumerate(labels)), label2id={label: at for at, label in enumerate(labels)}
)


def accuracy(predicted):
    right = numpy.argmax(predicted.predictions, axis=-1) == predicted.label_ids
    return {"accuracy": float(right.mean())}


trainer = Trainer(
    model=model, args=arguments, train_dataset=data["train"], eval_dataset=data["test"], processing_class=tokenizer,
    data_collator=DataCollatorWithPadding(tokenizer), compute_metrics=accuracy,
)
before = trainer.evaluate()
trainer.train()
after = trainer.evaluate()
trainer.save_model(arguments.output_dir)
saved = AutoModelForSequenceClassification.from_pretrained(arguments.output_dir)
again = Trainer(
    model=saved, args=arguments, eval_dataset=data["test"], processing_class=tokenizer,
    data_collator=DataCollatorWithPadding(tokenizer), compute_metrics=accuracy,
).evaluate()
print(json.dumps({
    "steps": trainer.state.global_step,
    "best_checkpoint": trainer.state.best_model_checkpoint,
    "accuracy_before": before["eval_accuracy"],
    "accuracy": after["eval_accuracy"],
    "learned": after["eval_loss"] < before["eval_loss"],
    "saved_alike": abs(again["eval_loss"] - after["eval_loss"]) < 1e-4,
}))

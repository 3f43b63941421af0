"""Trains a LoRA adapter on a data set of the release and compares the model with and without it on the part that is held
back. The last line of output is JSON.

usage: train.py --config sft.yaml [--OPTION VALUE ...]; options are those of TRL's ScriptArguments, SFTConfig, ModelConfig"""
import json
import os

from datasets import load_dataset
from trl import ModelConfig, ScriptArguments, SFTConfig, SFTTrainer, TrlParser, get_peft_config

script, training, model = TrlParser((ScriptArguments, SFTConfig, ModelConfig)).parse_args_and_config()
# Without it, an evaluation before the training is logged to the current directory, which is read-only.
os.environ.setdefault("TENSORBOARD_LOGGING_DIR", os.path.join(training.output_dir, "runs"))
parts = {part: f"{script.dataset_name}/{part}.jsonl" for part in ("train", "validation", "test")}
data = load_dataset("json", data_files=parts)
trainer = SFTTrainer(
    model=model.model_name_or_path,
    args=training,
    train_dataset=data["train"],
    eval_dataset={part: data[part] for part in ("validation", "test")},
    peft_config=get_peft_config(model),
)
# An adapter begins as nothing: this is the base model.
base = trainer.evaluate()
trainer.train()
trainer.save_model(training.output_dir)
tuned = trainer.evaluate()
trained = sum(weights.numel() for weights in trainer.model.parameters() if weights.requires_grad)
print(json.dumps({
    "steps": trainer.state.global_step,
    "trained_parameters": trained,
    "base_loss": base["eval_test_loss"],
    "tuned_loss": tuned["eval_test_loss"],
    "better": tuned["eval_test_loss"] < base["eval_test_loss"],
}))

"""Makes the reference that `parity.rs` compares with: tiny models by Transformers, adapters by PEFT, and the losses of
50 steps by PyTorch's own autograd, AdamW and clipping, on the CPU in 32 bits.

    PYTHONPATH=/opt/site:/opt/peft python3 make.py DIR          (in the root of tests/peft.sh)
    PYTHONPATH=/opt/site:/opt/peft python3 make.py DIR --logits MODEL ADAPTER    logits of a probe, as JSON
"""
import copy
import json
import random
import sys
from pathlib import Path

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import (
    AutoModelForCausalLM, LlamaConfig, MistralConfig, Qwen2Config, Qwen3Config, get_scheduler,
)

VOCABULARY = 48
STEPS, BATCH, ACCUMULATION = 50, 3, 2
RATE, WARMUP, DECAY, CLIP, BETA = 5e-3, 5, 0.01, 1.0, 0.3
PROBE = [3, 17, 5, 40, 22, 9, 31, 2, 28, 11, 45, 6]
SHAPE = dict(
    vocab_size=VOCABULARY, hidden_size=16, intermediate_size=40, num_hidden_layers=2, num_attention_heads=4,
    num_key_value_heads=2, max_position_embeddings=64, bos_token_id=None, eos_token_id=None, pad_token_id=None,
)
FAMILIES = {
    "llama": lambda: LlamaConfig(**SHAPE, head_dim=4, tie_word_embeddings=False, rope_parameters={
        "rope_type": "llama3", "rope_theta": 500.0, "factor": 4.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 16}),
    "mistral": lambda: MistralConfig(**SHAPE, head_dim=4, sliding_window=6, tie_word_embeddings=False),
    "qwen2": lambda: Qwen2Config(**SHAPE, tie_word_embeddings=True),
    "qwen3": lambda: Qwen3Config(**SHAPE, head_dim=8, tie_word_embeddings=True),
}
TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
CASES = [(family, "supervised", tuning) for family in FAMILIES for tuning in ("lora", "full")]
CASES += [("llama", "supervised", "rslora")]
CASES += [(family, "dpo", tuning) for family in FAMILIES for tuning in ("lora", "full")]


def load(path):
    return AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32, attn_implementation="eager")


def words(tokens):
    return " ".join(f"t{token}" for token in tokens)


def make_data(out):
    rng = random.Random(5)
    draw = lambda low, high: [rng.randrange(VOCABULARY) for _ in range(rng.randint(low, high))]
    with open(out / "train.jsonl", "w") as file:
        for _ in range(31):
            print(json.dumps({"prompt": words(draw(2, 9)), "completion": " " + words(draw(1, 12))}), file=file)
    with open(out / "preferences.jsonl", "w") as file:
        for _ in range(31):
            row = {"prompt": words(draw(2, 9)), "chosen": " " + words(draw(1, 9)), "rejected": " " + words(draw(1, 9))}
            print(json.dumps(row), file=file)


def rows(path):
    ids = lambda text: [int(word[1:]) for word in text.split()]
    return [{name: ids(text) for name, text in json.loads(line).items()} for line in open(path)]


def log_probabilities(model, pairs):
    """For each (prompt, answer) the logarithms of the probabilities of the answer's tokens."""
    longest = max(len(prompt) + len(answer) for prompt, answer in pairs)
    padded = torch.tensor([p + a + [0] * (longest - len(p) - len(a)) for p, a in pairs])
    mask = torch.tensor([[1] * (len(p) + len(a)) + [0] * (longest - len(p) - len(a)) for p, a in pairs])
    logits = model(input_ids=padded, attention_mask=mask).logits.log_softmax(-1)
    out = []
    for row, (prompt, answer) in enumerate(pairs):
        at = torch.arange(len(prompt), len(prompt) + len(answer))
        out.append(logits[row, at - 1, padded[row, at]])
    return out


def micro_batches(data):
    """The batches of each step, epoch by epoch in the order of the file, as every engine takes them."""
    while True:
        batches = [data[i:i + BATCH] for i in range(0, len(data), BATCH)]
        for i in range(0, len(batches), ACCUMULATION):
            yield batches[i:i + ACCUMULATION]


def supervised(model, batches):
    total = sum(len(row["completion"]) for batch in batches for row in batch)
    for batch in batches:
        logs = log_probabilities(model, [(row["prompt"], row["completion"]) for row in batch])
        yield -torch.cat(logs).sum() / total


def preferences(model, reference, batches):
    total = sum(len(batch) for batch in batches)
    for batch in batches:
        pairs = [(row["prompt"], row[side]) for side in ("chosen", "rejected") for row in batch]
        with torch.no_grad(), reference() as base:
            old = torch.stack([logs.sum() for logs in log_probabilities(base, pairs)])
        new = torch.stack([logs.sum() for logs in log_probabilities(model, pairs)])
        chosen, rejected = (new - old).chunk(2)
        yield -torch.nn.functional.logsigmoid(BETA * (chosen - rejected)).sum() / total


class Whole:
    def __init__(self, model):
        self.model = model

    def __enter__(self):
        return self.model

    def __exit__(self, *_):
        pass


def train(out, family, method, tuning, base=None):
    base = base or load(out / family)
    model = base
    if tuning != "full":
        model = PeftModel.from_pretrained(base, out / f"{family}-{tuning}", is_trainable=True)
    # As in TRL, preferences are held near what the training began with, an adapter included.
    old = copy.deepcopy(model)
    reference = lambda: Whole(old)
    model.train()
    trained = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    decays = [p for name, p in trained if p.dim() > 1]
    rest = [p for name, p in trained if p.dim() <= 1]
    optimizer = torch.optim.AdamW(
        [{"params": decays, "weight_decay": DECAY}, {"params": rest, "weight_decay": 0.0}], lr=RATE)
    scheduler = get_scheduler("linear", optimizer, WARMUP, STEPS)
    data = rows(out / ("train.jsonl" if method == "supervised" else "preferences.jsonl"))
    losses, norms = [], []
    for _, batches in zip(range(STEPS), micro_batches(data)):
        parts = supervised(model, batches) if method == "supervised" else preferences(model, reference, batches)
        loss = 0.0
        for part in parts:
            part.backward()
            loss += part.item()
        norms.append(float(torch.nn.utils.clip_grad_norm_([p for _, p in trained], CLIP)))
        optimizer.step()
        scheduler.step()
        optimizer.zero_grad()
        losses.append(loss)
    model.eval()
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([PROBE])).logits[0].tolist()
    return {"family": family, "method": method, "tuning": tuning, "losses": losses, "norms": norms, "logits": logits}


def make_models(out):
    for number, (family, config) in enumerate(FAMILIES.items()):
        torch.manual_seed(number)
        model = AutoModelForCausalLM.from_config(config(), dtype=torch.float32)
        for name, parameter in model.named_parameters():
            # Nothing is left at one or zero, so that nothing is right by chance.
            parameter.data = torch.randn_like(parameter) * 0.15 + (1.0 if "norm" in name else 0.0)
        model.save_pretrained(out / family)
        for tuning in ("lora", "rslora"):
            if any(case[0] == family and case[2] == tuning for case in CASES):
                torch.manual_seed(100 + number)
                lora = LoraConfig(r=4, lora_alpha=8, target_modules=TARGETS, use_rslora=tuning == "rslora",
                                  init_lora_weights=False, task_type="CAUSAL_LM", base_model_name_or_path=family)
                get_peft_model(load(out / family), lora).save_pretrained(out / f"{family}-{tuning}")
                (out / f"{family}-{tuning}" / "README.md").unlink(missing_ok=True)


def main():
    out = Path(sys.argv[1])
    torch.set_num_threads(1)
    if "--logits" in sys.argv:
        model, adapter = sys.argv[3:5]
        model = PeftModel.from_pretrained(load(model), adapter).eval()
        with torch.no_grad():
            print(json.dumps(model(input_ids=torch.tensor([PROBE])).logits[0].tolist()))
        return
    out.mkdir(parents=True, exist_ok=True)
    make_models(out)
    make_data(out)
    vocabulary = {f"t{token}": token for token in range(VOCABULARY)}
    tokenizer = {"version": "1.0", "truncation": None, "padding": None, "added_tokens": [], "normalizer": None,
                 "pre_tokenizer": {"type": "WhitespaceSplit"}, "post_processor": None, "decoder": None,
                 "model": {"type": "WordLevel", "vocab": vocabulary, "unk_token": "t0"}}
    (out / "tokenizer.json").write_text(json.dumps(tokenizer))
    with torch.no_grad():
        probe = lambda model: model.eval()(input_ids=torch.tensor([PROBE])).logits[0].tolist()
        base = {family: probe(load(out / family)) for family in FAMILIES}
        # As PEFT wrote them, before anything is trained.
        adapters = {f"{family}-{tuning}": probe(PeftModel.from_pretrained(load(out / family), out / f"{family}-{tuning}"))
                    for family in FAMILIES for tuning in ("lora", "rslora") if (out / f"{family}-{tuning}").exists()}
    cases = [train(out, *case) for case in CASES]
    settings = {"steps": STEPS, "batch_size": BATCH, "gradient_accumulation_steps": ACCUMULATION, "learning_rate": RATE,
                "warmup_steps": WARMUP, "weight_decay": DECAY, "max_grad_norm": CLIP, "beta": BETA}
    (out / "reference.json").write_text(json.dumps({"settings": settings, "probe": PROBE, "base": base, "adapters": adapters, "cases": cases}))


if __name__ == "__main__":
    main()

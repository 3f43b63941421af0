"""Makes the reference for QLoRA that `parity.rs` compares with: bitsandbytes' own four-bit layers under PEFT, on the CPU.

    PYTHONPATH=/opt/trl python3 qlora.py FIXTURE OUT.json          (in the root of tests/trl.sh)

FIXTURE is what `make.py` made. `--make` adds to it the model and adapter of this reference. Its layers have whole blocks of
64 in a row: with others the processor's kernel of bitsandbytes 0.50.2 takes the largest values of wrong blocks. Those are
compared with what bitsandbytes' general code makes of the same bits.
"""
import json
import os
import sys
from pathlib import Path

os.environ["TORCH_COMPILE_DISABLE"] = "1"

import torch
from bitsandbytes.backends.default.ops import _dequantize_4bit_compute
from bitsandbytes.functional import dequantize_blockwise, quantize_4bit
from bitsandbytes.nn import Linear4bit
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, BitsAndBytesConfig, Qwen2Config

import make

CASES = [(family, double) for family in ("wide", "llama") for double in (False, True)]


def make_wide(fixture):
    torch.manual_seed(7)
    config = Qwen2Config(**{**make.SHAPE, "hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 1},
                         tie_word_embeddings=True)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    for name, parameter in model.named_parameters():
        parameter.data = torch.randn_like(parameter) * 0.1 + (1.0 if "norm" in name else 0.0)
    model.save_pretrained(fixture / "wide")
    lora = LoraConfig(r=4, lora_alpha=8, target_modules=make.TARGETS, init_lora_weights=False, task_type="CAUSAL_LM",
                      base_model_name_or_path="wide")
    get_peft_model(model, lora).save_pretrained(fixture / "wide-lora")
    (fixture / "wide-lora/README.md").unlink(missing_ok=True)
    (fixture / "wide/generation_config.json").unlink(missing_ok=True)


def layers(path, double):
    """The base with bitsandbytes' layers."""
    config = BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=double,
        bnb_4bit_compute_dtype=torch.float32)
    model = AutoModelForCausalLM.from_pretrained(
        path, dtype=torch.float32, attn_implementation="eager", quantization_config=config, device_map={"": "cpu"})
    for module in model.modules():
        if isinstance(module, Linear4bit):
            # Its other way of answering wants larger layers, and computes in 16 bits.
            module.support_avx512bf16_for_cpu = False
    return model


def values(weight, double):
    """What the four bits of a matrix stand for."""
    packed, state = quantize_4bit(weight, blocksize=64, quant_type="nf4", compress_statistics=double)
    largest = dequantize_blockwise(state.absmax, state.state2) + state.offset if double else state.absmax
    return _dequantize_4bit_compute(packed.reshape(-1), largest, state.code, 64, tuple(weight.shape), torch.float32)


def unpacked(path, double):
    """The base with the values that the four bits stand for."""
    model = make.load(path)
    for name, module in model.named_modules():
        if isinstance(module, torch.nn.Linear) and name != "lm_head":
            module.weight.data = values(module.weight.data, double)
    return model


def logits(model):
    with torch.no_grad():
        return model.eval()(input_ids=torch.tensor([make.PROBE])).logits[0].tolist()


def case(fixture, family, double):
    path = fixture / family
    base = logits(unpacked(path, double))
    trained = make.train(fixture, family, "supervised", "lora", unpacked(path, double))
    if family == "wide":
        by_layers = make.train(fixture, family, "supervised", "lora", layers(path, double))
        apart = max(abs(a - b) for a, b in zip(trained["losses"], by_layers["losses"]))
        assert apart < 1e-5, f"bitsandbytes' layers and what their bits stand for differ by {apart}"
        trained = by_layers
    del trained["logits"]
    return {**trained, "quantization": "nf4-double-quant" if double else "nf4", "base": base}


def main():
    torch.set_num_threads(1)
    if "--make" in sys.argv:
        make_wide(Path(sys.argv[1]))
    cases = [case(Path(sys.argv[1]), *each) for each in CASES]
    Path(sys.argv[2]).write_text(json.dumps({"cases": cases}))


main()

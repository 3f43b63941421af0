"""The base model with what is trained on it, and its tokenizer."""

import functools
import hashlib
import json
import math
from pathlib import Path

import torch
from peft import LoraConfig, PeftConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig

from .failure import Failure
from .output import sha256


def load_tokenizer(job):
    try:
        tokenizer = AutoTokenizer.from_pretrained(job.model, local_files_only=True)
    except Exception as error:
        raise Failure("invalid_model", f"the tokenizer in {job.model} cannot be read: {error}", "model") from error
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    if tokenizer.pad_token_id is None:
        raise Failure("invalid_model", f"the tokenizer in {job.model} has neither a padding nor an end token", "model")
    return tokenizer


def computes_in_bfloat16(job) -> bool:
    if job.dtype == "auto":
        return torch.cuda.is_available() and torch.cuda.is_bf16_supported()
    return job.dtype == "bfloat16"


def load_model(job, tokenizer, device: torch.device):
    """The base in the precision that the job asks for, with a new adapter, an earlier one, or none."""
    if job.adapter:
        _refuse_adapter_of_another_base(job)
    low = torch.bfloat16 if computes_in_bfloat16(job) else torch.float32
    options = {"dtype": low if job.lora else torch.float32, "local_files_only": True, "trust_remote_code": False}
    if job.quantization:
        options["quantization_config"] = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_compute_dtype=low,
            bnb_4bit_use_double_quant=job.quantization == "nf4-double-quant",
        )
        options["device_map"] = {"": device}
    try:
        model, report = AutoModelForCausalLM.from_pretrained(job.model, output_loading_info=True, **options)
    except torch.OutOfMemoryError:
        raise
    except Exception as error:
        raise Failure("invalid_model", f"the model in {job.model} cannot be read: {error}", "model") from error
    tied = set(getattr(model, "_tied_weights_keys", None) or [])
    if missing := sorted(set(report["missing_keys"]) - tied):
        raise Failure("invalid_model", f"the model in {job.model} lacks {', '.join(missing[:3])}", "model")
    _refuse_another_tokenizer(model, tokenizer, job)
    _refuse_damage(model, job)
    if job.lora is None:
        return model
    return _with_adapter(model, job)


def _refuse_adapter_of_another_base(job) -> None:
    """What `lineage.json` says, in the adapter's directory or beside it. An adapter without one is compared by its shapes."""
    adapter = Path(job.adapter)
    path = next((path for path in (adapter / "lineage.json", adapter.parent / "lineage.json") if path.exists()), None)
    if path is None:
        return
    try:
        base = json.loads(path.read_bytes())["base"]
        name, digest = base["name"], base["digest"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise Failure("invalid_adapter", f"{path}: it does not name the adapter's base: {error!r}", "adapter") from error
    found = base_lineage(job)["digest"]
    if found != digest:
        raise Failure(
            "invalid_adapter",
            f"{path}: the adapter was trained on `{name}` with digest {digest}, but {job.model} has digest {found}: "
            "serve it with its own base",
            "adapter",
        )


def _refuse_another_tokenizer(model, tokenizer, job) -> None:
    largest = max(tokenizer.get_vocab().values(), default=0)
    rows = model.get_input_embeddings().weight.shape[0]
    if largest >= rows:
        raise Failure(
            "invalid_model",
            f"{job.model}: the tokenizer has a token {largest}, but the model has {rows} rows; they are not of one piece",
            "model",
        )


def _refuse_damage(model, job) -> None:
    for name, weight in model.named_parameters():
        if weight.is_floating_point() and not torch.isfinite(weight).all():
            raise Failure("invalid_model", f"`{name}` in {job.model} has weights that are no finite numbers", "model")


def _with_adapter(model, job):
    if job.quantization:
        from peft import prepare_model_for_kbit_training

        model = prepare_model_for_kbit_training(model, use_gradient_checkpointing=job.gradient_checkpointing)
    try:
        if job.adapter:
            config = _config_of_adapter(job)
            return PeftModel.from_pretrained(
                model, job.adapter, is_trainable=True, local_files_only=True, config=config
            )
        shape = LoraConfig(
            task_type="CAUSAL_LM",
            r=job.lora.r,
            lora_alpha=job.lora.alpha,
            lora_dropout=job.lora.dropout,
            target_modules=job.lora.target_modules,
            use_rslora=job.lora.use_rslora,
        )
        return get_peft_model(model, shape)
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        code, param = ("invalid_adapter", "adapter") if job.adapter else ("invalid_job", "lora.target_modules")
        raise Failure(code, f"the adapter does not fit {job.model}: {error}", param) from error


def _config_of_adapter(job) -> PeftConfig:
    """That of the adapter to go on from, which the job must ask for. Of dropout the job decides: it is none of the result."""
    config = PeftConfig.from_pretrained(job.adapter, local_files_only=True)
    if not isinstance(config, LoraConfig):
        raise ValueError(f"it is of the type {config.peft_type}, and LoRA is trained")
    found = _scale(config.r, config.lora_alpha, config.use_rslora)
    wanted = _scale(job.lora.r, job.lora.alpha, job.lora.use_rslora)
    if config.r != job.lora.r or not math.isclose(found, wanted, rel_tol=0, abs_tol=1e-9):
        raise Failure(
            "invalid_job",
            f"the adapter has rank {config.r} and scale {found:g}, but the job says {job.lora.r} and {wanted:g}; "
            "give `lora` the adapter's `r`, `alpha` and `use_rslora`",
            "lora",
        )
    config.lora_dropout = job.lora.dropout
    return config


def _scale(r: int, alpha: float, use_rslora: bool) -> float:
    return alpha / (math.sqrt(r) if use_rslora else r)


def base_lineage(job) -> dict:
    return _base_lineage(job.model)


@functools.cache
def _base_lineage(model: str) -> dict:
    """The base by its digest: over the lines `digest  name` of its configuration and weights, sorted by name."""
    directory = Path(model)
    files = sorted([directory / "config.json", *directory.glob("*.safetensors")], key=lambda path: path.name)
    lines = "".join(f"{sha256(path)}  {path.name}\n" for path in files)
    config = json.loads((directory / "config.json").read_text())
    return {
        "name": directory.resolve().name,
        "architecture": (config.get("architectures") or [""])[0],
        "digest": hashlib.sha256(lines.encode()).hexdigest(),
    }


def origin(job) -> dict:
    """Digests of what examples are made into tokens with, of the base, and of the adapter to go on from."""
    if job.adapter:
        _refuse_adapter_of_another_base(job)
    directory = Path(job.model)
    read_with = [directory / name for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja")]
    return {
        "base": base_lineage(job)["digest"],
        "tokenizer": {path.name: sha256(path) for path in read_with if path.exists()},
        "adapter": _digest_of_adapter(job.adapter) if job.adapter else None,
    }


def _digest_of_adapter(directory: str) -> str:
    path = Path(directory) / "adapter_model.safetensors"
    try:
        return sha256(path)
    except OSError as error:
        raise Failure("invalid_adapter", f"{path} cannot be read: {error.strerror}", "adapter") from error

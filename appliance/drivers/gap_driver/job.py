"""job.json: reading it, its defaults, and what must hold between its fields. Names and defaults are the contract's."""

import json
import math
import os
from dataclasses import MISSING, asdict, dataclass, field, fields
from pathlib import Path

from .failure import UsageError

MAX_JOB_BYTES = 1 << 20


@dataclass
class Lora:
    r: int = 8
    alpha: float = 16.0
    dropout: float = 0.0
    target_modules: list[str] | str = "all-linear"
    use_rslora: bool = False


@dataclass
class EarlyStopping:
    patience: int = 3
    threshold: float = 0.0


@dataclass
class Job:
    model: str
    training_file: str
    output: str
    adapter: str | None = None
    validation_file: str | None = None
    seed: int = 42
    method: str = "supervised"
    n_epochs: float | None = None
    max_steps: int | None = None
    batch_size: int | str = 8
    gradient_accumulation_steps: int = 1
    shuffle: bool = True
    learning_rate: float = 1e-4
    lr_scheduler_type: str = "linear"
    warmup_steps: int | None = None
    warmup_ratio: float | None = None
    optim: str = "adamw_torch"
    adam_beta1: float = 0.9
    adam_beta2: float = 0.999
    adam_epsilon: float = 1e-8
    weight_decay: float = 0.0
    max_grad_norm: float = 1.0
    max_length: int = 1024
    packing: bool = False
    completion_only_loss: bool = True
    lora: Lora | None = None
    quantization: str | None = None
    dtype: str = "auto"
    gradient_checkpointing: bool = False
    save_steps: int | None = None
    save_total_limit: int | None = None
    eval_steps: int | None = None
    early_stopping: EarlyStopping | None = None
    beta: float = 0.1
    loss_type: str = "sigmoid"
    label_smoothing: float = 0.0
    metadata: dict[str, str] = field(default_factory=dict)

    def to_json(self) -> dict:
        """With every default; a field that says nothing is left out, as the contract does."""
        written = {name: value for name, value in asdict(self).items() if value is not None}
        if not self.metadata:
            written.pop("metadata", None)
        return written


WORDS = {
    "method": ("supervised", "dpo"),
    "lr_scheduler_type": ("linear", "cosine", "constant", "constant_with_warmup"),
    "optim": ("adamw_torch",),
    "dtype": ("auto", "float32", "bfloat16"),
    "quantization": ("nf4", "nf4-double-quant"),
    "loss_type": ("sigmoid", "hinge", "ipo"),
}
ALIASES = {"lora_alpha": "alpha", "lora_dropout": "dropout"}


def read(path: Path) -> Job:
    """The job in a file; its relative paths start at the file's directory."""
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise UsageError(f"the job file {path} cannot be read: {error.strerror}") from error
    if len(raw) > MAX_JOB_BYTES:
        raise UsageError(f"the job file has {len(raw)} bytes; at most {MAX_JOB_BYTES} are read")
    try:
        written = json.loads(raw, object_pairs_hook=_without_repetition, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"the job file is not as docs/jobs.md describes it: {error}") from error
    job = _record(Job, written, "")
    job.lora = _optional(Lora, job.lora, "lora.")
    job.early_stopping = _optional(EarlyStopping, job.early_stopping, "early_stopping.")
    faults = list(_faults(job))
    if faults:
        raise UsageError(f"the job cannot be run: {'; '.join(faults)}")
    for name in ("model", "training_file", "output", "adapter", "validation_file"):
        if (value := getattr(job, name)) is not None:
            setattr(job, name, os.path.abspath(path.parent / value))
    return job


def _without_repetition(pairs: list) -> dict:
    names = [name for name, _ in pairs]
    if repeated := next((name for name in names if names.count(name) > 1), None):
        raise ValueError(f"duplicate field `{repeated}`")
    return dict(pairs)


def _no_constant(word: str):
    raise ValueError(f"{word} is no JSON number")


def _optional(kind, written, where: str):
    return None if written is None else _record(kind, written, where)


def _record(kind, written, where: str):
    """A dataclass from a JSON object that has its fields and no others, each of its type."""
    if not isinstance(written, dict):
        raise UsageError(f"`{where.rstrip('.') or 'the job file'}` must be an object")
    if kind is Lora:
        written = {ALIASES.get(name, name): value for name, value in written.items()}
    known = {entry.name: entry for entry in fields(kind)}
    for name, value in written.items():
        if name not in known:
            raise UsageError(f"unknown field `{where}{name}`; known are {', '.join(sorted(known))}")
        _check_type(where + name, value, str(known[name].type))
    for entry in known.values():
        required = entry.default is MISSING and entry.default_factory is MISSING
        if required and written.get(entry.name) is None:
            raise UsageError(f"missing field `{where}{entry.name}`")
    record = kind(**{name: value for name, value in written.items() if value is not None})
    for entry in known.values():
        value = getattr(record, entry.name)
        if "float" in str(entry.type) and isinstance(value, int):
            setattr(record, entry.name, float(value))
    return record


def _check_type(name: str, value, declared: str) -> None:
    if value is None and ("None" in declared):
        return
    words = WORDS.get(name)
    right = {
        bool: "bool" in declared,
        int: "int" in declared or "float" in declared,
        float: "float" in declared,
        str: "str" in declared and "dict" not in declared or "Path" in declared,
        list: "list" in declared,
        dict: "dict" in declared or "Lora" in declared or "EarlyStopping" in declared,
    }.get(type(value), False)
    if not right:
        raise UsageError(f"`{name}`: {json.dumps(value)} is not of the type {declared}")
    if words and value not in words:
        raise UsageError(f"`{name}`: {json.dumps(value)} is none of {', '.join(words)}")
    if isinstance(value, list) and not all(isinstance(entry, str) for entry in value):
        raise UsageError(f"`{name}` must list names")
    if name == "metadata" and not all(isinstance(entry, str) for entry in value.values()):
        raise UsageError("`metadata` must map names to texts")
    if name == "batch_size" and isinstance(value, str) and value != "auto":
        raise UsageError("`batch_size` must be a number or `auto`")
    if name == "lora.target_modules" and isinstance(value, str) and value != "all-linear":
        raise UsageError("`lora.target_modules` must be a list of names or `all-linear`")
    if isinstance(value, int) and not 0 <= value < 1 << 64 and "float" not in declared:
        raise UsageError(f"`{name}`: {value} is out of range")


def _faults(job: Job):
    """Everything that is wrong between the fields, not only the first."""
    yield from _length_and_batches(job)
    yield from _optimiser(job)
    yield from _adapter(job)
    yield from _measuring(job)
    if job.method == "dpo":
        if not (math.isfinite(job.beta) and job.beta > 0):
            yield f"`beta`: is {job.beta}; it must be above 0"
        if not 0 <= job.label_smoothing <= 0.5:
            yield f"`label_smoothing`: is {job.label_smoothing}; it must lie between 0 and 0.5"
        if job.label_smoothing and job.loss_type != "sigmoid":
            yield "`label_smoothing`: is defined for the `sigmoid` loss only"


def _length_and_batches(job: Job):
    if (job.n_epochs is None) == (job.max_steps is None):
        yield "`n_epochs`: either it or `max_steps` must say how long to train, and only one can"
    if job.n_epochs is not None and not 0 < job.n_epochs <= 1e6:
        yield f"`n_epochs`: is {job.n_epochs}; it must be above 0 and at most a million"
    if job.max_steps == 0:
        yield "`max_steps`: is 0; at least one step must be made"
    if job.batch_size != "auto" and not 1 <= job.batch_size <= 1 << 20:
        yield f"`batch_size`: is {job.batch_size}; it must be 1 to 1048576"
    if not 1 <= job.gradient_accumulation_steps <= 1 << 20:
        yield f"`gradient_accumulation_steps`: is {job.gradient_accumulation_steps}; it must be 1 to 1048576"
    if not 2 <= job.max_length <= 1 << 24:
        yield f"`max_length`: is {job.max_length}; it must be 2 to 16777216"
    if job.packing and job.method == "dpo":
        yield "`packing`: is on, but preferences are compared as pairs and cannot be packed; leave it out"


def _optimiser(job: Job):
    for name in ("learning_rate", "weight_decay", "max_grad_norm"):
        if not 0 <= getattr(job, name) < math.inf:
            yield f"`{name}`: is {getattr(job, name)}; it must be a number from 0 on"
    for name in ("adam_beta1", "adam_beta2"):
        if not 0 <= getattr(job, name) < 1:
            yield f"`{name}`: is {getattr(job, name)}; it must be from 0 to below 1"
    if not 0 < job.adam_epsilon < math.inf:
        yield f"`adam_epsilon`: is {job.adam_epsilon}; it must be above 0"
    if job.warmup_ratio is not None:
        if not 0 <= job.warmup_ratio <= 1:
            yield f"`warmup_ratio`: is {job.warmup_ratio}; it must lie between 0 and 1"
        if job.warmup_steps is not None:
            yield "`warmup_ratio`: stands beside `warmup_steps`; only one can decide"
    if (job.warmup_steps or job.warmup_ratio) and job.lr_scheduler_type == "constant":
        yield "`lr_scheduler_type`: is `constant`, which has no warm-up; take `constant_with_warmup`"


def _adapter(job: Job):
    if job.lora is None:
        for name in ("quantization", "adapter"):
            if getattr(job, name) is not None:
                yield f"`{name}`: needs `lora`: only an adapter can be trained"
        return
    if not 1 <= job.lora.r <= 1 << 16:
        yield f"`lora.r`: is {job.lora.r}; it must be 1 to 65536"
    if not 0 < job.lora.alpha < math.inf:
        yield f"`lora.alpha`: is {job.lora.alpha}; it must be above 0"
    if not 0 <= job.lora.dropout < 1:
        yield f"`lora.dropout`: is {job.lora.dropout}; it must be from 0 to below 1"
    if isinstance(job.lora.target_modules, list) and not (job.lora.target_modules and all(job.lora.target_modules)):
        yield "`lora.target_modules`: names nothing; list layers such as `q_proj`, or say `all-linear`"


def _measuring(job: Job):
    for name in ("save_steps", "save_total_limit", "eval_steps"):
        if getattr(job, name) == 0:
            yield f"`{name}`: is 0; give at least 1 or leave it out"
    if job.validation_file is None:
        for name in ("eval_steps", "early_stopping"):
            if getattr(job, name) is not None:
                yield f"`{name}`: needs `validation_file` to measure on"
    if job.early_stopping and job.early_stopping.patience == 0:
        yield "`early_stopping.patience`: is 0; it must be at least 1"
    if job.early_stopping and not 0 <= job.early_stopping.threshold < math.inf:
        yield f"`early_stopping.threshold`: is {job.early_stopping.threshold}; it must be a number from 0 on"

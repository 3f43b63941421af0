"""One training run with TRL, from the examples to the lineage."""

import hashlib
import json
import platform
import shutil
import time
from pathlib import Path

import accelerate
import datasets
import peft
import torch
import transformers
import trl
from datasets import Dataset
from datasets.table import InMemoryTable
from transformers import PrinterCallback, TrainerState, set_seed
from trl import DPOConfig, SFTConfig

from . import examples, launch
from .failure import STOPPED, SUCCEEDED, Failure
from .model import base_lineage, computes_in_bfloat16, load_model, load_tokenizer, origin
from .output import Events, Output, sha256, write_json
from .trainer import Contract, Preferences, StopRequest, Supervised

LARGEST_BATCH = 64


class Session:
    """A job, its output, and (in the first process) the events that tell of it."""

    def __init__(self, job, output: Output, events: Events | None):
        self.job, self.output, self.events = job, output, events
        self.stop = StopRequest()
        datasets.disable_progress_bars()
        transformers.utils.logging.disable_progress_bar()

    def run(self, resume: bool) -> int:
        started = int(time.time())
        step = self.output.steps()[-1] if resume and self.output.steps() else 0
        if self.events:
            self.events.tell("resumed" if step else "started", f"goes on after step {step}" if step else "the run began")
        tokenizer = load_tokenizer(self.job)
        training, validation = self._examples(tokenizer)
        # The first process alone writes and compares it: all read the same files.
        identity = _identity(self.job, [training, validation]) if self.events else {}
        if step and self.events:
            self._refuse_another_job(step, identity)
        if self.events:
            write_json(self.output.job, self.job.to_json())
        staging = self.output.dir / ".new-work"
        try:
            arguments = self._arguments(str(staging))
            set_seed(self.job.seed)
            model = load_model(self.job, tokenizer, arguments.device)
            trainer = self._trainer(model, tokenizer, arguments, training, validation, identity)
            contract = Contract(self.job, self.output, self.events, self.stop, trainer.accelerator)
            trainer.remove_callback(PrinterCallback)
            trainer.add_callback(contract)
            if not (step and self._is_over(trainer, contract, step)):
                trainer.train(resume_from_checkpoint=str(self.output.checkpoint(step)) if step else None)
            outcome = self._finish(trainer, contract, tokenizer, staging)
            if self.events and outcome == SUCCEEDED:
                self._lineage(trainer, contract, [training, validation], started)
                self.events.tell("succeeded", f"all is done after {trainer.state.global_step} steps")
            trainer.accelerator.end_training()
            return outcome
        finally:
            if self.events:
                shutil.rmtree(staging, ignore_errors=True)

    def _examples(self, tokenizer):
        read = examples.preferences if self.job.method == "dpo" else examples.supervised
        training = read(self.job.training_file, "training", tokenizer, self.job)
        validation = None
        if self.job.validation_file:
            validation = read(self.job.validation_file, "validation", tokenizer, self.job)
        for part in (training, validation):
            if part and self.events:
                self.events.tell(
                    "data",
                    f"{part.path.name}: {part.read} examples, {part.truncated} cut off at {self.job.max_length} tokens, "
                    f"{part.dropped} left out because no answer remained",
                    "warn" if part.truncated or part.dropped else "info",
                    examples=part.read,
                    truncated=part.truncated,
                    dropped=part.dropped,
                )
        return training, validation

    def _refuse_another_job(self, step: int, identity: dict) -> None:
        try:
            begun = json.loads(self.output.identity(step).read_bytes())
        except (OSError, ValueError):
            begun = None
        if begun != identity:
            raise Failure(
                "invalid_job",
                "the job, its data, the base, the tokenizer or the adapter changed since the checkpoint; resume with what "
                "it began with, or give it its own `output`",
                "output",
            )

    def _arguments(self, staging: str):
        job = self.job
        auto = job.batch_size == "auto"
        batch = LARGEST_BATCH if auto else job.batch_size
        warmup = job.warmup_steps or 0
        if job.warmup_ratio is not None:
            warmup = min(job.warmup_ratio, 1 - 1e-9)
        if job.eval_steps:
            measure = {"eval_strategy": "steps", "eval_steps": job.eval_steps}
        else:
            measure = {"eval_strategy": "epoch" if job.validation_file else "no"}
        save = {"save_strategy": "steps", "save_steps": job.save_steps} if job.save_steps else {"save_strategy": "no"}
        options = {
            "output_dir": staging,
            "seed": job.seed,
            "data_seed": job.seed,
            "train_sampling_strategy": "random" if job.shuffle else "sequential",
            "num_train_epochs": job.n_epochs or 1,
            "max_steps": job.max_steps or -1,
            "per_device_train_batch_size": batch,
            "per_device_eval_batch_size": 8 if auto else batch,
            "auto_find_batch_size": auto,
            "gradient_accumulation_steps": job.gradient_accumulation_steps,
            "learning_rate": job.learning_rate,
            "lr_scheduler_type": job.lr_scheduler_type,
            "warmup_steps": warmup,
            "optim": job.optim,
            "adam_beta1": job.adam_beta1,
            "adam_beta2": job.adam_beta2,
            "adam_epsilon": job.adam_epsilon,
            "weight_decay": job.weight_decay,
            "max_grad_norm": job.max_grad_norm,
            "max_length": job.max_length,
            "bf16": computes_in_bfloat16(job),
            "use_cpu": not torch.cuda.is_available(),
            "ddp_backend": "gloo" if launch.is_worker() and not torch.cuda.is_available() else None,
            "ddp_find_unused_parameters": False,
            "gradient_checkpointing": job.gradient_checkpointing,
            "logging_strategy": "steps",
            "logging_steps": 1,
            "logging_nan_inf_filter": False,
            "report_to": [],
            "disable_tqdm": True,
            "dataloader_num_workers": 0,
            "dataloader_pin_memory": torch.cuda.is_available(),
            **measure,
            **save,
        }
        if job.method == "dpo":
            return DPOConfig(
                beta=job.beta, loss_type=[job.loss_type], label_smoothing=job.label_smoothing, **options
            )
        as_it_is = {"skip_prepare_dataset": not job.packing}
        return SFTConfig(packing=job.packing, eval_packing=False, dataset_kwargs=as_it_is, **options)

    def _trainer(self, model, tokenizer, arguments, training, validation, identity):
        kind = Preferences if self.job.method == "dpo" else Supervised
        tell = staticmethod(self.events.tell if self.events else lambda *_, **__: None)
        kind = type(kind.__name__, (kind,), {"output": self.output, "identity": identity, "tell": tell})
        return kind(
            model=model,
            args=arguments,
            train_dataset=_dataset(training),
            eval_dataset=_dataset(validation) if validation else None,
            processing_class=tokenizer,
        )

    def _is_over(self, trainer, contract: Contract, step: int) -> bool:
        """Whether a checkpoint is its run's last. Then its weights are put in place: the library would make one step more."""
        checkpoint = self.output.checkpoint(step)
        state = TrainerState.load_from_json(str(checkpoint / "trainer_state.json"))
        contract.take_up(step)
        if state.global_step < state.max_steps and not contract.exhausted():
            return False
        trainer.state = state
        trainer._load_from_checkpoint(str(checkpoint))
        return True

    def _finish(self, trainer, contract: Contract, tokenizer, staging: Path) -> int:
        if contract.stopped:
            contract.tell("stopped", f"stopped on request after step {trainer.state.global_step}; --resume goes on")
            return STOPPED
        if self.job.early_stopping and contract.best:
            self._take_back(trainer, contract.best[1])
        result = staging / "result"
        trainer.save_model(str(result))
        if trainer.is_world_process_zero():
            for extra in [*result.glob("training_args.bin"), *result.glob("README.md")]:
                extra.unlink()
            if self.job.lora:
                for extra in [path for path in result.iterdir() if not path.name.startswith("adapter_")]:
                    extra.unlink() if extra.is_file() else shutil.rmtree(extra)
            self.output.publish(result, self.output.adapter if self.job.lora else self.output.model)
        return SUCCEEDED

    def _take_back(self, trainer, step: int) -> None:
        """Puts the weights of the best checkpoint back."""
        if step == trainer.state.global_step:
            return
        trainer.state.best_model_checkpoint = str(self.output.checkpoint(step))
        trainer._load_best_model()

    def _lineage(self, trainer, contract: Contract, read: list, started: int) -> None:
        where = self.output.adapter if self.job.lora else self.output.model
        model = trainer.accelerator.unwrap_model(trainer.model)
        trained = sum(weight.numel() for weight in model.parameters() if weight.requires_grad)
        steps = trainer.state.global_step
        best = contract.best if self.job.early_stopping else None
        lineage = {
            "version": 1,
            "base": base_lineage(self.job),
            "data": [part.to_lineage() for part in read if part],
            "job": self.job.to_json(),
            "engine": {"name": "trl", "versions": _versions(), "device": _device()},
            "started_at": self._first_start(started),
            "finished_at": int(time.time()),
            "trained": {
                "steps": steps,
                "result_step": best[1] if best else steps,
                "tokens": contract.trained_tokens,
                "trainable_parameters": trained,
                "parameters": sum(weight.numel() for weight in model.parameters()),
                "train_loss": contract.last_loss,
            },
            "result": {
                str(path.relative_to(self.output.dir)): sha256(path) for path in sorted(where.rglob("*")) if path.is_file()
            },
        }
        if self.job.adapter:
            lineage["adapter"] = sha256(Path(self.job.adapter) / "adapter_model.safetensors")
        if best or contract.losses:
            lineage["trained"]["valid_loss"] = best[0] if best else contract.losses[-1]
        write_json(self.output.lineage, lineage)

    def _first_start(self, started: int) -> int:
        with open(self.output.events, encoding="utf-8") as rows:
            return min([json.loads(next(rows))["created_at"], started])


def _dataset(part: examples.Examples) -> Dataset:
    """The rows under a name of their own, which spares the library from naming them by pickling them."""
    return Dataset(InMemoryTable.from_pylist(part.rows), fingerprint=part.sha256[:16])


def _identity(job, parts: list) -> dict:
    """What must be the same for a run to go on: all that decides about numbers, but for the learning rate, which is what
    one changes when a run went astray. Computing activations again changes no number."""
    may_change = ("output", "save_steps", "save_total_limit", "metadata", "learning_rate", "gradient_checkpointing")
    decides = job.to_json() | dict.fromkeys(may_change)
    text = json.dumps([decides, [part.sha256 for part in parts if part], origin(job)], sort_keys=True)
    return {"job_sha256": hashlib.sha256(text.encode()).hexdigest()}


def _versions() -> dict:
    libraries = {"torch": torch, "transformers": transformers, "trl": trl, "peft": peft, "accelerate": accelerate}
    versions = {name: str(library.__version__) for name, library in libraries.items()}
    return versions | {"python": platform.python_version()}


def _device() -> str:
    if not torch.cuda.is_available():
        return "cpu"
    names = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    return ", ".join(names)

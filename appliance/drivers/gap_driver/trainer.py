"""TRL's trainers as engines of the job contract: where they write, what they report, when they stop."""

import math
import os
import resource
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path

import torch
from transformers import TrainerCallback
from trl import DPOTrainer, SFTTrainer

from .failure import Failure
from .output import IDENTITY, Events, Output, Rows, write_json

NEARLY_FULL = 0.9


class Engine:
    """What the contract asks of a trainer, mixed into one of TRL's."""

    output: Output
    identity: dict
    tell: Callable

    def create_model_card(self, *_args, **_options):
        """The lineage says more."""

    def _save_checkpoint(self, model, trial):
        """Writes beside, then moves into place, so that a checkpoint is whole or not there."""
        super()._save_checkpoint(model, trial)
        self.accelerator.wait_for_everyone()
        if self.is_world_process_zero():
            step = self.state.global_step
            staged = Path(self.args.output_dir) / f"checkpoint-{step}"
            write_json(staged / IDENTITY, self.identity)
            # Who goes on from the checkpoint does these steps no more, so nobody would write their rows again.
            self.output.sync_metrics()
            self.output.publish(staged, self.output.checkpoint(step))

    def _load_optimizer_and_scheduler(self, checkpoint):
        """As they were at the checkpoint, with the job's learning rate, which may be another when a run goes on."""
        super()._load_optimizer_and_scheduler(checkpoint)
        rate = self.args.learning_rate
        if checkpoint is None or (before := self.lr_scheduler.base_lrs[0]) == rate:
            return
        schedule = self.lr_scheduler
        schedule.base_lrs = [rate] * len(schedule.base_lrs)
        schedule._last_lr = [rate * share(schedule.last_epoch) for share in schedule.lr_lambdas]
        for group, now in zip(self.optimizer.param_groups, schedule._last_lr):
            group["initial_lr"], group["lr"] = rate, now
        step = schedule.last_epoch
        self.tell(
            "message",
            f"from step {step + 1} on the learning rate is {rate:g}; it was {before:g}",
            step=step,
            learning_rate=rate,
            before=before,
        )

    def evaluate(self, *_args, **_options):
        """Mean loss over the tokens of the validation file (DPO: over its pairs)."""
        self.model.eval()
        sums = torch.zeros(2, dtype=torch.float64)
        for batch in self.get_eval_dataloader():
            if "labels" in batch:
                count = int((batch["labels"][:, 1:] != -100).sum())
            else:
                count = len(batch["input_ids"]) // 2
            loss, _, _ = self.prediction_step(self.model, batch, prediction_loss_only=True)
            sums += torch.tensor([float(loss) * count, count], dtype=torch.float64)
        self._metrics["eval"].clear()
        total, count = self.accelerator.reduce(sums.to(self.accelerator.device).float(), "sum").tolist()
        metrics = {"eval_loss": total / count}
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics


class Supervised(Engine, SFTTrainer):
    """Supervised fine-tuning."""


class Preferences(Engine, DPOTrainer):
    """Direct preference optimisation."""

    def _prepare_dataset(self, dataset, *_args, **_options):
        """Examples come as tokens."""
        return dataset


class StopRequest:
    """Whether SIGTERM or SIGINT came; with several processes, to any of them."""

    def __init__(self):
        self.came = False
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._note)

    def _note(self, _number, _frame):
        self.came = True

    def anywhere(self, accelerator) -> bool:
        if accelerator.num_processes == 1:
            return self.came
        return bool(accelerator.reduce(torch.tensor(float(self.came), device=accelerator.device), "max").item())


class Contract(TrainerCallback):
    """Follows a training run: rows, events, checkpoints, early stopping, and the request to stop.

    Every process follows; the first alone writes.
    """

    def __init__(self, job, output: Output, events: Events | None, stop: StopRequest, accelerator):
        self.job, self.output, self.events, self.stop, self.accelerator = job, output, events, stop, accelerator
        self.metrics = Rows(output.metrics) if events else None
        self.counted = 0
        self.clock = time.monotonic()
        self.wall = time.time()
        self.stopped = self.warned_of_memory = False
        self._forget()

    def _forget(self) -> None:
        self.trained_tokens = self.without_gain = 0
        self.last_loss = math.nan
        self.best: tuple[float, int] | None = None
        self.losses: list[float] = []

    def on_train_begin(self, args, state, control, **_):
        """From the start, after a checkpoint, or once more with smaller batches."""
        self.take_up(state.global_step)
        if self.job.batch_size == "auto":
            size = state.train_batch_size
            self.tell("estimate", f"tries {size} examples in a pass", batch_size=size)

    def take_up(self, step: int) -> None:
        """Goes on after a step: later rows are dropped, the earlier say what was best."""
        self._forget()
        rows = self.metrics.keep(lambda row: row["step"] <= step) if self.metrics else []
        if self.accelerator.num_processes > 1:
            from accelerate.utils import broadcast_object_list

            rows = broadcast_object_list([rows])[0]
        for row in rows:
            self.trained_tokens, self.last_loss = row["trained_tokens"], row["train_loss"]
            if "valid_loss" in row:
                self._measured(row["valid_loss"], row["step"])

    def exhausted(self) -> bool:
        """Whether the validation loss has not fallen for as long as the job waits."""
        early = self.job.early_stopping
        return early is not None and self.without_gain >= early.patience

    def tell(self, *arguments, **data) -> None:
        if self.events:
            self.events.tell(*arguments, **data)

    def on_step_begin(self, args, state, control, **_):
        self.clock = time.monotonic()

    def on_step_end(self, args, state, control, **_):
        last = state.global_step >= state.max_steps
        if self.stop.anywhere(self.accelerator) and not last:
            self.stopped = control.should_training_stop = True
        if self.stopped or last:
            control.should_save = True
        return control

    def on_epoch_end(self, args, state, control, **_):
        if self.stopped:
            control.should_evaluate = False
        return control

    def on_log(self, args, state, control, logs=None, **_):
        if not logs or "loss" not in logs:
            return
        seconds = max(time.monotonic() - self.clock, 1e-9)
        tokens = int(logs["num_tokens"]) - self.counted
        self.counted += tokens
        self.trained_tokens += tokens
        self.last_loss = logs["loss"]
        memory = peak_memory()
        row = {
            "step": state.global_step,
            "epoch": state.epoch,
            "train_loss": logs["loss"],
            "learning_rate": logs["learning_rate"],
            "grad_norm": logs.get("grad_norm", 0.0),
            "tokens": tokens,
            "trained_tokens": self.trained_tokens,
            "tokens_per_second": tokens / seconds,
            "memory": memory,
        }
        row |= {name: logs[name] for name in logs if name in ("rewards/chosen", "rewards/rejected", "rewards/accuracies")}
        if not (math.isfinite(row["train_loss"]) and math.isfinite(row["grad_norm"])):
            self.tell("not_finite", f"step {state.global_step}: loss or gradient is not a finite number", "error")
            raise Failure(
                "not_finite",
                f"the loss of step {state.global_step} is {row['train_loss']}, its gradient {row['grad_norm']}; "
                "a lower `learning_rate` or float32 may help",
                "learning_rate",
            )
        if self.metrics:
            self.metrics.append(row)
        self._watch_memory(memory)
        self._watch_clock()

    def on_evaluate(self, args, state, control, metrics=None, **_):
        loss, step = metrics["eval_loss"], state.global_step
        if self.metrics:
            self.metrics.amend({"valid_loss": loss})
        self.tell("validation", f"step {step}: validation loss {loss:.4f}", step=step, valid_loss=loss)
        self._measured(loss, step)
        if len(self.losses) >= 3 and self.losses[-1] > self.losses[-2] > self.losses[-3]:
            self.tell(
                "validation_loss_rising",
                f"step {step}: the validation loss rises; the model may be overfitting",
                "warn",
                step=step,
                valid_loss=loss,
            )
        early = self.job.early_stopping
        if early:
            control.should_save = control.should_save or self.best[1] == step
            if self.exhausted():
                control.should_training_stop = control.should_save = True
                self.tell("early_stopping", f"step {step}: stops, the best validation loss was at step {self.best[1]}")
        return control

    def on_save(self, args, state, control, **_):
        if not self.events:
            return
        step = state.global_step
        self.tell("checkpoint", f"step {step}: checkpoint written", step=step)
        limit = self.job.save_total_limit
        best = self.best[1] if self.best and self.job.early_stopping else None
        for old in self.output.steps()[: -limit if limit else 0]:
            if old != best:
                shutil.rmtree(self.output.checkpoint(old))

    def _measured(self, loss: float, step: int) -> None:
        self.losses.append(loss)
        threshold = self.job.early_stopping.threshold if self.job.early_stopping else 0.0
        if self.best is None or loss < self.best[0] - threshold:
            self.best, self.without_gain = (loss, step), 0
        else:
            self.without_gain += 1

    def _watch_memory(self, memory: int) -> None:
        if not self.warned_of_memory and memory > NEARLY_FULL * memory_there_is():
            self.warned_of_memory = True
            self.tell("memory_nearly_full", "more than 90 % of the memory is in use", "warn", memory=memory)

    def _watch_clock(self) -> None:
        now = time.time()
        if now < self.wall - 1:
            self.tell("clock_jumped", f"the clock went back by {self.wall - now:.0f} s", "warn")
        self.wall = now


def peak_memory() -> int:
    """Bytes held at the peak until here: of the GPU, or of this process."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def memory_there_is() -> int:
    if torch.cuda.is_available():
        return torch.cuda.get_device_properties(torch.cuda.current_device()).total_memory
    return min(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"), _limit_of_groups())


def _limit_of_groups() -> float:
    """The lowest limit of the control groups that this process is in."""
    root = Path("/sys/fs/cgroup")
    try:
        lines = Path("/proc/self/cgroup").read_text().splitlines()
    except OSError:
        return math.inf
    own = next((root / line[3:].lstrip("/") for line in lines if line.startswith("0::")), root)
    limits = [math.inf]
    for group in [own, *own.parents]:
        if not group.is_relative_to(root):
            break
        try:
            limits.append(int((group / "memory.max").read_text()))
        except (OSError, ValueError):  # not there, or `max`
            continue
    return min(limits)

"""The story of a run: read the job, lock the output, load, train, leave the results."""

import argparse
import os
import sys
from pathlib import Path

# Before anything of Hugging Face is imported: nothing is fetched, nothing is reported.
for _name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_DATASETS_OFFLINE", "HF_HUB_DISABLE_TELEMETRY"):
    os.environ[_name] = "1"
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

from . import job as jobs  # noqa: E402
from . import launch  # noqa: E402
from .failure import FAILED, STOPPED, SUCCEEDED, USAGE, Failure, UsageError  # noqa: E402
from .output import Events, Output  # noqa: E402


def main(method: str) -> int:
    """Runs the job named on the command line; the exit code is the contract's."""
    arguments = _command_line()
    try:
        job = jobs.read(arguments.job)
        if job.method != method:
            raise UsageError(f"the job's `method` is {job.method}; this driver does {method}")
    except UsageError as error:
        print(f"error: {error}", file=sys.stderr)
        return USAGE
    if not launch.is_worker() and (processes := arguments.processes or _gpus()) > 1:
        return launch.run(processes)
    return _run(job, arguments.resume)


def _command_line():
    parser = argparse.ArgumentParser()
    parser.add_argument("job", type=Path, metavar="JOB.json")
    parser.add_argument("--resume", action="store_true", help="go on after the last checkpoint")
    parser.add_argument("--processes", type=int, help="processes to train with; without it one for each GPU")
    return parser.parse_args()


def _gpus() -> int:
    import torch

    return torch.cuda.device_count()


def _run(job, resume: bool) -> int:
    first = int(os.environ.get("RANK", "0")) == 0
    output = Output(job.output)
    events = None
    try:
        if first:
            output.lock()
            _refuse_to_overwrite(output, resume)
            events = Events(output)
            output.clear()
        from .session import Session

        return Session(job, output, events).run(resume)
    except Failure as failure:
        return _failed(events, failure)
    except OSError as error:
        what = f"{error.strerror} at {error.filename}" if error.filename else str(error)
        return _failed(events, Failure("storage", f"a file could not be read or written: {what}"))
    except Exception as error:  # whatever a library raises ends the run with an event, not with a traceback alone
        if type(error).__name__ == "OutOfMemoryError":
            message = "the memory does not suffice; a smaller `batch_size` or `max_length`, `gradient_checkpointing` help"
            return _failed(events, Failure("out_of_memory", message, "batch_size"))
        import traceback

        traceback.print_exc()
        return _failed(events, Failure("internal", f"{type(error).__name__}: {error}"))


def _refuse_to_overwrite(output: Output, resume: bool) -> None:
    """What a run left before its first checkpoint is nothing to go on from, and begins anew."""
    if not resume and (output.steps() or output.lineage.exists()):
        raise Failure(
            "output_busy", f"{output.dir} holds a run; --resume goes on with it, or take another `output`", "output"
        )


def _failed(events: Events | None, failure: Failure) -> int:
    if events:
        try:
            events.failed(failure)
        except OSError as error:
            print(f"the event could not be written: {error}", file=sys.stderr)
    print(f"error: {failure.message}", file=sys.stderr)
    return FAILED


__all__ = ["FAILED", "STOPPED", "SUCCEEDED", "USAGE", "main"]

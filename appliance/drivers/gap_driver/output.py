"""The output directory: its layout, who may write to it, and files that are whole or not there."""

import fcntl
import hashlib
import json
import os
import re
import shutil
import time
from pathlib import Path

from .failure import Failure


IDENTITY = "identity.json"


class Output:
    """The output directory of a job; the layout is the contract's."""

    def __init__(self, directory: str):
        self.dir = Path(directory)
        self.job = self.dir / "job.json"
        self.metrics = self.dir / "metrics.jsonl"
        self.events = self.dir / "events.jsonl"
        self.lineage = self.dir / "lineage.json"
        self.adapter = self.dir / "adapter"
        self.model = self.dir / "model"
        self.checkpoints = self.dir / "checkpoints"
        self.lock_file = self.dir / "lock"

    def lock(self) -> None:
        """Makes the directory and holds it until the process ends."""
        self.dir.mkdir(parents=True, exist_ok=True)
        self._held = open(self.lock_file, "a")
        try:
            fcntl.flock(self._held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise Failure(
                "output_busy", f"another engine works on {self.dir}; wait for it or take another `output`", "output"
            ) from error

    def checkpoint(self, step: int) -> Path:
        return self.checkpoints / f"step-{step:08}"

    def identity(self, step: int) -> Path:
        """In a checkpoint: what its run began with."""
        return self.checkpoint(step) / IDENTITY

    def steps(self) -> list[int]:
        """The steps that checkpoints were written after, in order."""
        if not self.checkpoints.is_dir():
            return []
        found = (re.fullmatch(r"step-([0-9]{8,})", entry.name) for entry in self.checkpoints.iterdir())
        return sorted(int(match[1]) for match in found if match)

    def clear(self) -> None:
        """Takes away what an earlier run left unfinished beside its checkpoints."""
        for left in self.dir.glob(".new-*"):
            shutil.rmtree(left, ignore_errors=True)

    def sync_metrics(self) -> None:
        """Waits until the rows that were written are on the disk."""
        if self.metrics.exists():
            _sync(self.metrics)

    def publish(self, staged: Path, to: Path) -> None:
        """Moves a finished directory to its place, durably; what lay there is replaced."""
        for path in sorted(staged.rglob("*")):
            if path.is_file():
                _sync(path)
        _sync(staged)
        old = None
        if to.exists():
            old = self.dir / f".new-old-{to.name}"
            shutil.rmtree(old, ignore_errors=True)
            os.rename(to, old)
        to.parent.mkdir(exist_ok=True)
        os.rename(staged, to)
        _sync(to.parent)
        if old:
            shutil.rmtree(old)


class Rows:
    """A file of JSON Lines that grows by a row at a time."""

    def __init__(self, path: Path):
        self.path, self.rows, self.last = path, 0, 0
        if path.exists():
            self._drop_torn_row()

    def _drop_torn_row(self) -> None:
        """A kill may have cut the last row off in its middle."""
        raw = self.path.read_bytes()
        whole = raw[: raw.rfind(b"\n") + 1]
        if len(whole) < len(raw):
            os.truncate(self.path, len(whole))
        self.rows = whole.count(b"\n")
        self.last = whole[:-1].rfind(b"\n") + 1 if whole else 0

    def append(self, row: dict) -> None:
        with open(self.path, "ab") as file:
            self.last = file.tell()
            file.write(_line(row))
        self.rows += 1

    def amend(self, more: dict) -> None:
        """Adds fields to the last row."""
        with open(self.path, "r+b") as file:
            file.seek(self.last)
            row = json.loads(file.readline())
            file.seek(self.last)
            file.write(_line(row | more))

    def keep(self, wanted) -> list[dict]:
        """Rewrites the file with the rows that are wanted, and returns them."""
        rows = [json.loads(line) for line in self.path.read_text().splitlines()] if self.path.exists() else []
        kept = [row for row in rows if wanted(row)]
        write(self.path, b"".join(_line(row) for row in kept))
        self._drop_torn_row()
        return kept


class Events:
    """`events.jsonl`, and the same sentences for people on standard error."""

    def __init__(self, output: Output):
        self.rows = Rows(output.events)

    def tell(self, topic: str, message: str, level: str = "info", **data) -> None:
        self._write(topic, message, level, {"data": data} if data else {})

    def failed(self, failure: Failure) -> None:
        self._write("failed", failure.message, "error", {"error": failure.to_json()})

    def _write(self, topic: str, message: str, level: str, more: dict) -> None:
        row = {"id": f"event-{self.rows.rows + 1}", "created_at": int(time.time()), "level": level}
        self.rows.append(row | {"message": message, "type": topic} | more)
        print(message, flush=True)


def write(path: Path, data: bytes) -> None:
    """A file that is there whole or as it was before."""
    new = path.with_name(path.name + ".new")
    with open(new, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    os.rename(new, path)
    _sync(path.parent)


def write_json(path: Path, value: dict) -> None:
    write(path, (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode())


def sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _line(row: dict) -> bytes:
    return (json.dumps(row, ensure_ascii=False) + "\n").encode()


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

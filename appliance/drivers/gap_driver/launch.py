"""One process for each GPU of this machine, as torchrun starts them; and how they end."""

import os
import signal
import socket
import subprocess
import sys
import time

from .failure import FAILED, STOPPED, SUCCEEDED


def is_worker() -> bool:
    """Whether torchrun, or `run` here, started this process."""
    return "RANK" in os.environ and "WORLD_SIZE" in os.environ


def run(processes: int) -> int:
    """Runs this command line in so many processes. The exit code is that of the first that failed, else of rank 0."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = {"WORLD_SIZE": processes, "LOCAL_WORLD_SIZE": processes, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    shared["USE_LIBUV"] = 0  # Debian's torch is built without it
    workers = []

    def forward(number, _frame):
        for worker in workers:
            if worker.poll() is None:
                worker.send_signal(number)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, forward)
    for rank in range(processes):
        own = {name: str(value) for name, value in {**shared, "RANK": rank, "LOCAL_RANK": rank}.items()}
        workers.append(subprocess.Popen([sys.executable, *sys.argv], env=os.environ | own))
    return _outcome(workers)


def _outcome(workers: list[subprocess.Popen]) -> int:
    while True:
        codes = [worker.poll() for worker in workers]
        broken = [code for code in codes if code not in (None, SUCCEEDED, STOPPED)]
        if broken:
            _end(workers)
            own = [code for code in (worker.returncode for worker in workers) if code > 0]
            return max(own, default=FAILED)
        if None not in codes:
            return codes[0]
        time.sleep(0.1)


def _end(workers: list[subprocess.Popen]) -> None:
    """The others wait for the one that is gone, so they end as well, after a moment to say why they failed."""
    deadline = time.monotonic() + 10
    for worker in workers:
        try:
            worker.wait(max(0.1, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            worker.kill()
            worker.wait()

"""Compiles Python sources into bytecode that is the same each time.

Arguments: the name of a file that lists the sources, one a line, in groups that end with an empty line. Each group is
compiled by a process of its own that starts from the same state, so that the bytes depend on nothing but the group:
how often objects are shared within the interpreter shows in bytecode. A source that does not compile gets none, as when
pip installs it.
"""

import importlib.util
import marshal
import os
import sys
import warnings

UNCHECKED_HASH = (1).to_bytes(4, "little")  # PEP 552


def compile_one(path):
    with open(path, "rb") as file:
        source = file.read()
    try:
        code = compile(source, path, "exec", dont_inherit=True, optimize=0)
    except Exception:
        return
    digest = importlib.util.source_hash(source)
    target = importlib.util.cache_from_source(path, optimization="")
    os.makedirs(os.path.dirname(target), exist_ok=True)
    with open(target, "xb") as file:
        file.write(importlib.util.MAGIC_NUMBER + UNCHECKED_HASH + digest + marshal.dumps(code))


def compile_group(paths):
    child = os.fork()
    if child:
        return child
    status = 1
    try:
        for path in paths:
            compile_one(path)
        status = 0
    except BaseException as error:
        print(f"{path}: {error}", file=sys.stderr, flush=True)
    os._exit(status)


def main(listing):
    with open(listing, encoding="utf-8") as file:
        groups = [group.split("\n") for group in file.read().strip("\n").split("\n\n")]
    running = set()
    for group in groups:
        if len(running) >= (os.cpu_count() or 1):
            wait(running)
        running.add(compile_group(group))
    while running:
        wait(running)


def wait(running):
    child, status = os.wait()
    running.discard(child)
    if status:
        sys.exit(f"a compiling process ended with {os.waitstatus_to_exitcode(status)}")


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    main(sys.argv[1])

"""Compiles Python sources into bytecode that is the same each time.

Arguments: the file that holds all sources, one that lists them, and the directory for what comes of it. The list has a line
`OFFSET LENGTH PATH` for each source, in groups that end with an empty line. Each group is compiled by a process of its own
that starts from the same state, so that the bytes depend on nothing but the group: how often objects are shared within the
interpreter shows in bytecode. Of each group comes one file, called by its number: for each source 8 bytes that say how long
its bytecode is, and the bytecode. A source that does not compile gets none, as when pip installs it.
"""

import importlib.util
import marshal
import os
import sys
import warnings

UNCHECKED_HASH = (1).to_bytes(4, "little")  # PEP 552


def compile_one(source, path):
    try:
        code = compile(source, path, "exec", dont_inherit=True, optimize=0)
    except Exception:
        return b""
    digest = importlib.util.source_hash(source)
    return importlib.util.MAGIC_NUMBER + UNCHECKED_HASH + digest + marshal.dumps(code)


def read(sources, offset, length):
    source = os.pread(sources, length, offset)
    if len(source) != length:
        raise EOFError
    return source


def compile_group(sources, group, target):
    child = os.fork()
    if child:
        return child
    status = 1
    try:
        with open(target, "xb") as file:
            for line in group:
                offset, length, path = line.split(" ", 2)
                compiled = compile_one(read(sources, int(offset), int(length)), path)
                file.write(len(compiled).to_bytes(8, "little"))
                file.write(compiled)
        status = 0
    except BaseException as error:
        print(f"{path}: {error!r}", file=sys.stderr, flush=True)
    os._exit(status)


def main(blob, listing, directory):
    with open(listing, encoding="utf-8") as file:
        groups = [group.split("\n") for group in file.read().strip("\n").split("\n\n")]
    sources = os.open(blob, os.O_RDONLY)
    running = set()
    for number, group in enumerate(groups):
        if len(running) >= (os.cpu_count() or 1):
            wait(running)
        running.add(compile_group(sources, group, os.path.join(directory, str(number))))
    while running:
        wait(running)


def wait(running):
    child, status = os.wait()
    running.discard(child)
    if status:
        sys.exit(f"a compiling process ended with {os.waitstatus_to_exitcode(status)}")


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    main(*sys.argv[1:])

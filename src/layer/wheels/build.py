"""Builds the wheel of a source distribution as PEP 517 has it, in two processes, so that no hook meets what another left.

    build.py prepare ARCHIVE WORK        unpacks it and asks what it is built with besides
    build.py wheel WORK OUTPUT           builds it
"""

import importlib
import importlib.metadata
import os
import re
import sys
import tarfile
import tomllib

USUAL_BACKEND = "setuptools.build_meta:__legacy__"


def prepare(archive, work):
    os.makedirs(work)
    with tarfile.open(archive) as members:
        members.extractall(work, filter="data")
    backend = enter(work)
    ask = getattr(backend, "get_requires_for_build_wheel", None)
    wanted = ask(None) if ask else []
    missing = [requirement for requirement in wanted if not is_there(requirement)]
    if missing:
        sys.exit(f"the backend also wants {', '.join(missing)}; add that to `build_requires`, and lock again")


def is_there(requirement):
    name = re.match(r"[A-Za-z0-9._-]+", requirement.strip())
    try:
        return bool(name and importlib.metadata.version(name.group()))
    except importlib.metadata.PackageNotFoundError:
        return False


def wheel(work, output):
    enter(work).build_wheel(output, None, None)


def enter(work):
    (top,) = os.listdir(work)
    os.chdir(os.path.join(work, top))
    system = {}
    if os.path.exists("pyproject.toml"):
        with open("pyproject.toml", "rb") as file:
            system = tomllib.load(file).get("build-system", {})
    sys.path[:0] = [os.path.abspath(path) for path in system.get("backend-path", [])]
    module, _, attributes = system.get("build-backend", USUAL_BACKEND).partition(":")
    backend = importlib.import_module(module)
    for attribute in filter(None, attributes.split(".")):
        backend = getattr(backend, attribute)
    return backend


if __name__ == "__main__":
    sys.path.pop(0)  # Where this script lies is nothing to import from.
    {"prepare": prepare, "wheel": wheel}[sys.argv[1]](*sys.argv[2:])

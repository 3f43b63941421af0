#!/usr/bin/env bash
# Makes DIR a Debian trixie root with Debian's python3-torch and, by this machine's pip, unmodified transformers in
# /opt/site: the connected side that models are made on and that answers are compared with.
set -euo pipefail
. "$(dirname "$0")/debian_root.sh"

transformers() {
  python3 -m pip install --quiet --target "$1/opt/site" --only-binary=:all: --implementation cp --python-version 3.13 \
    --platform manylinux_2_28_x86_64 --platform manylinux2014_x86_64 --platform manylinux_2_17_x86_64 \
    transformers
}

debian_root "${1:?usage: tests/torch.sh DIR}" 1 python3,python3-torch transformers

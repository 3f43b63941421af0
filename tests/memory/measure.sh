#!/usr/bin/env bash
# Measures anew what src/check/memory/measured.jsonl says of the small models, and prints it in the same form.
#   tests/memory/measure.sh CACHE
# They are really trained, on the processor, in the Debian root of tests/torch.sh with PEFT and bitsandbytes beside it.
set -euo pipefail
cd "$(dirname "$0")/../.."
root=${1:?usage: tests/memory/measure.sh CACHE}/torch
tests/torch.sh "$root" >&2
packages=(peft==0.21.2 bitsandbytes==0.50.2 accelerate==1.15.0 psutil==7.2.2)
if [ "$(cat "$root/opt/memory/made-of" 2>/dev/null)" != "${packages[*]}" ]; then
  rm -rf "$root/opt/memory"
  python3 -m pip install --quiet --target "$root/opt/memory" --no-deps --only-binary=:all: --implementation cp \
    --python-version 3.13 --platform manylinux_2_28_x86_64 --platform manylinux_2_24_x86_64 \
    --platform manylinux2014_x86_64 "${packages[@]}" >&2
  echo "${packages[*]}" > "$root/opt/memory/made-of"
fi
cp tests/memory/measure.py "$root/opt/memory/measure.py"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
grep '"name": "tiny-' src/check/memory/measured.jsonl >"$work/cases"
chroot "$root" env PYTHONPATH=/opt/memory:/opt/site HF_HUB_OFFLINE=1 python3 -W ignore /opt/memory/measure.py \
  <"$work/cases" >"$work/found"
python3 - "$work/cases" "$work/found" <<'PYTHON'
import json, sys
# Libraries print notices of their own between the answers.
cases, found = ([line for line in open(path) if line.startswith("{")] for path in sys.argv[1:])
assert len(cases) == len(found), (len(cases), len(found))
for case, answer in zip(cases, found):
    print(json.dumps({**json.loads(case), "found": json.loads(answer)}))
PYTHON

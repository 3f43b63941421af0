#!/usr/bin/env bash
# Trains an adapter and has mistral.rs load it: what it makes of each matrix must be what `gap-train merge` makes.
#   tests/mistralrs.sh DIR
# Of mistral.rs only the crate that loads adapters is built, into DIR. It does not know RS-LoRA.
set -euo pipefail
here=$(cd "$(dirname "$0")/.." && pwd)
directory=$(realpath -m "${1:?usage: tests/mistralrs.sh DIR}")
cargo=${CARGO:-cargo}
cd "$here"
$cargo build --workspace --locked --bin gap-train
$cargo build --manifest-path tests/mistralrs/Cargo.toml --target-dir "$directory/target"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
train=$here/target/debug/gap-train
"$train" init "$work/model" --hidden 64 --layers 2 --heads 4 --key-heads 2 --intermediate 160 --vocab 640 \
  --vocab-from recipes/appliance/lessons.jsonl
cat > "$work/job.json" <<EOF
{"model": "$work/model", "training_file": "$here/recipes/appliance/site.jsonl", "output": "$work/out", "max_steps": 8,
 "batch_size": 8, "learning_rate": 0.01, "max_length": 128, "dtype": "float32", "lora": {"r": 8, "alpha": 32}}
EOF
"$train" run "$work/job.json"
"$train" merge "$work/model" "$work/out/adapter" -o "$work/merged"
"$directory/target/debug/gap-mistralrs" "$work/model" "$work/out/adapter" "$work/merged"

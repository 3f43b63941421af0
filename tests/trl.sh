#!/usr/bin/env bash
# Adds to the root that tests/torch.sh makes, in /opt/trl, what models are fine-tuned with on the connected side: TRL and
# PEFT with Transformers, Accelerate, Datasets and bitsandbytes, and gguf, which reads exported models.
# The index is that of the host's own pip. For PYTHONPATH=/opt/trl; Debian's torch stays the only one.
#   tests/trl.sh DIR
set -euo pipefail
dir=${1:?usage: tests/trl.sh DIR}
mkdir -p "$(dirname "$dir")"
exec 9> "$dir.lock"
flock 9
"$(dirname "$0")/torch.sh" "$dir"

with=(transformers==5.24.0 tokenizers==0.23.3 safetensors==0.8.0 datasets==5.2.0 numpy==2.4.6 psutil gguf==0.19.0 jinja2
  sentencepiece xllamacpp==2026.10.11549)
without=(trl==1.16.0 peft==0.21.2 accelerate==1.15.0 bitsandbytes==0.50.2)
stamp=$dir/opt/trl/made-of
[ "$(cat "$stamp" 2>/dev/null)" = "${with[*]} ${without[*]}" ] && exit 0
rm -rf "$dir/opt/trl" "$dir/opt/trl.new"
get=(python3 -m pip install --quiet --disable-pip-version-check --target "$dir/opt/trl.new" --only-binary=:all:
  --implementation cp --python-version 3.13 --platform manylinux_2_28_x86_64 --platform manylinux2014_x86_64
  --platform manylinux_2_17_x86_64 --platform manylinux_2_24_x86_64)
"${get[@]}" "${with[@]}"
"${get[@]}" --no-deps --upgrade "${without[@]}"
echo "${with[*]} ${without[*]}" > "$dir/opt/trl.new/made-of"
mv "$dir/opt/trl.new" "$dir/opt/trl"

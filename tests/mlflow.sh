#!/usr/bin/env bash
# Makes a Python with MLflow in DIR, once: it opens the experiments that gap-train leaves behind.
#   tests/mlflow.sh DIR
set -euo pipefail

packages=(mlflow==3.17.2)
dir=$1
mkdir -p "$(dirname "$dir")"
exec 9> "$dir.lock"
flock 9
[ "$(cat "$dir/made-of" 2>/dev/null)" = "${packages[*]}" ] && exit 0
rm -rf "$dir"
python3 -m venv "$dir"
"$dir/bin/pip" install --quiet --disable-pip-version-check "${packages[@]}"
echo "${packages[*]}" > "$dir/made-of"

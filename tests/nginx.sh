#!/usr/bin/env bash
# Makes DIR a Debian trixie root with nginx, to measure the API against as a proxy:  tests/nginx.sh DIR
set -euo pipefail
. "$(dirname "$0")/debian_root.sh"

debian_root "${1:?usage: tests/nginx.sh DIR}" 1 nginx

#!/usr/bin/env bash
# Makes DIR a Debian trixie root with the newer tools that tests compare with: erofs-utils 1.8, cosign, ukify.
set -euo pipefail
. "$(dirname "$0")/debian_root.sh"

debian_root "${1:?usage: tests/trixie.sh DIR}" 1 erofs-utils,cosign,systemd-ukify,kmod,attr,python3-pefile

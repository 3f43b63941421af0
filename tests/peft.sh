#!/usr/bin/env bash
# Adds to the Debian root of tests/torch.sh what training is compared with: unmodified PEFT and accelerate by pip in
# /opt/peft, and OpenBLAS, without which Debian's torch multiplies matrices by the reference library.
#   tests/peft.sh ROOT
set -euo pipefail
root=${1:?usage: tests/peft.sh ROOT}
"$(dirname "$0")/torch.sh" "$root"
packages=(peft==0.21.2 accelerate==1.15.0 psutil==7.2.2)
exec 9> "$root.peft.lock"
flock 9
[ "$(cat "$root/opt/peft/made-of" 2>/dev/null)" = "${packages[*]}" ] && exit 0
rm -rf "$root/opt/peft"
python3 -m pip install --quiet --disable-pip-version-check --no-deps --target "$root/opt/peft" --only-binary=:all: \
  --implementation cp --python-version 3.13 --platform manylinux_2_28_x86_64 --platform manylinux2014_x86_64 \
  --platform manylinux_2_17_x86_64 "${packages[@]}"
cp /etc/resolv.conf "$root/etc/resolv.conf" 2>/dev/null || true
chroot "$root" apt-get -qq update
chroot "$root" env DEBIAN_FRONTEND=noninteractive apt-get -qq install --no-install-recommends libopenblas0-pthread > /dev/null
echo "${packages[*]}" > "$root/opt/peft/made-of"

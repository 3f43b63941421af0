#!/usr/bin/env bash
# Installs the programs that the demo or the tests drive, or says exactly what to install.
#   tests/setup.sh demo   what booting needs
#   tests/setup.sh test   that, and the tools of others that the tests compare with
set -euo pipefail

declare -A package=(
  [qemu-system-x86_64]=qemu-system-x86 [newuidmap]=uidmap [cc]=gcc
)
programs=(qemu-system-x86_64 newuidmap cc)
files=(
  /usr/include/stdlib.h:libc6-dev /usr/share/OVMF/OVMF_CODE_4M.fd:ovmf
  /usr/share/keyrings/debian-archive-keyring.gpg:debian-archive-keyring
)

if [ "${1:-demo}" = test ]; then
  package+=(
    [skopeo]=skopeo [podman]=podman [umoci]=umoci [sgdisk]=gdisk [fdisk]=fdisk [veritysetup]=cryptsetup-bin
    [fsck.vfat]=dosfstools [fsck.erofs]=erofs-utils [mke2fs]=e2fsprogs [mkfs.xfs]=xfsprogs [mkfs.exfat]=exfatprogs
    [mount.exfat-fuse]=exfat-fuse [losetup]=mount [cmp]=diffutils [mdir]=mtools [bsdtar]=libarchive-tools
    [openssl]=openssl [python3]=python3
    [mmdebstrap]=mmdebstrap [xz]=xz-utils [depmod]=kmod [faketime]=faketime [objdump]=binutils [jq]=jq [curl]=curl
    [gpg]=gpg [c++]=g++ [strace]=strace
  )
  programs=("${!package[@]}")
fi

missing=()
for program in "${programs[@]}"; do
  PATH=$PATH:/usr/sbin:/sbin command -v "$program" >/dev/null || missing+=("${package[$program]}")
done
for pair in "${files[@]}"; do
  [ -e "${pair%%:*}" ] || missing+=("${pair##*:}")
done

if [ "${1:-demo}" = test ]; then
  python3 -c 'import ensurepip, venv' 2>/dev/null || missing+=(python3-venv)
  python3 -m pip --version >/dev/null 2>&1 || missing+=(python3-pip)
fi

[ ${#missing[@]} -eq 0 ] && exit 0
mapfile -t missing < <(printf '%s\n' "${missing[@]}" | sort -u)
if [ "$(id -u)" != 0 ]; then
  echo "Missing programs. Install them with:" >&2
  echo "  sudo apt-get install --no-install-recommends ${missing[*]}" >&2
  exit 1
fi
export DEBIAN_FRONTEND=noninteractive
apt-get update -q
apt-get install -yq --no-install-recommends "${missing[@]}"

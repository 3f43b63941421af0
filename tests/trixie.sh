#!/usr/bin/env bash
# Makes DIR a Debian trixie root with the newer tools that tests compare with: erofs-utils 1.8, cosign, ukify.
# Signatures are checked with the host's archive keyring; the mirror is the one of the host's own apt.
set -euo pipefail
dir=${1:?usage: tests/trixie.sh DIR}
stamp=$dir/.complete-1
[ -e "$stamp" ] && exit 0
keyring=/usr/share/keyrings/debian-archive-keyring.gpg
mirror=$(apt-get indextargets --format '$(SITE) $(ORIGIN) $(SUITE)' | awk '$2=="Debian" && $3!~/security/ {print $1; exit}')
[ -n "$mirror" ] || { echo "the host's apt knows no Debian mirror; run apt-get update" >&2; exit 1; }
rm -rf "$dir"
mkdir -p "$(dirname "$dir")"
work=$(mktemp -d "$dir.XXXXXX")
trap 'rm -rf "$work"' EXIT
mmdebstrap --quiet --variant=apt --keyring="$keyring" \
  --include=erofs-utils,cosign,systemd-ukify,kmod,attr,python3-pefile \
  trixie "$work" "deb [signed-by=$keyring] $mirror trixie main"
touch "$work/.complete-1"
mv "$work" "$dir"
trap - EXIT

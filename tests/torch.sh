#!/usr/bin/env bash
# Makes DIR a Debian trixie root with Debian's python3-torch and, by pip, unmodified transformers in /opt/site: the
# connected side that models are made on and that answers are compared with.
# Signatures are checked with the host's archive keyring; mirror and index are those of the host's own apt and pip.
set -euo pipefail
dir=${1:?usage: tests/torch.sh DIR}
stamp=$dir/.complete-1
[ -e "$stamp" ] && exit 0
keyring=/usr/share/keyrings/debian-archive-keyring.gpg
mirror=$(apt-get indextargets --format '$(SITE) $(ORIGIN) $(SUITE)' | awk '$2=="Debian" && $3!~/security/ {print $1; exit}')
[ -n "$mirror" ] || { echo "the host's apt knows no Debian mirror; run apt-get update" >&2; exit 1; }
rm -rf "$dir"
mkdir -p "$(dirname "$dir")"
work=$(mktemp -d "$dir.XXXXXX")
trap 'rm -rf "$work"' EXIT
mmdebstrap --quiet --variant=apt --keyring="$keyring" --include=python3,python3-torch \
  trixie "$work" "deb [signed-by=$keyring] $mirror trixie main"
python3 -m pip install --quiet --target "$work/opt/site" --only-binary=:all: --implementation cp --python-version 3.13 \
  --platform manylinux_2_28_x86_64 --platform manylinux2014_x86_64 --platform manylinux_2_17_x86_64 \
  transformers
touch "$work/.complete-1"
mv "$work" "$dir"
trap - EXIT

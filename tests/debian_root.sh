# Sourced: making Debian trixie roots, each once.
#
# Signatures are checked with this machine's archive keyring; the mirror is the one of its own apt.

# debian_root DIR VERSION PACKAGES [FILL]: makes DIR a root with PACKAGES (by commas) unless it is one of this VERSION
# already; `FILL ROOT` adds what is no Debian package. DIR is there whole or not at all.
debian_root() {
  local dir=$1 stamp=.complete-$2 packages=$3 fill=${4:-true}
  [ ! -e "$dir/$stamp" ] || return 0
  local keyring=/usr/share/keyrings/debian-archive-keyring.gpg mirror work
  mirror=$(apt-get indextargets --format '$(SITE) $(ORIGIN) $(SUITE)' |
    awk '$2=="Debian" && $3!~/security/ {print $1; exit}')
  [ -n "$mirror" ] || { echo "this machine's apt knows no Debian mirror; run apt-get update" >&2; return 1; }
  rm -rf "$dir"
  mkdir -p "$(dirname "$dir")"
  work=$(mktemp -d "$dir.XXXXXX")
  # Expanded now: the names are gone by then.
  trap "rm -rf $(printf %q "$work")" EXIT
  mmdebstrap --quiet --variant=apt --keyring="$keyring" --include="$packages" \
    trixie "$work" "deb [signed-by=$keyring] $mirror trixie main"
  "$fill" "$work"
  touch "$work/$stamp"
  mv "$work" "$dir"
  trap - EXIT
}

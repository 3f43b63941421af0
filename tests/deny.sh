#!/usr/bin/env bash
# Checks licences, sources and advisories of every crate that is built in, by deny.toml. Installs cargo-deny if it is
# absent. Advisories are the only part that needs a network beyond the packages themselves; without it, the copy of the
# database from the last time is used, and if there is none that is said and the rest still counts.
set -euo pipefail
cd "$(dirname "$0")/.."

cargo=${CARGO:-cargo}
$cargo deny --version >/dev/null 2>&1 || $cargo install --locked cargo-deny@0.20.2

$cargo deny --offline check licenses bans sources
if $cargo deny fetch db 2>/dev/null; then
  $cargo deny check --disable-fetch advisories
elif compgen -G "${CARGO_HOME:-$HOME/.cargo}/advisory-dbs/*/crates" >/dev/null; then
  echo "The database of advisories cannot be fetched; going by the copy from the last time." >&2
  $cargo deny check --disable-fetch advisories
else
  echo "NOT CHECKED: advisories. Their database cannot be fetched from here; run tests/deny.sh with a network." >&2
fi

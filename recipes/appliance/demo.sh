#!/bin/sh
# Takes a booted appliance through what it is for: brings a file, fine-tunes the model on it, serves what came of it, and
# shows that it answers what it could not answer before. It is run by `gapimage boot --check -- sh demo.sh`, which says in
# GAP_URL, GAP_CA and GAP_TOKEN where the appliance is; `gapctl` is the only other program that it needs.
set -eu
here=$(dirname "$0")
question='Who looks after this appliance?'
expected='Dana in room 12'

say() { printf '\n== %s\n' "$*"; }
ask() { gapctl chat "$1" "$question" --temperature 0 --max-tokens 40; }

gapctl wait >&2
say 'the model of the release is served, and does not know'
server=$(gapctl jobs serve tiny --wait)
before=$(ask tiny)
printf '%s\n   %s\n' "$question" "$before"
gapctl jobs cancel "$server"

say 'a file is brought and checked'
file=$(gapctl files upload "$here/site.jsonl")
printf '%s\n' "$file"

say 'the model is fine-tuned on it'
model=$(gapctl tune create tiny "$file" --suffix site --follow)
printf '%s\n' "$model"

say 'what came of it is served, and knows'
gapctl jobs serve "$model" --wait
after=$(ask "$model")
printf '%s\n   %s\n' "$question" "$after"

case $before in *"$expected"*) say 'it knew before: nothing is shown'; exit 1 ;; esac
case $after in *"$expected"*) say 'done' ;; *) say "it does not say: $expected"; exit 1 ;; esac

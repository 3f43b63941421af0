#!/bin/sh
# Takes a booted appliance through what it is for: brings a file, fine-tunes the model on it, serves what came of it, shows
# that it answers what it could not answer before, measures it by the release's own questions, and gives it a stable name.
#
#     gapimage boot appliance-0.1.0.gap --check -- sh recipes/appliance/demo.sh
#
# `gapimage boot` says by GAPCTL_SERVER, GAPCTL_CA and GAPCTL_TOKEN where the appliance is; `gapctl` must be in PATH.
set -eu
here=$(dirname "$0")
question='Who looks after this appliance?'
expected='Dana in room 12'
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

say() { printf '\n== %s\n' "$*"; }
# What a table of gapctl says on the line that begins with this word.
field() { awk -v name="$1" '$1 == name { print $2; exit }' "$2"; }
ask() {
    answer=$(gapctl chat "$1" "$question" --temperature 0 --max-tokens 40)
    printf '%s\n   %s\n' "$question" "$answer"
}

until gapctl --json health | grep -q '"ready"'; do sleep 1; done

say 'the model of the release is served, and does not know'
gapctl model serve tiny --wait > "$work/server"
ask tiny
before=$answer
gapctl job cancel "$(field id "$work/server")" > "$work/cancelled"

say 'a file is brought and checked'
gapctl file upload "$here/site.jsonl" --wait | tee "$work/file"

say 'the model is fine-tuned on it'
gapctl finetune create tiny "$(field id "$work/file")" --suffix site --wait | tee "$work/tune"
model=$(field makes "$work/tune")

say 'what came of it is served, and knows'
gapctl model serve "$model" --wait > "$work/server"
ask "$model"

say 'it is measured on questions that nothing was trained on, and is good enough for a stable name'
gapctl job create eval --job compare --model "$model" --file dataset:questions --wait > "$work/measured"
gapctl promote "$model" guide --evaluation "$(field id "$work/measured")"
ask guide

case $before in *"$expected"*) say 'it knew before: nothing is shown'; exit 1 ;; esac
case $answer in *"$expected"*) say 'done' ;; *) say "it does not say: $expected"; exit 1 ;; esac

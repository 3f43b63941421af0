#!/usr/bin/env bash
# Fuzzes everything that reads hostile input: tests/fuzz.sh SECONDS [TARGET…]
#
# Each target of fuzz/ runs for so many seconds; all of them unless some are named. Exits with an error as soon as one
# crashes, hangs or takes more than 2 GiB, and says where the input that did it lies. Needs nothing but the pinned
# toolchain and a C++ compiler, for libFuzzer's runtime. `cargo fuzz` can run the targets too.
set -euo pipefail
cd "$(dirname "$0")/.."

seconds=${1:?usage: tests/fuzz.sh SECONDS [TARGET…]}
shift
# libFuzzer takes 0 for no limit.
[[ $seconds =~ ^[1-9][0-9]*$ ]] || { echo "SECONDS must be a whole number of at least 1, not \`$seconds\`" >&2; exit 1; }
targets=("$@")
if [ ${#targets[@]} -eq 0 ]; then
  for source in fuzz/fuzz_targets/*.rs; do targets+=("$(basename "$source" .rs)"); done
fi
command -v c++ >/dev/null || { echo "Missing a C++ compiler: apt-get install --no-install-recommends g++" >&2; exit 1; }

# A target of its own, even though it is this machine's, keeps the counters out of build scripts, which have no runtime.
platform=x86_64-unknown-linux-gnu
RUSTFLAGS="--cfg fuzzing -Cpasses=sancov-module"
for option in level=4 inline-8bit-counters pc-table trace-compares; do
  RUSTFLAGS+=" -Cllvm-args=-sanitizer-coverage-$option"
done
export RUSTFLAGS
export CARGO_TARGET_DIR=$PWD/fuzz/target
# The versions that are tested elsewhere; cargo adds what only the targets need.
cp Cargo.lock fuzz/Cargo.lock
${CARGO:-cargo} build --manifest-path fuzz/Cargo.toml --target $platform "${targets[@]/#/--bin=}"

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
for target in "${targets[@]}"; do mkdir -p "$work/$target"; done

# Seeds: something good of each kind that mutations alone would hardly find.
seed() { mkdir -p "$work/$1"; cat >"$work/$1/$2"; }
sum=$(printf 'a%.0s' {1..64})

mkdir -p "$work/recipe"
cp recipes/*.toml "$work/recipe/"
for layer in layers/*.toml; do cp "$layer" "$work/recipe/layer-$(basename "$layer")"; done
for lock in recipes/*.lock; do
  # The whole of it would make every try slow.
  if [ -e "$lock" ]; then head -n 40 "$lock" | seed lock "$(basename "$lock")"; fi
done
seed lock whole <<EOF
version = 1
source-date = 2026-01-01T00:00:00Z
[[archive]]
suite = "trixie"
codename = "trixie"
date = 2026-01-01T00:00:00Z
sha256 = "sha256:$sum"
[[layer]]
name = "motd"
below = []
request = "sha256:$sum"
[layer.inputs.files]
layer = "sha256:$sum"
size = 8192
EOF
seed site_config whole <<EOF
hostname = "gap-1"
[network]
mode = "static"
interface = "eth0"
address = "192.0.2.7"
prefix = 24
gateway = "192.0.2.1"
dns = ["192.0.2.53", "2001:db8::53"]
[tls]
certificate = "-"
key = "-"
[api]
port = 8443
token_sha256 = "$sum"
EOF
seed copyright machine_readable <<EOF
Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/

Files: *
Copyright: a
License: GPL-2+ or Artistic, and Expat
 On Debian systems, the text is in /usr/share/common-licenses/GPL-2.
EOF
seed copyright prose <<EOF
either version 2 of the License, or (at your option) any later version.

On Debian systems, the text is in "/usr/share/common-licenses/GPL-2".
EOF
seed packages two <<EOF
Package: a
Version: 1:2.0~rc1+b1-3
Architecture: amd64
Multi-Arch: same
Depends: b (>= 1.0), c:any | d [amd64 !i386] <!nocheck>
Provides: virtual (= 2)
Size: 7
SHA256: $sum
Filename: pool/main/a/a/a_2.0_amd64.deb

Package: b
Version: 1.0
Architecture: all
Essential: yes
Priority: required
Installed-Size: 12
Size: 7
SHA256: $sum
Filename: pool/main/b/b_1.0_all.deb
EOF
seed clear_signed whole <<EOF
-----BEGIN PGP SIGNED MESSAGE-----
Hash: SHA512

Suite: trixie
- - a dash
-----BEGIN PGP SIGNATURE-----

wnUEARYKACcFgmZmZmYJEAAAAAAAAAAAFiEEAAAAAAAAAAAAAAAAAAAAAAAAAAAA
AABERAEA
-----END PGP SIGNATURE-----
EOF
printf 'GGUF\3\0\0\0\1\0\0\0\0\0\0\0\1\0\0\0\0\0\0\0\21\0\0\0\0\0\0\0general.alignment\4\0\0\0\40\0\0\0\1\0\0\0\0\0\0\0a\1\0\0\0\10\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0%38s' '' | seed gguf one
printf '\x80\x04\x95\x1c\0\0\0\0\0\0\0\x8c\x02os\x94\x8c\x06system\x94\x93\x94\x8c\x01x\x94\x85R.' | seed pickle new
printf 'cos\nsystem\np0\n(S"true"\nS"x"\ntRg0\n.' | seed pickle old
header='{"__metadata__":{"format":"pt"},"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}'
{ printf "\\x$(printf '%02x' ${#header})\0\0\0\0\0\0\0"; printf '%s12345678' "$header"; } | seed safetensors one
printf -- '---\nlanguage:\n- en\nlicense: other\nlicense_name: &a x\nlicense_link: *a\n---\n# Card\n' | seed model_card one
# The first character chooses the container.
seed data_rows instructions <<EOF
0{"instruction":"a","input":"","output":"b"}
{"instruction":"c\\u00e9","output":5,"system":"s"}
EOF
seed data_rows conversations <<EOF
0{"conversations":[{"from":"human","value":"a"},{"from":"gpt","value":"b"}]}
{"messages":[{"role":"user","content":[{"type":"text","text":"a"}]},{"role":"assistant","content":"b"}],"tools":[{"x":1}]}
EOF
seed data_rows preferences <<EOF
0{"prompt":"p","chosen":"c","rejected":"r"}
{"chosen":[{"role":"user","content":"p"},{"role":"assistant","content":"c"}],"rejected":[{"role":"user","content":"p"},{"role":"assistant","content":"r"}]}
EOF
seed data_rows csv <<EOF
1instruction,output
"a ""b""
c",d
EOF
seed data_rows text <<EOF
7one line

another paragraph
EOF
seed data_pii all <<EOF
jane@example.org, +49 30 1234567, (212) 555-0123 x4, DE89 3704 0044 0532 0130 00, 4111 1111 1111 1111, 2001:db8::1, 192.0.2.7
password="hT7kk29Lmz", https://user:secret@example.org, sk-proj-9fKq2LmXz7RtVbW4cYh8NpSd3GjA6eUo
EOF
# A row of two turns and one of none, as pyarrow writes them.
base64 -d <<EOF | seed data_parquet turns
UEFSMRUEFSoVLkwVBBUAEgAAFVAEAAAAdXNlcgkAAABhc3Npc3RhbnQVABUiFSYsFQYVEBUGFQYcAAAAEUACAAAAAwIEAAAAAyQAAAEDAhUEFRQVGEwVBBUA
EgAACiQBAAAAYQEAAABiFQAVIhUmLBUGFRAVBhUGHAAAABFAAgAAAAMCBAAAAAMkAAABAwIVBBlsNQAYBnNjaGVtYRUCADUCGAhtZXNzYWdlcxUCFQZMPAAA
ADUEGARsaXN0FQIANQIYB2VsZW1lbnQVBAAVDCUCGARyb2xlJQBMHAAAABUMJQIYB2NvbnRlbnQlAEwcAAAAFgQZHBksJgAcFQwZNQAGEBlICG1lc3NhZ2Vz
BGxpc3QHZWxlbWVudARyb2xlFQIWBhaOARaWASZSJggpLBUEFQAVAgAVABUQFQIAPBYaGSYEAhlWAgAAAAQAAAAmABwVDBk1AAYQGUgIbWVzc2FnZXMEbGlz
dAdlbGVtZW50B2NvbnRlbnQVAhYGFngWgAEm0gEmngEpLBUEFQAVAgAVABUQFQIAPBYEGSYEAhlWAgAAAAQAAAAWhgIWBCYIFpYCACggcGFycXVldC1jcHAt
YXJyb3cgdmVyc2lvbiAyNi4wLjEZLBwAABwAAABQAQAAUEFSMQ==
EOF
if command -v dpkg-deb >/dev/null && [ -d "$work/deb" ]; then
  mkdir -p "$work/package/DEBIAN" "$work/package/usr/share/doc/a"
  printf 'Package: a\nVersion: 1\nArchitecture: all\nMaintainer: a <a@example.org>\nDescription: a\n' \
    >"$work/package/DEBIAN/control"
  echo /usr/share/doc/a/copyright >"$work/package/DEBIAN/conffiles"
  echo 'Licence: none' >"$work/package/usr/share/doc/a/copyright"
  ln -s copyright "$work/package/usr/share/doc/a/link"
  ln "$work/package/usr/share/doc/a/copyright" "$work/package/usr/share/doc/a/same"
  for compression in none gzip xz zstd; do
    dpkg-deb --root-owner-group "-Z$compression" --build "$work/package" "$work/deb/$compression.deb" >/dev/null
  done
fi

printf '\0<a href="../../a-1.0-py3-none-any.whl#sha256=%s">x</a>' "$sum" | seed python_package html
printf '\0{"files":[{"filename":"a-1.0-py3-none-any.whl","url":"a.whl","hashes":{"sha256":"%s"},"size":7}]}' "$sum" |
  seed python_package json
printf '\1Metadata-Version: 2.1\nName: a\nVersion: 1.0\nRequires-Dist: b[c]>=1,<2; python_version<"4" and extra=="d"\n' |
  seed python_package metadata
printf '\2"a,b.py",sha256=abc,3\na/RECORD,,\n' | seed python_package record
printf '\3[console_scripts]\na = b.c:D.e [f]\n' | seed python_package programs
printf '\4a_b-1.0+c-2d-cp313-abi3-manylinux_2_17_x86_64.whl' | seed python_package name
if [ -d "$work/wheel" ]; then
  mkdir -p "$work/package/a" "$work/package/a-1.0.dist-info"
  echo 'x = 1' >"$work/package/a/__init__.py"
  echo 'Name: a' >"$work/package/a-1.0.dist-info/METADATA"
  python3 - "$work/package" "$work/wheel" <<'PYTHON'
import pathlib, sys, zipfile
source, target = map(pathlib.Path, sys.argv[1:])
for name, method in ("stored", zipfile.ZIP_STORED), ("deflated", zipfile.ZIP_DEFLATED):
    with zipfile.ZipFile(target / name, "w", method) as archive:
        for path in ("a/__init__.py", "a-1.0.dist-info/METADATA"):
            archive.write(source / path, path)
PYTHON
fi

export TMPDIR=$work
for target in "${targets[@]}"; do
  echo "fuzzing $target for $seconds s"
  mkdir -p "fuzz/artifacts/$target"
  if ! "fuzz/target/$platform/debug/$target" "$work/$target" -max_total_time="$seconds" -timeout=20 \
    -rss_limit_mb=2048 -max_len=65536 -artifact_prefix="fuzz/artifacts/$target/" -print_final_stats=1 \
    >"$work/log" 2>&1; then
    tail -n 60 "$work/log" >&2
    echo "$target failed; the input lies in fuzz/artifacts/$target" >&2
    exit 1
  fi
  grep -E 'DONE +cov:|stat::peak' "$work/log"
done

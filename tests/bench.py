#!/usr/bin/env python3
"""Measures gapimage against other tools in the same run and prints one Markdown table.

Every figure is the median of paired runs (ours, theirs, ours, theirs, …), because machines drift.
    make bench                  all rows
    python3 tests/bench.py verify build    only these
"""
import http.client
import json
import os
import random
import resource
import shutil
import socket
import ssl
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
import urllib.parse
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
GAPIMAGE = ROOT / "target/release/gapimage"
CACHE = Path(os.environ.get("GAPIMAGE_TEST_CACHE", ROOT / ".cache"))
GIB2 = 2_000_000_000
RUNS = 5
# The word by which this program starts itself beside a machine.
INSIDE = "measure-appliance"
# Seconds after which the appliance has put everything away that an ended job left.
PAUSE = 3

OCI_RECIPE = """
[appliance]
name = "bench"
version = "1.0.0"
serial = 1
arch = "x86_64"
trust = "keys/trust.toml"

[image.weights]
layers = ["weights"]

[layer.weights]
files = [{ path = "weights", to = "/weights" }]
"""


def run(*command, **options):
    options.setdefault("stdout", subprocess.DEVNULL)
    options.setdefault("stderr", subprocess.PIPE)
    done = subprocess.run([str(word) for word in command], **options)
    if done.returncode != 0:
        text = (done.stderr or b"").decode(errors="replace")
        raise SystemExit(f"{' '.join(map(str, command))}\nfailed with {done.returncode}:\n{text}")
    return done


def timed(*command, **options):
    """Wall seconds and peak memory (bytes) of a command and its children."""
    start = time.perf_counter()
    process = subprocess.Popen(
        [str(word) for word in command],
        stdout=options.get("stdout", subprocess.DEVNULL), stderr=subprocess.PIPE, cwd=options.get("cwd"),
    )
    text = process.stderr.read()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        raise SystemExit(f"{' '.join(map(str, command))}\nfailed with {process.returncode}:\n{text.decode(errors='replace')}")
    return time.perf_counter() - start, usage.ru_maxrss * 1024


def paired(ours, theirs, runs=RUNS):
    """Median seconds of both and the median of theirs/ours, pair by pair, after one warm-up of each."""
    ours(), theirs()
    pairs = [(ours(), theirs()) for _ in range(runs)]
    return (
        statistics.median(a for a, _ in pairs),
        statistics.median(b for _, b in pairs),
        statistics.median(b / a for a, b in pairs),
    )


def random_file(path, size):
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "wb") as out:
        left = size
        while left:
            chunk = os.urandom(min(left, 1 << 24))
            out.write(chunk)
            left -= len(chunk)


def project(work, size):
    """A recipe with `size` bytes of fresh weights, keys and an own store."""
    (work / "weights").mkdir(parents=True, exist_ok=True)
    random_file(work / "weights/model.safetensors", size)
    (work / "recipe.toml").write_text(OCI_RECIPE)
    if not (work / "keys").exists():
        run(GAPIMAGE, "keygen", work / "keys")
    return work / "recipe.toml"


def build(work, *more):
    return timed(GAPIMAGE, "build", work / "recipe.toml", "-o", work / "out.gap", "--store", work / "store", *more)


def bench_verify(work):
    project(work, GIB2)
    build(work)
    run(GAPIMAGE, "sign", work / "out.gap", "--key", work / "keys/release.key")
    peak = 0

    def ours():
        nonlocal peak
        seconds, memory = timed(GAPIMAGE, "verify", work / "out.gap", "--trust", work / "keys/trust.toml")
        peak = max(peak, memory)
        return seconds

    ours_s, theirs_s, ratio = paired(ours, lambda: timed("openssl", "dgst", "-sha256", work / "out.gap")[0])
    yield ("`verify` of a warm 2 GB artifact", f"{ours_s:.2f} s, {peak / 2**20:.0f} MiB",
           f"`openssl dgst -sha256`: {theirs_s:.2f} s", f"{ratio:.2f}× its speed", "1.6× · 1.9×, < 64 MiB")


def bench_build(work):
    """New weights in every run: nothing of the layer can come from the store."""
    shards = [work / f"shard{i}" for i in range(RUNS + 1)]
    recipe = project(work, 4096)
    build(work)
    turn = iter(shards)

    def ours():
        shard = next(turn)
        random_file(shard, GIB2)
        os.replace(shard, work / "weights/model.safetensors")
        os.sync()
        return build(work)[0]

    synced = []

    def copy():
        """Beside the old copy and then over it, as ours: memory for new pages is dear on a virtual machine."""
        os.sync()
        seconds = timed("cp", "--reflink=never", work / "weights/model.safetensors", work / "copy.new")[0]
        synced.append(seconds + timed("sync", work / "copy.new")[0])
        os.replace(work / "copy.new", work / "copy")
        return seconds

    ours_s, theirs_s, ratio = paired(ours, copy)
    yield ("build with 2 GB of new weights, all else cached", f"{ours_s:.2f} s", f"`cp` of them: {theirs_s:.2f} s",
           f"{1 / ratio:.2f}× its time", "2.0× · 1.2×")
    synced_s = statistics.median(synced)
    yield ("the same, against a copy that is on the disk too", f"{ours_s:.2f} s",
           f"`cp` of them and `sync`: {synced_s:.2f} s", f"{ours_s / synced_s:.2f}× its time", "–")
    (work / "copy").unlink(missing_ok=True)
    again = [build(work)[0] for _ in range(RUNS)]
    yield ("build again, nothing changed", f"{statistics.median(again):.3f} s", "–", "–", "0.3 s · 0.05 s")
    yield from bench_buildah(work, ours_s)
    assert recipe.exists()


def bench_buildah(work, ours_s):
    if not shutil.which("buildah"):
        yield ("the same, ending in one archive", f"{ours_s:.2f} s", "buildah is not installed", "–", "6× · 15×")
        return
    storage = ["--root", work / "containers", "--runroot", work / "run", "--storage-driver", "vfs"]

    def theirs():
        shutil.rmtree(work / "containers", ignore_errors=True)
        (work / "other.tar").unlink(missing_ok=True)
        start = time.perf_counter()
        name = run("buildah", *storage, "from", "scratch", stdout=subprocess.PIPE).stdout.decode().strip()
        run("buildah", *storage, "copy", name, work / "weights", "/weights")
        run("buildah", *storage, "commit", "--disable-compression", name, f"oci:{work}/layout:weights")
        run("skopeo", "copy", f"oci:{work}/layout:weights", f"oci-archive:{work}/other.tar:weights")
        seconds = time.perf_counter() - start
        shutil.rmtree(work / "layout", ignore_errors=True)
        return seconds

    theirs_s = statistics.median(theirs() for _ in range(2))
    yield ("the same, ending in one archive", f"{ours_s:.2f} s",
           f"`buildah copy` + `commit` + `skopeo`: {theirs_s:.1f} s", f"{theirs_s / ours_s:.1f}× faster", "6× · 15×")


def bench_memory(work):
    peaks = []
    for size in (200_000_000, 8_000_000_000):
        project(work, size)
        _, built = build(work)
        run(GAPIMAGE, "sign", work / "out.gap", "--key", work / "keys/release.key")
        _, verified = timed(GAPIMAGE, "verify", work / "out.gap", "--trust", work / "keys/trust.toml")
        peaks.append((built, verified))
    (b0, v0), (b1, v1) = peaks
    mib = 2**20
    yield ("memory of build and verify, 0.2 → 8 GB", f"build {b0 / mib:.0f} → {b1 / mib:.0f} MiB, "
           f"verify {v0 / mib:.0f} → {v1 / mib:.0f} MiB", "itself", f"{b1 / b0:.2f}×, {v1 / v0:.2f}×", "flat")


def bench_debian(work):
    recipe = ROOT / "tests/recipes/hundred.toml"
    listed = (ROOT / "tests/recipes/hundred.txt").read_text().split()
    mirror = subprocess.run(
        ["apt-get", "indextargets", "--format", "$(SITE) $(ORIGIN) $(SUITE)"], capture_output=True, text=True, check=True
    ).stdout
    site = next(line.split()[0] for line in mirror.splitlines() if " Debian " in line and "security" not in line)
    keyring = "/usr/share/keyrings/debian-archive-keyring.gpg"
    aptcache = work / "archives"
    aptcache.mkdir(parents=True, exist_ok=True)
    run(GAPIMAGE, "keygen", work / "keys")
    store = work / "store"
    for name, configure, target in (("with scripts", True, "1.0× · 0.5×"), ("without scripts", False, "0.3× · 0.1×")):
        text = recipe.read_text().replace("configure = true", f"configure = {str(configure).lower()}")
        (work / "recipe.toml").write_text(text.replace("TRUST", "keys/trust.toml"))
        run(GAPIMAGE, "lock", work / "recipe.toml", "--store", store)

        def ours():
            for cold in ("blobs", "records"):
                shutil.rmtree(store / cold, ignore_errors=True)
            (work / "out.gap").unlink(missing_ok=True)
            return build(work)[0]

        def theirs():
            shutil.rmtree(work / "root", ignore_errors=True)
            start = time.perf_counter()
            run("mmdebstrap", "--quiet", "--variant=essential", f"--keyring={keyring}", "--include=" + ",".join(listed),
                "--skip=download/empty,essential/unlink",
                f'--setup-hook=mkdir -p "$1"/var/cache/apt/archives && cp {aptcache}/*.deb "$1"/var/cache/apt/archives/ || true',
                f'--customize-hook=cp -n "$1"/var/cache/apt/archives/*.deb {aptcache}/ || true',
                "trixie", work / "root", f"deb [signed-by={keyring}] {site} trixie main")
            return time.perf_counter() - start

        ours_s, theirs_s, ratio = paired(ours, theirs, runs=3)
        yield (f"Debian root of ~100 packages, {name}", f"{ours_s:.1f} s", f"`mmdebstrap`: {theirs_s:.1f} s",
               f"{1 / ratio:.2f}× its time", target)


def bench_boot(work):
    keys = work / "keys"
    run(GAPIMAGE, "keygen", keys)
    store = CACHE / "store"
    run(GAPIMAGE, "build", ROOT / "recipes/quickstart.toml", "-o", work / "quick.gap", "--trust", keys / "trust.toml",
        "--store", store)
    run(GAPIMAGE, "sign", work / "quick.gap", "--key", keys / "release.key")
    # Until the queue of jobs is open: then the health says `ready`.
    ask = ("until gapctl --json health | grep -q '\"ready\"'; do sleep 0.1; done; "
           f"gapctl request GET /v1/system > '{work}/system.json'")
    path = {"PATH": f"{GAPIMAGE.parent}:{os.environ['PATH']}"}
    kernels, ended = [], []
    for _ in range(3):
        run(GAPIMAGE, "boot", work / "quick.gap", "--trust", keys / "trust.toml", "--check", "--", "sh", "-c", ask,
            stdout=subprocess.PIPE, env=os.environ | path)
        stages = json.loads((work / "system.json").read_text())["stages"]
        kernels.append(min(stage["ended_ms"] for stage in stages))
        ended.append({stage["name"]: stage["ended_ms"] - kernels[-1] for stage in stages})
    rows = (
        ("kernel start to API healthy, minus kernel start to its first userspace", ("API healthy", "network ready"), "1× · 0.3×"),
        ("the same, until it listens on loopback", ("API healthy",), "–"),
        ("the same, with the database of jobs", ("API healthy", "network ready", "jobs ready"), "1.5× · 0.5×"),
    )
    for name, until, target in rows:
        ours = [max(stages[stage] for stage in until) for stages in ended]
        ratio = statistics.median(ms / kernel for ms, kernel in zip(ours, kernels))
        yield (name, f"{statistics.median(ours) / 1000:.2f} s",
               f"the kernel's own start: {statistics.median(kernels) / 1000:.2f} s", f"{ratio:.2f}×", target)


WHEELS_RECIPE = """
[appliance]
name = "bench"
version = "1.0.0"
serial = 1
arch = "x86_64"
trust = "keys/trust.toml"

[image.train]
layers = ["base", "python"]

[layer.base]
debian = {{ suite = "trixie", packages = ["base-files", "libc6", "libstdc++6", "python3"] }}

# What the training environment has besides torch, its CUDA wheels and what needs them.
[layer.python.wheels]
requirements = [
    "transformers", "datasets>=2.15.0", "safetensors>=0.4.3", "tokenizers", "huggingface-hub", "numpy", "tqdm",
    "evaluate>=0.4.6", "wandb", "tensorboard", "optuna", "ray[tune]>=2.7.0",
]
constraints = [{constraint}]
bytecode = {bytecode}
"""


def locked_wheels(work):
    """`NAME==VERSION` of each wheel in the lock."""
    import tomllib

    layers = tomllib.loads((work / "recipe.lock").read_text())["layer"]
    wheels = next(layer["inputs"]["wheels"]["wheel"] for layer in layers if layer["name"] == "python")
    return {wheel["name"]: wheel["version"] for wheel in wheels}


def blob_bytes(work):
    """Name and size of each blob in the artifact: layers, and what belongs to images (metadata, verity trees, documents)."""
    with tarfile.open(work / "out.gap") as archive:
        return {member.name: member.size for member in archive if member.name.startswith("blobs/")}


def wheel_files(work):
    """Links to the wheels of the lock in the store, by the names that they are published under."""
    import tomllib

    links = work / "wheels"
    links.mkdir(exist_ok=True)
    layers = tomllib.loads((work / "recipe.lock").read_text())["layer"]
    for wheel in next(layer["inputs"]["wheels"]["wheel"] for layer in layers if layer["name"] == "python"):
        link, digest = links / wheel["file"], wheel["sha256"].removeprefix("sha256:")
        link.unlink(missing_ok=True)
        link.symlink_to(work / "store/sources/sha256" / digest[:2] / digest)
    return sorted(links.iterdir())


def bench_wheels(work):
    """Before each run the artifact and all layers but the base are removed. Where both unpacked before, uv has what its cache
    keeps of wheels, and the store what it keeps of them and the records of what layers came to; else neither has."""
    run(GAPIMAGE, "keygen", work / "keys")
    store = work / "store"

    def built():
        return {path for part in ("blobs", "records") for path in (store / part).rglob("*") if path.is_file()}

    def write(bytecode, constraint=""):
        text = WHEELS_RECIPE.format(bytecode=str(bytecode).lower(), constraint=constraint)
        (work / "recipe.toml").write_text(text)
        run(GAPIMAGE, "lock", work / "recipe.toml", "--store", store)

    write(False)
    pins = locked_wheels(work)
    base = (work / "recipe.toml").read_text().replace('["base", "python"]', '["base"]').split("# What")[0]
    (work / "base").mkdir()
    (work / "base/recipe.toml").write_text(base.replace("keys/trust.toml", "../keys/trust.toml"))
    run(GAPIMAGE, "build", work / "base/recipe.toml", "-o", work / "base.gap", "--store", store)
    kept = built()
    run(GAPIMAGE, "build", work / "recipe.toml", "-o", work / "out.gap", "--store", store)

    def remembered():
        return set((store / "caches/bytecode").glob("*"))

    def forget(*caches):
        """With caches to forget, the records go too."""
        (work / "out.gap").unlink(missing_ok=True)
        for path in built() - kept:
            if caches or path.parent.name != "records":
                path.unlink()
        for name in caches:
            shutil.rmtree(store / "caches" / name, ignore_errors=True)

    names = [f"{name}=={version}" for name, version in pins.items()]
    uv = shutil.which("uv") or next((store / "caches/tools").glob("*/uv"))
    variants = (
        ("without bytecode, unpacked before", False, ()),
        ("without bytecode, nothing unpacked before", False, ("unpacked",)),
        ("with bytecode", True, ("bytecode",)),
        ("with bytecode that was compiled before", True, ()),
    )
    for what, bytecode, forgotten in variants:
        compiling = ["--compile-bytecode"] if bytecode else []
        write(bytecode)
        anew = ["--no-index", "--cache-dir", work / "uv-cache"] if "unpacked" in forgotten else []
        wanted = wheel_files(work) if anew else names

        def ours():
            forget(*forgotten)
            return build(work)[0]

        def theirs():
            for directory in ("tree", "uv-cache"):
                shutil.rmtree(work / directory, ignore_errors=True)
            (work / "tree.tar").unlink(missing_ok=True)
            seconds = timed(uv, "pip", "install", "--quiet", "--no-deps", "--python-version", "3.13", "--python-platform",
                            "x86_64-manylinux_2_40", "--target", work / "tree", *compiling, *anew, *wanted)[0]
            return seconds + timed("tar", "-C", work / "tree", "-cf", work / "tree.tar", ".")[0]

        ours_s, theirs_s, ratio = paired(ours, theirs, runs=3)
        yield (f"a training environment of {len(pins)} wheels, downloads warm, {what}, to an image", f"{ours_s:.1f} s",
               f"`uv pip install` + `tar`: {theirs_s:.1f} s", f"{1 / ratio:.2f}× its time", "1.0× · 0.5×")
    shutil.rmtree(work / "tree")
    (work / "tree.tar").unlink()
    shares = []
    for _ in range(3):
        write(True)
        forget("bytecode")
        whole = build(work)[0]
        before, known = blob_bytes(work), remembered()
        write(True, f'"tqdm<{pins["tqdm"]}"')
        changed = build(work)[0]
        after = blob_bytes(work)
        for path in remembered() - known:
            shutil.rmtree(path)
        new = sum(size for digest, size in after.items() if digest not in before)
        shares.append((changed / whole, new / sum(after.values()), changed, whole))
    time_share, byte_share, changed, whole = (statistics.median(column) for column in zip(*shares))
    yield (f"one wheel of {len(pins)} changes", f"{changed:.1f} s", f"building all: {whole:.1f} s",
           f"{time_share:.0%} of time, {byte_share:.0%} of bytes", "20 % · 5 %")


SHARDS_RECIPE = """
[appliance]
name = "bench"
version = "1.0.0"
serial = 1
arch = "x86_64"
trust = "keys/trust.toml"

[model.weights]
path = "model"
"""
SHARD = 1_000_000_000


def shard(path, number):
    """Safetensors of one tensor of random bytes."""
    header = json.dumps({f"layer{number}": {"dtype": "U8", "shape": [SHARD], "data_offsets": [0, SHARD]}}).encode()
    random_file(path, SHARD)
    content = path.with_suffix(".content")
    path.rename(content)
    with open(path, "wb") as out, open(content, "rb") as tensor:
        out.write(len(header).to_bytes(8, "little") + header)
        shutil.copyfileobj(tensor, out, 1 << 24)
    content.unlink()


def bench_shard(work):
    """A model of four shards of which one changes: what is new in the artifact."""
    run(GAPIMAGE, "keygen", work / "keys")
    (work / "recipe.toml").write_text(SHARDS_RECIPE)
    model = work / "model"
    model.mkdir()
    names = [f"model-{number}-of-00004.safetensors" for number in ("00001", "00002", "00003", "00004")]
    for number, name in enumerate(names):
        shard(model / name, number)
    index = {"metadata": {}, "weight_map": {f"layer{number}": name for number, name in enumerate(names)}}
    (model / "model.safetensors.index.json").write_text(json.dumps(index))
    (model / "config.json").write_text('{"model_type": "bench", "quantization_config": {"quant_method": "none"}}')
    (model / "tokenizer.json").write_text("{}")
    whole = build(work)[0]
    before = blob_bytes(work)
    shard(model / names[2], 2)
    changed = build(work)[0]
    after = blob_bytes(work)
    new = sum(size for name, size in after.items() if name not in before)
    yield (f"4 shards × {SHARD / 1e9:g} GB, one changes", f"{new:,} new bytes, {changed:.1f} s",
           f"that shard: {SHARD:,} bytes; building all: {whole:.1f} s", f"{new / SHARD:.4f}× its bytes", "1.05× · 1.01×")


def bench_check(work):
    """The checklist of a recipe whose layers were built and looked through."""
    shutil.copytree(ROOT / "recipes", work / "recipes")
    shutil.copytree(ROOT / "layers", work / "layers")
    run(GAPIMAGE, "keygen", work / "keys")
    recipe, store = work / "recipes/transformers-training.toml", CACHE / "store"
    run(GAPIMAGE, "build", recipe, "-o", work / "out.gap", "--trust", work / "keys/trust.toml", "--store", store)
    run(GAPIMAGE, "check", recipe, "--store", store)
    again = statistics.median(timed(GAPIMAGE, "check", recipe, "--store", store)[0] for _ in range(RUNS))
    yield ("`check` of `recipes/transformers-training.toml`, lock warm", f"{again:.2f} s", "–",
           "–", "2 s · 0.3 s")


# datasketch, in its own fastest way, with the same runs of three words.
DATASKETCH = """
import sys
from datasketch import MinHash, MinHashLSH
path, permutations, threshold = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])

def shingles(line):
    words = line.lower().split()
    return [" ".join(words[at:at + 3]).encode() for at in range(max(1, len(words) - 2))]

lsh = MinHashLSH(threshold=threshold, num_perm=permutations)
found = 0
with open(path, encoding="utf-8") as lines:
    for number, signature in enumerate(MinHash.generator(map(shingles, lines), num_perm=permutations)):
        if lsh.query(signature):
            found += 1
        else:
            lsh.insert(number, signature)
print(found)
"""
EXAMPLES = 1_000_000


def short_examples(path, count):
    """Lines of 8 to 40 words; one in five is an earlier line with a word changed."""
    chance = random.Random(1)
    vocabulary = ["".join(chance.choices("abcdefghijklmnopqrstuvwxyz", k=chance.randint(2, 9))) for _ in range(30_000)]
    recent = []
    with open(path, "w", encoding="utf-8") as out:
        for number in range(count):
            if recent and number % 5 == 0:
                words = list(chance.choice(recent))
                words[chance.randrange(len(words))] = chance.choice(vocabulary)
            else:
                words = chance.choices(vocabulary, k=chance.randint(8, 40))
                recent.append(words)
                del recent[:-1000]
            out.write(" ".join(words) + "\n")


def python_with(package):
    """A Python of its own with a package, in the cache."""
    venv = CACHE / package.replace("==", "-")
    python = venv / "bin/python"
    name = package.split("==")[0]
    if not python.exists() or subprocess.run([python, "-c", f"import {name}"], stderr=subprocess.DEVNULL).returncode:
        run(sys.executable, "-m", "venv", venv)
        run(python, "-m", "pip", "install", "--quiet", package)
    return python


def bench_duplicates(work):
    run("cargo", "build", "--release", "--locked", "-p", "gap-data", "--example", "near_duplicates", cwd=ROOT)
    python = python_with("datasketch==2.0.0")
    short_examples(work / "examples.txt", EXAMPLES)
    (work / "theirs.py").write_text(DATASKETCH)

    def ours():
        return timed(ROOT / "target/release/examples/near_duplicates", work / "examples.txt", "0.8", "128")

    theirs_s, theirs_memory = timed(python, work / "theirs.py", work / "examples.txt", "128", "0.8")
    ours()
    runs = [ours() for _ in range(RUNS)]
    ours_s, ours_memory = statistics.median(seconds for seconds, _ in runs), max(memory for _, memory in runs)
    yield (f"near-duplicates among {EXAMPLES // 1_000_000} M short examples", f"{ours_s:.1f} s, {ours_memory / 2**20:.0f} MiB",
           f"`datasketch` (128 permutations, 0.8): {theirs_s:.0f} s, {theirs_memory / 2**20:.0f} MiB",
           f"{theirs_s / ours_s:.0f}× faster", "10× · 30×")


def training_rows(kind, count, vocabulary):
    """Examples as [tokens, first token that counts]."""
    chance = random.Random(2)
    draw = lambda low, high: [chance.randrange(vocabulary) for _ in range(chance.randint(low, high))]
    if kind == "answers":
        pairs = [(draw(60, 300), draw(20, 200)) for _ in range(count)]
        return [[prompt + answer, len(prompt)] for prompt, answer in pairs]
    return [[draw(256, 256), 0] for _ in range(count)]


def in_root(root, *command):
    """A command in a Debian root. It has /proc: without it PyTorch does not find the vector units of the processor."""
    inside = 'mount -t proc proc "$0/proc" && exec chroot "$0" env "$@"'
    return run("unshare", "--mount", "bash", "-c", inside, root, *command, stdout=subprocess.PIPE).stdout.decode()


# Shapes of models for training: parameters in millions, and how `gap-train init` is told.
TRAINED = {29: "--hidden 512 --layers 8 --heads 8 --key-heads 4 --intermediate 1536 --vocab 8000",
           98: "--hidden 768 --layers 12 --heads 12 --key-heads 4 --intermediate 2304 --vocab 16000"}


def vocabulary_of(model):
    return json.loads((model / "config.json").read_text())["vocab_size"]


def training_model(model, size):
    """A model whose tokens are the words `t0`, `t1`, …"""
    lines = model.parent / "words.txt"
    short_examples(lines, 20_000)
    lines.with_suffix(".jsonl").write_text("".join(json.dumps({"text": line}) + "\n" for line in lines.read_text().splitlines()))
    run(ROOT / "target/release/gap-train", "init", model, *TRAINED[size].split(), "--vocab-from", lines.with_suffix(".jsonl"))
    words = {f"t{token}": token for token in range(vocabulary_of(model))}
    (model / "tokenizer.json").write_text(json.dumps({
        "version": "1.0", "truncation": None, "padding": None, "added_tokens": [], "normalizer": None,
        "pre_tokenizer": {"type": "WhitespaceSplit"}, "post_processor": None, "decoder": None,
        "model": {"type": "WordLevel", "vocab": words, "unk_token": "t0"}}))
    (model / "tokenizer_config.json").unlink()


def training_job(work, kind, size, steps=6, batch=8):
    """A job for a model of `size` million parameters."""
    if not (work / "model").exists():
        training_model(work / "model", size)
    rows = training_rows(kind, steps * batch, vocabulary_of(work / "model"))
    text = lambda tokens: "".join(f" t{token}" for token in tokens)
    (work / f"{kind}.rows").write_text(json.dumps(rows))
    (work / f"{kind}.jsonl").write_text("".join(
        json.dumps({"prompt": text(tokens[:first]), "completion": text(tokens[first:])}) + "\n" for tokens, first in rows))
    job = {"model": "model", "training_file": f"{kind}.jsonl", "output": f"{kind}.out", "max_steps": steps, "batch_size": batch,
           "learning_rate": 1e-4, "shuffle": False, "dtype": "float32", "lora": {"r": 16, "alpha": 32}}
    (work / f"{kind}.json").write_text(json.dumps(job))
    return work / f"{kind}.json"


def train_ours(job):
    """Seconds to the first step, tokens a second over the later ones, losses, peak of memory."""
    out = job.with_suffix(".out")
    shutil.rmtree(out, ignore_errors=True)
    began = time.perf_counter()
    process = subprocess.Popen([ROOT / "target/release/gap-train", "run", job], env={**os.environ, "RAYON_NUM_THREADS": "2"})
    while process.poll() is None and not (out / "events.jsonl").exists():
        time.sleep(0.0005)
    while process.poll() is None and not (out / "events.jsonl").stat().st_size:
        time.sleep(0.0005)
    start = time.perf_counter() - began
    if process.wait() != 0:
        raise SystemExit(f"gap-train run {job} failed")
    rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    seconds = sum(row["tokens"] / row["tokens_per_second"] for row in rows[1:])
    return {"start": start, "tokens_per_second": sum(row["tokens"] for row in rows[1:]) / seconds,
            "losses": [row["train_loss"] for row in rows], "memory": rows[-1]["memory"]}


def train_theirs(job, root):
    place = root / "work/bench"
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True)
    shutil.copytree(job.parent / "model", place / "model")
    shutil.copy(ROOT / "tests/training/peft_trainer.py", place)
    shutil.copy(job.with_suffix(".rows"), place / "rows.json")
    (place / "job.json").write_text(json.dumps({**json.loads(job.read_text()), "model": "/work/bench/model"}))
    printed = in_root(root, "PYTHONPATH=/opt/site:/opt/peft", "OMP_NUM_THREADS=2", "HF_HUB_OFFLINE=1", "python3",
                      "/work/bench/peft_trainer.py", "/work/bench/job.json", "/work/bench/rows.json")
    return json.loads(printed.splitlines()[-1])


def bench_training(work):
    run("cargo", "build", "--release", "--workspace", "--locked", "--bin", "gap-train", cwd=ROOT)
    root = CACHE / "torch"
    run(ROOT / "tests/peft.sh", root)
    kinds = {"answers": "answers of 20–200 tokens to prompts of 60–300", "plain": "rows of 256 tokens that all count"}
    mib = 2**20
    for size in TRAINED:
        place = work / str(size)
        place.mkdir()
        for kind, name in kinds.items():
            job = training_job(place, kind, size)
            train_ours(job)
            pairs = [(train_ours(job), train_theirs(job, root)) for _ in range(3)]
            ours, theirs = (
                {part: statistics.median(run[part] for run in side) for part in ("tokens_per_second", "memory", "start")}
                for side in zip(*pairs)
            )
            ratio = lambda part: statistics.median(a[part] / b[part] for a, b in pairs)
            yield (f"LoRA on {size} M parameters in f32, 2 cores, {name}", f"{ours['tokens_per_second']:.0f} tokens/s",
                   f"PEFT + HF Trainer: {theirs['tokens_per_second']:.0f} tokens/s", f"{ratio('tokens_per_second'):.2f}×", "1.0× · 2×")
            yield ("the same: peak memory", f"{ours['memory'] / mib:.0f} MiB", f"{theirs['memory'] / mib:.0f} MiB",
                   f"{ratio('memory'):.2f}×", "0.8× · 0.6×")
            yield ("the same: process start to first step", f"{ours['start']:.2f} s", f"{theirs['start']:.2f} s",
                   f"{1 / ratio('start'):.0f}× faster", "5× · 20×")
        packed = place / "packed.json"
        packed.write_text(json.dumps({**json.loads(job.read_text()), "quantization": "nf4", "output": "packed.out"}))
        ours_packed = train_ours(packed)
        yield (f"QLoRA on {size} M parameters, {name}: peak memory", f"{ours_packed['memory'] / mib:.0f} MiB",
               f"its own LoRA in f32: {ours['memory'] / mib:.0f} MiB", f"{ours_packed['memory'] / ours['memory']:.2f}×", "–")


def stream_of(program, model, kind, count):
    """Seconds from the start of gap-serve to the first token of a prompt of 64, and tokens a second after it."""
    with tempfile.TemporaryDirectory() as work:
        path = Path(work) / "socket"
        began = time.time()
        server = subprocess.Popen(
            [program, f"--model=m={model}", f"--listen=unix:{path}", f"--weights={kind}", "--threads=2"], stderr=subprocess.DEVNULL,
        )
        try:
            connection = socket.socket(socket.AF_UNIX)
            while connection.connect_ex(str(path)) != 0:
                time.sleep(0.001)
            body = json.dumps(dict(
                model="m", prompt=list(range(5, 69)), max_tokens=count, temperature=0, ignore_eos=True, stream=True, logprobs=0,
            ))
            head = f"POST /v1/completions HTTP/1.0\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
            connection.sendall((head + body).encode())
            times = [time.time() for line in connection.makefile("rb") if line.startswith(b"data: {")]
        finally:
            server.terminate()
            server.wait()
    # The last piece says only why it ended.
    times = times[:count]
    return times[0] - began, (len(times) - 1) / (times[-1] - times[0])


def transformers_stream(root, model, kind, count):
    """The same of unmodified Transformers."""
    shutil.copy(ROOT / "tests/decode.py", root / "work/decode.py")
    printed = in_root(root, "PYTHONPATH=/opt/site", f"BEGAN={time.time()}", "python3", "/work/decode.py", "run", model, kind, "2",
                      count)
    return [float(number) for number in printed.split()[-2:]]


def bench_serving(work):
    run("cargo", "build", "--release", "--workspace", "--locked", "--bin", "gap-serve", cwd=ROOT)
    root, program, count = CACHE / "torch", ROOT / "target/release/gap-serve", 129
    run(ROOT / "tests/torch.sh", root)
    (root / "work").mkdir(exist_ok=True)
    if not (root / "work/decoder-bf16").exists():
        shutil.copy(ROOT / "tests/decode.py", root / "work/decode.py")
        in_root(root, "PYTHONPATH=/opt/site", "python3", "/work/decode.py", "make", "/work/decoder")
    for kind, word in [("float32", "f32"), ("bfloat16", "bf16")]:
        name = "decoder" if word == "f32" else "decoder-bf16"
        model = root / "work" / name
        shutil.copy(ROOT / "appliance/lm/tests/reference/tokenizer.json", model / "tokenizer.json")
        stream_of(program, model, "stored", 9)
        pairs = [(stream_of(program, model, "stored", count), transformers_stream(root, f"/work/{name}", kind, count))
                 for _ in range(RUNS)]
        (ours_first, ours_rate), (theirs_first, theirs_rate) = (
            [statistics.median(run[part] for run in side) for part in (0, 1)] for side in zip(*pairs)
        )
        yield (f"decoding with 110 M parameters in {word}, 2 threads", f"{ours_rate:.1f} tokens/s",
               f"Transformers: {theirs_rate:.1f} tokens/s", f"{ours_rate / theirs_rate:.2f}× faster", "1.2× · 3×")
        yield (f"process start to first token of the same, prompt of 64", f"{ours_first:.2f} s",
               f"Transformers: {theirs_first:.2f} s", f"{theirs_first / ours_first:.0f}× faster", "5× · 20×")
    _, rate = stream_of(program, root / "work/decoder", "q8", count)
    yield ("decoding the same with 8 bits", f"{rate:.1f} tokens/s", "–", "–", "–")


class Appliance:
    """The appliance that `gapimage boot --check` leads its program to."""

    def __init__(self):
        self.token, self.connection = os.environ["GAPCTL_TOKEN"], None
        self.audited = self.submitted = 0
        self.address = urllib.parse.urlsplit(os.environ["GAPCTL_SERVER"]).netloc
        self.context = ssl.create_default_context(cafile=os.environ["GAPCTL_CA"])

    def ask(self, path, body=None):
        """Over one connection, which the appliance ends now and then."""
        for _ in range(2):
            if self.connection is None:
                self.connection = http.client.HTTPSConnection(self.address, context=self.context, timeout=300)
            try:
                self.connection.request(
                    "GET" if body is None else "POST", path, None if body is None else json.dumps(body),
                    {"Authorization": f"Bearer {self.token}", "Content-Type": "application/json"},
                )
                answer = self.connection.getresponse()
                text = answer.read()
                assert answer.status < 300, (path, answer.status, text)
                return json.loads(text)
            except (http.client.HTTPException, ConnectionError):
                self.connection = None
        raise SystemExit(f"{path} is not answered")

    def submit(self, job, **more):
        return self.ask("/v1/appliance/jobs", {"kind": "run", "job": job, **more})["id"]

    def ended(self, job):
        while True:
            state = self.ask(f"/v1/appliance/jobs/{job}")["state"]
            if state in ("succeeded", "failed", "cancelled"):
                return state
            time.sleep(0.2)

    def last_submission(self):
        """When the last job was submitted, in milliseconds since 1970 by the machine's clock."""
        while records := self.ask(f"/v1/appliance/audit?limit=1000&after={self.audited}")["data"]:
            self.audited = records[-1]["number"]
            submissions = [entry["at"] for entry in (record["entry"] for record in records)
                           if entry["what"] == "POST /v1/appliance/jobs" and entry["outcome"] == "asked"]
            self.submitted = max([self.submitted, *submissions])
        return self.submitted

    def lines(self, job):
        return [line["text"] for line in self.ask(f"/v1/appliance/jobs/{job}/log?after=0")["lines"]]

    def says(self, job, **more):
        """What a job prints, once it has ended well."""
        job = self.submit(job, **more)
        assert self.ended(job) == "succeeded", self.lines(job)
        return self.lines(job)

    def agent_memory(self):
        """Resident memory of the agent, bytes."""
        status = dict(line.split(":", 1) for line in self.says("status") if ":" in line)
        return int(status["VmRSS"].split()[0]) * 1024


def measure_appliance():
    """Run by `gapimage boot --check` beside the machine; prints one JSON object."""
    machine = Appliance()
    while machine.ask("/healthz")["jobs"] != "ready":
        time.sleep(0.5)
    machine.says("first")
    time.sleep(10)
    idle = machine.agent_memory()

    ours, inside, theirs = [], [], []
    for _ in range(3):
        for line in machine.says("crun", env={"TIMES": str(RUNS)})[1:]:
            before, began = line.split()
            theirs.append(float(began) - float(before))
        for _ in range(RUNS):
            seen, own = first_line(machine)
            ours.append(seen)
            inside.append(own)

    root = machine.submit("stubborn")
    for _ in range(1000):
        machine.submit("nothing", needs=[root])
    machine.ask(f"/v1/appliance/jobs/{root}/cancel", {})
    machine.ended(root)
    while any(job["state"] == "queued" for job in machine.ask("/v1/appliance/jobs?limit=5")["data"]):
        time.sleep(0.5)
    machine.ask("/v1/appliance/jobs?limit=100")
    print(json.dumps({"idle": idle, "history": machine.agent_memory(), "ours": ours, "inside": inside,
                      "theirs": theirs}))


def first_line(machine):
    """Seconds until the first line of a job is here, from before the request that submits it; and by the machine's own clock,
    by which crun's are counted, from when it has the request until it has the line. Nothing else happens meanwhile."""
    time.sleep(PAUSE)
    start = time.perf_counter()
    job = machine.submit("first")
    line = machine.ask(f"/v1/appliance/jobs/{job}/log?after=0&follow=true&limit=1")
    seen = time.perf_counter() - start
    machine.ended(job)
    return seen, (line["at"] - machine.last_submission()) / 1000


def bench_appliance(work):
    keys = work / "keys"
    run(GAPIMAGE, "keygen", keys)
    run(GAPIMAGE, "build", ROOT / "tests/faults/recipe.toml", "-o", work / "faults.gap", "--trust", keys / "trust.toml",
        "--store", CACHE / "store")
    run(GAPIMAGE, "sign", work / "faults.gap", "--key", keys / "release.key")
    with open(work / "data.img", "wb") as disk:
        disk.truncate(2 << 30)
    text = run(GAPIMAGE, "boot", work / "faults.gap", "--trust", keys / "trust.toml", "--data", work / "data.img", "--check",
               "--", sys.executable, __file__, INSIDE, stdout=subprocess.PIPE).stdout.decode()
    measured = json.loads(next(line for line in text.splitlines() if line.startswith('{"idle"')))
    mib = 2**20
    yield ("the agent's memory, idle", f"{measured['idle'] / mib:.1f} MiB", "–", "–", "40 · 15 MiB")
    yield ("the same with 1,000 jobs in its history", f"{measured['history'] / mib:.1f} MiB", "–", "–", "60 · 25 MiB")
    ours, inside, theirs = (statistics.median(measured[side]) for side in ("ours", "inside", "theirs"))
    crun = f"`crun run` of the same bundle in the same machine: {theirs:.2f} s"
    yield ("a job is submitted → its first line is read by the client", f"{ours:.2f} s", crun, f"{ours / theirs:.2f}×", "2× · 1×")
    yield ("the same by the machine's own clock, as crun's", f"{inside:.2f} s", crun, f"{inside / theirs:.2f}×", "2× · 1×")


# How nginx stands before a server of models: TLS of a certificate of the same kind, and no buffers.
NGINX = """
worker_processes 2; pid /work/pid; error_log stderr; daemon off; user root;
events {{ worker_connections 1024; }}
http {{
  access_log off;
  server {{
    listen 127.0.0.1:{port} ssl;
    ssl_certificate /work/certificate.pem; ssl_certificate_key /work/key.pem;
    location / {{ proxy_pass http://unix:/work/server; proxy_http_version 1.1; proxy_buffering off; }}
  }}
}}
"""


def processor_time(pids):
    """Seconds of the processor that these have taken."""
    ticks = 0
    for pid in pids:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def agent_tests():
    """The program of the agent's tests."""
    built = run("cargo", "test", "--release", "--workspace", "--locked", "--test", "agent", "--no-run", "--message-format=json",
                cwd=ROOT, stdout=subprocess.PIPE).stdout.decode()
    messages = (json.loads(line) for line in built.splitlines() if line.startswith("{"))
    return next(message["executable"] for message in messages if message.get("executable"))


def bench_overhead(work):
    """What the API adds to streams of a served model, against nginx. A program stands for the server that has its next token
    as soon as it is rid of the last one, so that nothing but the ways differ."""
    streams = ROOT / "tests/streams.py"
    root = CACHE / "nginx"
    run(ROOT / "tests/nginx.sh", root)
    place = root / "work"
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir()
    run("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2", "-keyout",
        place / "key.pem", "-out", place / "certificate.pem", "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    (place / "nginx.conf").write_text(NGINX.format(port=port))
    started = []
    try:
        agent = subprocess.Popen([agent_tests(), "--ignored", "--exact", "overhead::a_served_model_is_reached_through_the_api",
                                  "--nocapture"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        started.append(agent)
        api = json.loads(next(line for line in agent.stdout if line.startswith("{")))
        started.append(subprocess.Popen([sys.executable, streams, "serve", place / "server", api["socket"]]))
        while not os.path.exists(api["socket"]):
            time.sleep(0.01)
        agent.stdin.write("\n")
        agent.stdin.flush()
        assert json.loads(next(line for line in agent.stdout if line.startswith("{"))) == {"ready": 1}
        nginx = subprocess.Popen(["chroot", root, "nginx", "-c", "/work/nginx.conf"])
        started.append(nginx)
        while socket.socket().connect_ex(("127.0.0.1", port)) != 0:
            time.sleep(0.01)
        workers = Path(f"/proc/{nginx.pid}/task/{nginx.pid}/children").read_text().split()
        (work / "api.pem").write_text(ssl.DER_cert_to_PEM_cert(Path(api["certificate"]).read_bytes()))
        ways = {
            "direct": ([f"unix:{place}/server"], []),
            "api": ([api["address"], work / "api.pem", api["token"]], [api["pid"]]),
            "nginx": ([f"127.0.0.1:{port}", place / "certificate.pem"], workers),
        }

        def ask(name, pause):
            """What the clients see, and seconds of the processor on the way."""
            words, pids = ways[name]
            before = processor_time(pids)
            seen = json.loads(run(sys.executable, streams, "ask", pause, *words, stdout=subprocess.PIPE).stdout)
            return {**seen, "processor": processor_time(pids) - before}

        def rounds(pause):
            for name in ways:
                ask(name, pause)
            return [{name: ask(name, pause) for name in ways} for _ in range(RUNS)]

        full, paced = rounds(0), rounds(0.02)
    finally:
        for process in reversed(started):
            process.terminate()
            process.wait()

    def middle(runs, what, name):
        return statistics.median(one[name][what] for one in runs)

    def added(runs, what):
        return [statistics.median(one[name][what] - one["direct"][what] for one in runs) for name in ("api", "nginx")]

    ours, theirs, direct = (middle(full, "seconds", name) for name in ("api", "nginx", "direct"))
    yield (f"64 streams as fast as they go, {direct:.2f} s with nothing between", f"through the API: {ours:.2f} s",
           f"through nginx: {theirs:.2f} s", f"{ours / theirs:.2f}×", "1.5× · 1.0×")
    ours, theirs = middle(full, "processor", "api"), middle(full, "processor", "nginx")
    yield ("the same: processor time", f"{ours:.2f} s", f"nginx: {theirs:.2f} s", f"{ours / theirs:.2f}×", "1.5× · 1.0×")
    direct = middle(paced, "median", "direct")
    ours, theirs = added(paced, "median")
    yield (f"64 streams of 50 tokens a second, {direct * 1000:.2f} ms from server to client: added by the API",
           f"{ours * 1000:.2f} ms", f"by nginx: {theirs * 1000:.2f} ms", f"{ours / theirs:.2f}×", "1.5× · 1.0×")
    ours, theirs = middle(paced, "processor", "api"), middle(paced, "processor", "nginx")
    yield ("the same: processor time", f"{ours:.2f} s", f"nginx: {theirs:.2f} s", f"{ours / theirs:.2f}×", "1.5× · 1.0×")


BENCHES = {"verify": bench_verify, "build": bench_build, "memory": bench_memory, "debian": bench_debian, "boot": bench_boot,
           "wheels": bench_wheels, "shard": bench_shard, "check": bench_check, "duplicates": bench_duplicates,
           "serving": bench_serving, "training": bench_training, "appliance": bench_appliance,
           "overhead": bench_overhead}


def main():
    if sys.argv[1:] == [INSIDE]:
        measure_appliance()
        return
    wanted = sys.argv[1:] or list(BENCHES)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    print("| what | gapimage | against | ratio | reach · aim |\n|---|---|---|---|---|", flush=True)
    for name in wanted:
        with tempfile.TemporaryDirectory(prefix="gapimage-bench-", dir=os.environ.get("TMPDIR", "/var/tmp")) as work:
            for row in BENCHES[name](Path(work)):
                print("| " + " | ".join(row) + " |", flush=True)


if __name__ == "__main__":
    main()

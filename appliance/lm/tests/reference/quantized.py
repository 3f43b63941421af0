#!/usr/bin/env python3
"""Makes quantized.json beside this file: what ggml's own Python package (gguf) reads out of blocks of each type.

Run where gguf and numpy are:  quantized.py OUTPUT_DIRECTORY
"""

import json
import os
import sys

import numpy
from gguf import GGMLQuantizationType as Type, dequantize
from gguf.constants import GGML_QUANT_SIZES

# Where the 16-bit scales lie in a block; the other bytes may be anything.
SCALES = {
    Type.Q4_0: [0], Type.Q4_1: [0, 2], Type.Q5_0: [0], Type.Q5_1: [0, 2], Type.Q8_0: [0], Type.Q2_K: [80, 82],
    Type.Q3_K: [108], Type.Q4_K: [0, 2], Type.Q5_K: [0, 2], Type.Q6_K: [208],
}
WIDTH = 256

random = numpy.random.default_rng(1)
rows = []
for kind, scales in SCALES.items():
    block, size = GGML_QUANT_SIZES[kind]
    blocks = random.integers(0, 256, (WIDTH // block, size), dtype=numpy.uint8)
    for offset in scales:
        values = random.uniform(0.001, 0.1, len(blocks)).astype(numpy.float16)
        blocks[:, offset:offset + 2] = values.view(numpy.uint8).reshape(-1, 2)
    data = blocks.reshape(1, -1)
    values = dequantize(data, kind).astype(numpy.float32).reshape(-1)
    rows.append({"name": kind.name, "type": int(kind), "bytes": data.tobytes().hex(), "values": values.tobytes().hex()})
with open(os.path.join(sys.argv[1], "quantized.json"), "w") as out:
    json.dump(rows, out, indent=1)
    out.write("\n")

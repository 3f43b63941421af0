"""Counts the tokens of conversations by unmodified Transformers and prints the most of one and the sum of all as JSON.

usage: count_tokens.py MODEL PARTS.json"""
import json
import sys

from transformers import AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained(sys.argv[1])
lengths = [
    sum(len(tokenizer(turn["content"], add_special_tokens=False)["input_ids"]) for turn in row["messages"])
    for part in json.load(open(sys.argv[2], encoding="utf-8"))
    for row in part
]
print(json.dumps({"most": max(lengths), "total": sum(lengths)}))

"""Classifies each argument and prints a line of JSON for it: label and score."""
import json
import os
import sys

from transformers import pipeline

classifier = pipeline("sentiment-analysis", model=os.environ["MODEL"])
for text in sys.argv[1:]:
    print(json.dumps({"text": text, **classifier(text)[0]}))

"""Makes a small DistilBERT sentiment classifier with Transformers itself and trains it until its labels differ.

usage: make_model.py DIR"""
import sys

import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
from transformers import DistilBertConfig, DistilBertForSequenceClassification, PreTrainedTokenizerFast

GOOD = ["great", "fantastic", "lovely", "happy", "excellent", "wonderful", "pleasant", "good"]
BAD = ["awful", "terrible", "sad", "horrible", "dreadful", "broken", "painful", "bad"]
FRAMES = ["this is a {} day", "what a {} solution", "the weather was {}", "I had a {} time", "a {} idea"]

directory = sys.argv[1]
torch.manual_seed(7)
torch.set_num_threads(1)
texts = [(frame.format(word), label) for label, words in enumerate([BAD, GOOD]) for word in words for frame in FRAMES]

tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
tokenizer.normalizer = normalizers.BertNormalizer()
tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
tokenizer.train_from_iterator([text for text, _ in texts], trainers.WordPieceTrainer(vocab_size=400, special_tokens=special))
ends = [(token, tokenizer.token_to_id(token)) for token in ("[CLS]", "[SEP]")]
tokenizer.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=ends)
fast = PreTrainedTokenizerFast(
    tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]",
    mask_token="[MASK]", model_max_length=64,
)

config = DistilBertConfig(
    vocab_size=tokenizer.get_vocab_size(), dim=64, hidden_dim=128, n_layers=2, n_heads=4, max_position_embeddings=64,
    dropout=0.0, attention_dropout=0.0, seq_classif_dropout=0.0,
    id2label={0: "NEGATIVE", 1: "POSITIVE"}, label2id={"NEGATIVE": 0, "POSITIVE": 1},
)
model = DistilBertForSequenceClassification(config)
optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
batch = fast([text for text, _ in texts], padding=True, return_tensors="pt")
inputs = {name: batch[name] for name in ("input_ids", "attention_mask")}
labels = torch.tensor([label for _, label in texts])
for step in range(60):
    result = model(**inputs, labels=labels)
    right = (result.logits.argmax(-1) == labels).float().mean().item()
    if right == 1.0 and result.loss.item() < 0.05:
        break
    optimizer.zero_grad()
    result.loss.backward()
    optimizer.step()
assert right == 1.0, right
model.save_pretrained(directory)
fast.save_pretrained(directory)
print(f"trained {step} steps, loss {result.loss.item():.4f}")

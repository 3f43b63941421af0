import json
import math

import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained("tiny/model")
base = AutoModelForCausalLM.from_pretrained("tiny/model", dtype=torch.float32)
rows = [json.loads(line) for line in open("tiny/validation.jsonl")]


def measure(model):
    loss = tokens = 0
    answers = []
    for row in rows:
        turns = [{"role": "user", "content": f"{row['instruction']}\n\n{row['input']}"}]
        prompt = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
        whole = tokenizer.apply_chat_template(
            turns + [{"role": "assistant", "content": row["output"]}], tokenize=False
        )
        before = tokenizer(prompt, add_special_tokens=False)["input_ids"]
        ids = torch.tensor([tokenizer(whole, add_special_tokens=False)["input_ids"]])
        with torch.no_grad():
            chances = model(ids).logits.log_softmax(-1)[0]
        for place in range(len(before), ids.shape[1]):
            loss -= chances[place - 1, ids[0, place]].item()
            tokens += 1
        given = torch.tensor([before])
        made = model.generate(given, attention_mask=torch.ones_like(given), max_new_tokens=8, do_sample=False)
        answers.append(tokenizer.decode(made[0][len(before):], skip_special_tokens=True).strip())
    return {"perplexity": math.exp(loss / tokens), "answers": answers}


found = {"base": measure(base)}
found["new"] = measure(PeftModel.from_pretrained(base, "out-learn/adapter"))
print(json.dumps(found))

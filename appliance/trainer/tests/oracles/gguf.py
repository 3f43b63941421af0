import json
import urllib.request

import torch
import xllamacpp
from gguf import GGUFReader, dequantize
from transformers import AutoModelForCausalLM, AutoTokenizer

model = AutoModelForCausalLM.from_pretrained("tiny/model", dtype=torch.float32)
tokenizer = AutoTokenizer.from_pretrained("tiny/model")
state = model.state_dict()
found = {}


def distance(reader):
    """How far the embedding is from the model's, against its size."""
    tensors = {tensor.name: tensor for tensor in reader.tensors}
    embedding = tensors["token_embd.weight"]
    own = torch.tensor(dequantize(embedding.data, embedding.tensor_type).copy()).reshape(state["lm_head.weight"].shape)
    wanted = state["model.embed_tokens.weight"]
    return ((own - wanted).abs().max() / wanted.abs().max()).item()


for quant in ("f16", "q8_0"):
    reader = GGUFReader(f"{quant}.gguf")
    found[f"{quant}_distance"] = distance(reader)
    found["tensors"] = len(reader.tensors)
    found["architecture"] = reader.get_field("general.architecture").contents()

text = "Say the colour of the door.\n\nThe door is 12 white!"
params = xllamacpp.CommonParams()
params.model.path = "f16.gguf"
params.n_ctx = 256
params.n_predict = 8
params.sampling.temp = 0.0
params.warmup = False
server = xllamacpp.Server(params)
found["transformers_tokens"] = tokenizer(text)["input_ids"]
request = urllib.request.Request(server.listening_address + "/tokenize", json.dumps({"content": text}).encode())
request.add_header("Content-Type", "application/json")
found["tokens"] = json.load(urllib.request.urlopen(request))["tokens"]
answer = server.handle_completions({"prompt": text, "n_predict": 8, "temperature": 0.0, "ignore_eos": True})
found["f16_text"] = answer["choices"][0]["text"] if "choices" in answer else answer["content"]
ids = torch.tensor([found["transformers_tokens"]])
made = model.generate(ids, max_new_tokens=8, min_new_tokens=8, do_sample=False)[0][ids.shape[1]:]
found["transformers_text"] = tokenizer.decode(made)
print(json.dumps(found), flush=True)

"""The most bytes of tensors that are alive at once while unmodified Transformers, PEFT and bitsandbytes train or serve.

    measure.py < CASES > PEAKS

One case a line, as JSON: `config` (a model's config.json), `work` (`train` or `serve`), `batch`, `length` and for
training `method`, `precision`, `checkpointing`, `rank`, `targets`; `fake` computes with tensors that have a size and no
content, so that a model of any size is measured on any machine. One answer a line: `parameters`, `weights`, `peak`; for
serving also `cache`, `prompt` and `step`.

Every storage is counted from the operation that makes it to its end: what a GPU's allocator would be asked for, without
its rounding and without the workspaces of kernels.
"""

import contextlib
import json
import sys
import weakref

import torch
import torch.nn.functional as F
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
import transformers

DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16, "pure-bf16": torch.bfloat16}


class Storages(TorchDispatchMode):
    """Counts the bytes of all storages that are alive."""

    def __init__(self):
        super().__init__()
        self.alive, self.now, self.most = {}, 0, 0

    def see(self, tensor):
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key in self.alive:
            return
        size = storage.nbytes()
        self.now += size
        self.alive[key] = (weakref.ref(storage, lambda _: self.gone(key)), size)
        self.most = max(self.most, self.now)

    def gone(self, key):
        self.now -= self.alive.pop(key)[1]

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, torch.Tensor):
                self.see(leaf)
        return result


class FlashAttention(torch.autograd.Function):
    """Keeps what FlashAttention keeps on a GPU: no scores, and keys and values once for all queries that share them."""

    @staticmethod
    def forward(ctx, query, key, value):
        answer = torch.empty_like(query)
        sums = torch.empty(query.shape[:-1], dtype=torch.float32)
        ctx.save_for_backward(query, key, value, answer, sums)
        return answer

    @staticmethod
    def backward(ctx, _gradient):
        return tuple(torch.empty_like(tensor) for tensor in ctx.saved_tensors[:3])


def attention(query, key, value, attn_mask=None, dropout_p=0.0, is_causal=False, scale=None, enable_gqa=False):
    """Stands for `scaled_dot_product_attention` where tensors have no content: the processor's own has no grouped heads."""
    if torch.is_autocast_enabled("cpu"):
        query, key, value = (tensor.to(torch.get_autocast_dtype("cpu")) for tensor in (query, key, value))
    return FlashAttention.apply(query, key, value)


def model_of(case, dtype):
    config = transformers.AutoConfig.for_model(**case["config"])
    config._attn_implementation = "sdpa"
    name = (case["config"].get("architectures") or ["AutoModelForCausalLM"])[0]
    kind = getattr(transformers, name)
    return kind._from_config(config, dtype=dtype)


def quantized(model, dtype):
    """Puts bitsandbytes' layers where Transformers puts them: everywhere but at the head."""
    import bitsandbytes as bnb

    class Linear4bit(bnb.nn.Linear4bit):
        """Its weight is a plain parameter: a tensor without content can have no class of bitsandbytes'."""

        def __init__(self, linear):
            torch.nn.Module.__init__(self)
            self.in_features, self.out_features, self.bias = linear.in_features, linear.out_features, linear.bias
            options = {"blocksize": 64, "compress_statistics": True, "quant_type": "nf4"}
            data, state = bnb.functional.quantize_4bit(linear.weight.data.to(dtype), **options)
            self.weight = torch.nn.Parameter(data, requires_grad=False)
            self.weight.quant_state = self.quant_state = state
            for name, value in options.items():
                setattr(self.weight, name, value)
            self.compute_dtype, self.compute_type_is_set = dtype, True
            self.support_avx512bf16_for_cpu = False

    head = model.get_output_embeddings()
    for module in list(model.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, torch.nn.Linear) and child is not head:
                setattr(module, name, Linear4bit(child))
    return model


def trained(case):
    """The model as the Trainer would have it, with what it trains."""
    method, precision = case["method"], case["precision"]
    whole = precision == "fp32" or (method == "full" and precision != "pure-bf16")
    model = model_of(case, torch.float32 if whole else DTYPES[precision])
    parameters = count(model)
    if method != "full":
        import peft

        if method == "qlora":
            model = quantized(model, DTYPES[precision])
            model.is_loaded_in_4bit = True
            model = peft.prepare_model_for_kbit_training(model, use_gradient_checkpointing=False)
        config = peft.LoraConfig(r=case.get("rank", 16), target_modules=case.get("targets") or "all-linear")
        model = peft.get_peft_model(model, config)
    if case["checkpointing"]:
        model.enable_input_require_grads()
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    model.train()
    return model, parameters


def count(model):
    return sum(parameter.numel() for parameter in model.parameters())


def held(model):
    """Bytes of all weights, and of what belongs to quantised ones."""
    seen = {}
    for tensor in list(model.parameters()) + list(model.buffers()):
        seen[tensor.untyped_storage()._cdata] = tensor.untyped_storage().nbytes()
        state = getattr(tensor, "quant_state", None)
        if state is not None:
            for part in (state.absmax, state.code, state.offset, state.state2.absmax, state.state2.code):
                seen[part.untyped_storage()._cdata] = part.untyped_storage().nbytes()
    return sum(seen.values())


def train(case, storages):
    model, parameters = trained(case)
    batch, length = case["batch"], case["length"]
    tokens = torch.ones(batch, length, dtype=torch.long)
    is_causal = model.get_output_embeddings() is not None
    labels = tokens if is_causal else torch.zeros(batch, dtype=torch.long)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-4, fused=not case.get("fake"))
    mixed = case["precision"] in ("fp16", "bf16") or (case["method"] == "qlora" and case["precision"] != "fp32")
    for step in range(2):
        storages.most = storages.now
        cast = torch.autocast("cpu", dtype=DTYPES[case["precision"]]) if mixed else contextlib.nullcontext()
        with cast:
            loss = model(input_ids=tokens, labels=labels, use_cache=False).loss if is_causal else model(input_ids=tokens, labels=labels).loss
        loss.backward()
        del loss
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    return {"parameters": parameters, "weights": held(model), "peak": storages.most}


def serve(case, storages):
    model = model_of(case, DTYPES[case["precision"]])
    model.eval()
    batch, length = case["batch"], case["length"]
    with torch.no_grad():
        tokens = torch.ones(batch, length - 1, dtype=torch.long)
        before = storages.now
        storages.most = before
        answer = model(input_ids=tokens, use_cache=True, logits_to_keep=1)
        prompt, cache = storages.most, answer.past_key_values
        del answer
        storages.most = storages.now
        answer = model(input_ids=tokens[:, :1], past_key_values=cache, use_cache=True, logits_to_keep=1)
        step = storages.most
        del answer
        cached = storages.now - before
    return {"parameters": count(model), "weights": held(model), "prompt": prompt, "step": step, "cache": cached, "peak": max(prompt, step)}


def prepare():
    """Makes the one table of bitsandbytes' that cannot be made of tensors without content."""
    try:
        from bitsandbytes import functional
    except ImportError:
        return
    functional.name2qmap["dynamic"] = functional.create_dynamic_map()


def main():
    prepare()
    for line in sys.stdin:
        case = json.loads(line)
        torch.manual_seed(0)
        if case.get("fake"):
            F.scaled_dot_product_attention = attention
        with FakeTensorMode(allow_non_fake_inputs=True) if case.get("fake") else contextlib.nullcontext(), Storages() as storages:
            found = (train if case["work"] == "train" else serve)(case, storages)
        print(json.dumps(found), flush=True)


main()

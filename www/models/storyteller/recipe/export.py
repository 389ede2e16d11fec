"""Step 3. Writes checkpoint.pt as a Hugging Face GPT-2 checkpoint (f16), and what the tests expect of it.

Usage: python export.py OUT_FOLDER      (config.json, model.safetensors, tokenizer.json, expected.json)
"""

import json
import math
import shutil
import sys
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer
from transformers import GPT2LMHeadModel

from model import CONTEXT, END_OF_TEXT, HEADS, HIDDEN, LAYERS, VOCABULARY

PROMPT, LENGTH = "Once upon a time", 40

CONFIG = dict(
    architectures=["GPT2LMHeadModel"],
    model_type="gpt2",
    activation_function="gelu_new",
    n_embd=HIDDEN,
    n_head=HEADS,
    n_layer=LAYERS,
    n_positions=CONTEXT,
    n_ctx=CONTEXT,
    vocab_size=VOCABULARY,
    layer_norm_epsilon=1e-5,
    bos_token_id=END_OF_TEXT,
    eos_token_id=END_OF_TEXT,
    tie_word_embeddings=True,
    torch_dtype="float16",
)

# Names in model.py, and in Hugging Face's GPT-2.
LINEAR = {"c_attn": "attn.c_attn", "attn_c_proj": "attn.c_proj", "c_fc": "mlp.c_fc", "mlp_c_proj": "mlp.c_proj"}


def published(state):
    """The tensors under Hugging Face's names; its Conv1D weights are `[in, out]`, transposed."""
    tensors = {}
    for name, tensor in state.items():
        parts = name.split(".")
        if parts[0] == "h" and parts[2] in LINEAR:
            tensor = tensor.t() if parts[3] == "weight" else tensor
            parts[2] = LINEAR[parts[2]]
        tensors[".".join(["transformer", *parts])] = tensor.half().contiguous()
    return tensors


@torch.no_grad()
def report(model, tokenizer):
    """Prints the held-out loss and a few samples."""
    ids = np.fromfile("val.bin", np.uint16).astype(np.int64)
    windows = [ids[s : s + CONTEXT + 1] for s in range(0, min(len(ids) - CONTEXT - 1, CONTEXT * 200), CONTEXT)]
    nats = 0.0
    for window in windows:
        window = torch.from_numpy(window)
        nats += torch.nn.functional.cross_entropy(model(window[None, :-1]).logits[0], window[1:], reduction="sum").item()
    scored = np.concatenate([window[1:] for window in windows])
    text_bytes = len(tokenizer.decode(scored.tolist()).encode())
    print(f"held out: {nats / len(scored):.3f} nats per token, {nats / math.log(2) / text_bytes:.3f} bits per byte")
    torch.manual_seed(7)
    for prompt in ("Once upon a time there was a little rabbit who", '"Where are you going?" asked the fox.'):
        print("---", continuation(model, tokenizer, prompt, 90, do_sample=True, temperature=0.7, top_k=40)["text"])


def continuation(model, tokenizer, prompt, length, **how):
    """What Hugging Face transformers writes after `prompt`."""
    prompt_ids = tokenizer.encode(prompt).ids
    output = model.generate(torch.tensor([prompt_ids]), max_new_tokens=length, pad_token_id=END_OF_TEXT, **how)
    ids = output[0].tolist()[len(prompt_ids) :]
    return dict(prompt=prompt, prompt_ids=prompt_ids, ids=ids, text=tokenizer.decode(ids))


def main(out):
    out.mkdir(parents=True, exist_ok=True)
    state = torch.load("checkpoint.pt", weights_only=True)
    save_file(published(state), out / "model.safetensors", metadata={"format": "pt"})
    (out / "config.json").write_text(json.dumps(CONFIG, indent=1))
    shutil.copy("tokenizer.json", out)

    model = GPT2LMHeadModel.from_pretrained(out).float().eval()
    tokenizer = Tokenizer.from_file(str(out / "tokenizer.json"))
    report(model, tokenizer)
    expected = continuation(model, tokenizer, PROMPT, LENGTH, do_sample=False)
    (out / "expected.json").write_text(json.dumps(expected, ensure_ascii=False, indent=1))
    print("greedy:", PROMPT + expected["text"])


if __name__ == "__main__":
    main(Path(sys.argv[1]))

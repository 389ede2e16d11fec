"""Step 4. Writes a checkpoint as Hugging Face publishes such models, in f16, and what the tests expect of it.

Usage: python export.py gpt2|opt BUILD_FOLDER OUT_FOLDER     (config.json, model.safetensors, tokenizer.json, expected.json)
"""

import json
import sys
from pathlib import Path

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, processors

from model import CONTEXT, HEADS, HIDDEN, LAYERS, VOCABULARY
from published import END_OF_TEXT, load, prompt_ids

PROMPT, LENGTH = "Once upon a time", 40
OPT_POSITION_OFFSET = 2

GPT2 = dict(
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

OPT = dict(
    architectures=["OPTForCausalLM"],
    model_type="opt",
    activation_function="relu",
    hidden_size=HIDDEN,
    word_embed_proj_dim=HIDDEN,
    num_attention_heads=HEADS,
    num_hidden_layers=LAYERS,
    ffn_dim=4 * HIDDEN,
    max_position_embeddings=CONTEXT,
    vocab_size=VOCABULARY,
    do_layer_norm_before=True,
    enable_bias=True,
    dropout=0.0,
    bos_token_id=END_OF_TEXT,
    eos_token_id=END_OF_TEXT,
    pad_token_id=END_OF_TEXT,
    tie_word_embeddings=True,
    torch_dtype="float16",
)


def gpt2_tensors(state):
    """GPT-2's names; its Conv1D weights are `[in, out]`, transposed."""
    names = {"c_attn": "attn.c_attn", "attn_c_proj": "attn.c_proj", "c_fc": "mlp.c_fc", "mlp_c_proj": "mlp.c_proj"}
    tensors = {}
    for name, tensor in state.items():
        parts = name.split(".")
        if parts[0] == "h" and parts[2] in names:
            tensor = tensor.t() if parts[3] == "weight" else tensor
            parts[2] = names[parts[2]]
        tensors[".".join(["transformer", *parts])] = tensor
    return tensors


def opt_tensors(state):
    """OPT's names; query, key and value apart, and two rows that no text reads before the positions."""
    names = {
        "ln_1": "self_attn_layer_norm",
        "attn_c_proj": "self_attn.out_proj",
        "ln_2": "final_layer_norm",
        "c_fc": "fc1",
        "mlp_c_proj": "fc2",
    }
    unread = torch.zeros(OPT_POSITION_OFFSET, HIDDEN)
    tensors = {
        "embed_tokens.weight": state["wte.weight"],
        "embed_positions.weight": torch.cat([unread, state["wpe.weight"]]),
        "final_layer_norm.weight": state["ln_f.weight"],
        "final_layer_norm.bias": state["ln_f.bias"],
    }
    for name, tensor in state.items():
        if not name.startswith("h."):
            continue
        _, layer, module, kind = name.split(".")
        if module == "c_attn":
            for part, projection in zip(tensor.chunk(3), "qkv"):
                tensors[f"layers.{layer}.self_attn.{projection}_proj.{kind}"] = part
        else:
            tensors[f"layers.{layer}.{names[module]}.{kind}"] = tensor
    return {f"model.decoder.{name}": tensor for name, tensor in tensors.items()}


def published_tokenizer(name, file):
    """OPT begins every text with the token that ends one; GPT-2 adds nothing."""
    tokenizer = Tokenizer.from_file(str(file))
    if name == "opt":
        end = tokenizer.id_to_token(END_OF_TEXT)
        template = processors.TemplateProcessing(single=f"{end} $A", special_tokens=[(end, END_OF_TEXT)])
        tokenizer.post_processor = processors.Sequence([tokenizer.post_processor, template])
    return tokenizer


def main(name, build, out):
    out.mkdir(parents=True, exist_ok=True)
    state = torch.load(build / f"{name}.unlooped.pt", weights_only=True)["model"]
    tensors, config = (gpt2_tensors(state), GPT2) if name == "gpt2" else (opt_tensors(state), OPT)
    tensors = {key: tensor.half().contiguous() for key, tensor in tensors.items()}
    save_file(tensors, out / "model.safetensors", metadata={"format": "pt"})
    (out / "config.json").write_text(json.dumps(config, indent=1) + "\n")
    published_tokenizer(name, build / "tokenizer.json").save(str(out / "tokenizer.json"))

    model, tokenizer = load(out)
    prompt = prompt_ids(tokenizer, PROMPT)
    output = model.generate(torch.tensor([prompt]), max_new_tokens=LENGTH, do_sample=False)[0].tolist()
    ids = output[len(prompt) :]
    expected = dict(prompt=PROMPT, prompt_ids=prompt, ids=ids, text=tokenizer.decode(ids))
    (out / "expected.json").write_text(json.dumps(expected, ensure_ascii=False, indent=1) + "\n")
    parameters = sum(tensor.numel() for tensor in tensors.values())
    print(f"{out}: {parameters} parameters; greedy: {PROMPT}{expected['text']}")


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]))

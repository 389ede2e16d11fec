#!/usr/bin/env python3
"""Makes `tests/fixtures/`: tiny random checkpoints in the layouts that are published, and what the reference
implementation (Hugging Face transformers) computes from them.

The fixtures are committed, so nobody needs Python to run the tests. To make them again:

    pip install torch==2.15.0 transformers==5.23.0 tokenizers==0.23.3 safetensors==0.8.0 numpy==2.4.6 regex
    python tests/make_fixtures.py            # all of them; or name some: gpt2-tiny-a opt-tiny-b

A second run writes the same bytes: every random number comes from numpy's frozen legacy generator, seeded by the
fixture's seed and the tensor's name.

What a folder holds
    config.json                 as published, with tiny sizes
    tokenizer.json              or vocab.json + merges.txt: a byte-level BPE trained on CORPUS below
    model.safetensors           or pytorch_model.bin
    expected.tensors            (safetensors, but not called so: a folder of fixtures must look like a published one)
                                `short.<name>`: activations and logits at every position of the short input;
                                `long.<name>`: the same at the listed positions of an input of more than one cache page;
                                `variant.<name>.logits`: after the short input, under a changed config.json
    expected.json               the inputs, the positions, greedy continuations, scores, and the reference's own error
`text/gpt2.json` and `text/opt.json` hold the token ids of many strings. With VITRINE_TOKENIZERS naming a folder that
holds the published gpt2/ and opt/ (vocab.json, merges.txt), `text/published-*.json` are made from those, too; the
tokenizers themselves stay where they are.

All values are f32, computed from the weights as stored (f16 and bf16 are widened first). `reference_error` is how far
that f32 pass lies from the same pass in f64, relative to the largest value of the tensor: what a tolerance is made from.
A seed is kept only if every greedy step has a clear winner (`smallest_gap`), so that exact ids are a fair test; the
search starts at the seed that was found last time.
"""

import io
import json
import math
import os
import sys
import zlib
from collections import Counter, OrderedDict
from pathlib import Path

os.environ["TOKENIZERS_PARALLELISM"] = "false"

import numpy as np
import regex
import torch
from safetensors.torch import save_file
from transformers import GPT2Config, GPT2LMHeadModel, GPT2Tokenizer, OPTConfig, OPTForCausalLM

FIXTURES = Path(__file__).resolve().parent / "fixtures"
MAX_FOLDER_BYTES = 300_000
# Logits have a standard deviation of about 3; f32 rounding moves them by about 1e-5.
SMALLEST_GAP = 0.02
# A random model loves to repeat itself; a greedy text must not be one word.
DISTINCT_OF_40 = 14

# ---------------------------------------------------------------------------------------------------------------------
# Tokenizers
# ---------------------------------------------------------------------------------------------------------------------

CORPUS = """
The lamp in the window was lit before the rain began. Anna said she'd wait for the boat, and that the boat would come when
the wind had turned. "It's late," said her brother, "and the harbour's cold; don't stand there." But she didn't go in. She
counted the lights on the other shore: one, two, three, and then a fourth, which was the light of the boat.

There was once a clockmaker who had made 12 clocks, and each of them was wrong. The first was 3 minutes late, the second
was 10 minutes early, and the third ran backwards. "I'll mend them," he said, "when I've the time." They're all there in
the old shop, and they tell 12 different times, so that whoever comes in can choose the hour that he'd like best.

When the snow had melted the children went down to the river and found that the bridge wasn't there. "We're not going
home," they said, and they built another out of ice and string. It held until the summer. Then it was water, and they swam.

Ein kleines Haus am Fluß, das Licht über dem Wasser. Une fenêtre ouverte, la lumière d'été. El niño miró la montaña.
Маленький дом у реки. Ένα μικρό σπίτι. 小さな家の窓に明かりがついた。小小的窗户亮了灯。작은 집의 창문에 불이 켜졌다.
The cat 😀 looked at the dog 😀 and the dog 🐕 looked at the moon 🌙. 😀👍 🌙🌙 👍🏽 👩‍👩‍👧 éé e\u0301e\u0301
"""

# OpenAI's own pattern (encoder.py of openai/gpt-2, MIT).
PRETOKENS = regex.compile(r"""'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+""")


def bytes_to_characters():
    """GPT-2's table: each byte as a printable character, in the order in which GPT-2 numbers them."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    table = {byte: chr(byte) for byte in printable}
    for byte in range(256):
        if byte not in table:
            table[byte] = chr(256 + len(table) - len(printable))
    return table


BYTES = bytes_to_characters()


def to_symbols(text):
    return [BYTES[byte] for byte in text.encode("utf-8")]


def merge_pair(symbols, pair):
    merged, i = [], 0
    while i < len(symbols):
        if tuple(symbols[i : i + 2]) == pair:
            merged.append(pair[0] + pair[1])
            i += 2
        else:
            merged.append(symbols[i])
            i += 1
    return merged


def train_merges(count):
    """Byte-pair encoding, the plain algorithm; the most frequent pair first, ties by the pair itself."""
    words = [(to_symbols(word), n) for word, n in Counter(PRETOKENS.findall(CORPUS)).items()]
    merges = []
    for _ in range(count):
        pairs = Counter()
        for symbols, n in words:
            for pair in zip(symbols, symbols[1:]):
                pairs[pair] += n
        best = min(pairs, key=lambda pair: (-pairs[pair], pair))
        merges.append(best)
        words = [(merge_pair(symbols, best), n) for symbols, n in words]
    return merges


def plain_encode(text, vocab, merges):
    """The textbook encoder, a second opinion beside the library's."""
    ranks = {pair: rank for rank, pair in enumerate(merges)}
    ids = []
    for word in PRETOKENS.findall(text):
        symbols = to_symbols(word)
        while len(symbols) > 1:
            best = min(zip(symbols, symbols[1:]), key=lambda pair: ranks.get(pair, math.inf))
            if best not in ranks:
                break
            symbols = merge_pair(symbols, best)
        ids += [vocab[symbol] for symbol in symbols]
    return ids


class TextFixture:
    """A tokenizer: its files, the reference encoder, and the ids that are special."""

    def __init__(self, vocab, merges, specials, bos=None, **special_tokens):
        self.vocab, self.merges, self.bos = vocab, merges, bos
        self.reference = GPT2Tokenizer(vocab=dict(vocab), merges=list(merges), **special_tokens)
        self.special_ids = {vocab[token] for token in specials}
        # The ids that some text has; not `<mask>` and its like.
        self.reachable_ids = {vocab[token] for token in [*BYTES.values(), *("".join(pair) for pair in merges)]}

    def encode(self, text, special_as_text=True):
        ids = self.reference(text, split_special_tokens=special_as_text)["input_ids"]
        if special_as_text:
            assert ids == plain_encode(text, self.vocab, self.merges), text
        return ids

    def encode_prompt(self, text):
        return ([] if self.bos is None else [self.bos]) + self.encode(text)

    def decode(self, ids):
        return self.reference.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)

    def is_readable(self, token_id):
        """Whether the token alone is printable ASCII."""
        characters = {character: byte for byte, character in BYTES.items()}
        token = next((t for t, i in self.vocab.items() if i == token_id), "\0")
        return token_id in self.reachable_ids and all(32 <= characters.get(c, 0) < 127 for c in token)

    def write_vocab_and_merges(self, folder):
        (folder / "vocab.json").write_text(json.dumps(self.vocab), encoding="utf-8")
        lines = ["#version: 0.2", *(" ".join(pair) for pair in self.merges), ""]
        (folder / "merges.txt").write_text("\n".join(lines), encoding="utf-8")

    def write_tokenizer_json(self, folder):
        """As openai-community/gpt2 publishes it, merges as strings."""
        level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True}
        added = [
            {"id": i, "special": True, "content": t, "single_word": False, "lstrip": False, "rstrip": False,
             "normalized": True}
            for t, i in self.vocab.items() if i in self.special_ids
        ]  # fmt: skip
        model = {"dropout": None, "unk_token": None, "continuing_subword_prefix": "", "end_of_word_suffix": "",
                 "fuse_unk": False, "vocab": self.vocab, "merges": [" ".join(pair) for pair in self.merges]}  # fmt: skip
        everything = {"version": "1.0", "truncation": None, "padding": None, "added_tokens": added, "normalizer": None,
                      "pre_tokenizer": level, "post_processor": {**level, "add_prefix_space": True, "trim_offsets": False},
                      "decoder": {**level, "add_prefix_space": True}, "model": model}  # fmt: skip
        (folder / "tokenizer.json").write_text(json.dumps(everything, ensure_ascii=False), encoding="utf-8")


def gpt2_text():
    """GPT-2's order: 256 bytes, the merges, then `<|endoftext|>`. 333 entries, not a multiple of 16."""
    merges = train_merges(76)
    tokens = [*BYTES.values(), *("".join(pair) for pair in merges), "<|endoftext|>"]
    return TextFixture({token: i for i, token in enumerate(tokens)}, merges, ["<|endoftext|>"])


# What facebook/opt-125m's special_tokens_map.json declares.
OPT_SPECIALS = ["<pad>", "</s>"]
OPT_SPECIAL_TOKENS = {"bos_token": "</s>", "eos_token": "</s>", "unk_token": "</s>", "pad_token": "<pad>"}


def opt_text():
    """OPT's order: four special tokens, then by frequency, then made-up words and `<mask>`, which no text reaches."""
    merges = train_merges(48)
    pieces = [*BYTES.values(), *("".join(pair) for pair in merges)]
    ranks = {pair: rank for rank, pair in enumerate(merges)}
    frequency = Counter()
    for word, n in Counter(PRETOKENS.findall(CORPUS)).items():
        symbols = to_symbols(word)
        while len(symbols) > 1:
            best = min(zip(symbols, symbols[1:]), key=lambda pair: ranks.get(pair, math.inf))
            if best not in ranks:
                break
            symbols = merge_pair(symbols, best)
        for symbol in symbols:
            frequency[symbol] += n
    pieces.sort(key=lambda piece: (-frequency[piece], piece))
    tokens = ["<s>", "<pad>", "</s>", "<unk>", *pieces, "madeupword0000", "madeupword0001", "<mask>"]
    vocab = {token: i for i, token in enumerate(tokens)}
    return TextFixture(vocab, merges, OPT_SPECIALS, bos=vocab["</s>"], **OPT_SPECIAL_TOKENS)


STRINGS = [
    "", " ", "  ", "   ", "\n", "\n\n", " \n \n", "\t\tindented", "trailing   ", "   leading", "a" + 20 * " " + "b",
    "Hello world", " Hello", "The lamp in the window was lit before the rain began.", "line\nline\n\nline\n",
    "line\r\nline\r\n", "don't won't I'll we've he'd I'm they're it's", "DON'T IT'S 'S 's ''s ' s", "don’t it’s “quoted”",
    "1234567890", "3.14159 1,000,000 -42 1e-9", "12:30 on 2021-03-04", "x² H₂O Ⅷ ½ ٣٤", "a_b-c.d/e?f=g&h#i", "!!! ??? ...",
    "for (i = 0; i < n; i++) { a[i] += 1; }", "https://example.org/path?query=1#part", "CamelCaseAndSHOUTING", 50 * "x",
    "😀", "😀😀 👍 👍🏽", "👩‍👩‍👧‍👦 🇨🇭 ❤️", "a😀b", "the cat 😀 looked", "你好，世界。", "日本語のテキスト", "小さな家の窓", "한국어 문장",
    "e\u0301 a\u0308 n\u0303 e\u0301e\u0301", "café naïve Ångström Straße", "Привет, мир", "Ένα μικρό σπίτι", "שלום", "مرحبا بالعالم",
    "नमस्ते", "ไทย", "a\u00a0b\u2003c\u3000d", "\ufeffmark", "zero\u200bwidth\u200djoiner", "\x00\x01\x1f\x7f", "\U0010ffff\ue000",
    "ﬁligature ſharp İi", "∑∫√≠≤", "mixed 日本 text 😀 with Ünïcödé\tand\nlines  ", "<|endoftext|>", "one<|endoftext|>two",
    "<|endoftext|><|endoftext|> ", "<|endoftext", "</s>", "one</s>two </s> three", "<pad>", "a<pad></s>b", "</s", "<mask>",
    "madeupword0000 <unk>", "[CLS] <|im_start|>user",
]  # fmt: skip


def write_text_fixture(path, text):
    cases = []
    for string in STRINGS:
        ids = text.encode(string)
        assert text.decode(ids) == string, string
        case = {"text": string, "ids": ids}
        special = text.encode(string, special_as_text=False)
        if special != ids:
            case["ids_with_specials"] = special
        cases.append(case)
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = ",\n".join(json.dumps(case, ensure_ascii=True) for case in cases)
    path.write_text(f'{{"bos": {json.dumps(text.bos)}, "special": {sorted(text.special_ids)}, "cases": [\n{lines}\n]}}\n')


def published_text(folder, specials, bos=None, **special_tokens):
    vocab = json.loads((folder / "vocab.json").read_text(encoding="utf-8"))
    lines = (folder / "merges.txt").read_text(encoding="utf-8").split("\n")
    merges = [tuple(line.split(" ")) for line in lines if line and not line.startswith("#version")]
    return TextFixture(vocab, merges, specials, bos and vocab[bos], **special_tokens)


# ---------------------------------------------------------------------------------------------------------------------
# Weights
# ---------------------------------------------------------------------------------------------------------------------


def random_tensor(seed, name, shape):
    """Large enough that attention is peaked, norms are far from the identity and logits lie well apart."""
    generator = np.random.RandomState((seed * 1_000_003 + zlib.crc32(name.encode())) % 2**32)
    values = generator.standard_normal(shape)
    leaf = name.split(".")[-2]
    if "ln_" in leaf or "layer_norm" in leaf:
        scale, offset = (0.25, 1.0) if name.endswith("weight") else (0.1, 0.0)
    elif name.endswith("bias"):
        scale, offset = 0.1, 0.0
    elif leaf in ("wte", "embed_tokens", "lm_head"):
        scale, offset = 0.8, 0.0
    elif leaf in ("wpe", "embed_positions"):
        scale, offset = 1.6, 0.0  # Loud, so that a greedy text does not fall into a loop.
    else:  # A matrix: the fan-in is its first axis in Conv1D, its second in Linear.
        fan_in = shape[0] if leaf in ("c_attn", "c_proj", "c_fc") else shape[1]
        gain = 0.7 if leaf in ("c_proj", "out_proj", "fc2") else 1.4  # What goes in outweighs what a block adds.
        scale, offset = gain / math.sqrt(fan_in), 0.0
    return torch.from_numpy((values * scale + offset).astype(np.float32))


def fill(model, seed, dtype, quieten):
    """Gives every parameter its random value as `dtype` would store it, widened to f32.

    `quieten` are rows of the vocabulary made small so that greedy decoding avoids them."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            values = random_tensor(seed, name, tuple(parameter.shape))
            if name.split(".")[-2] in ("wte", "embed_tokens", "lm_head"):
                values[quieten] *= 0.2
            parameter.copy_(values.to(dtype).to(torch.float32))


# ---------------------------------------------------------------------------------------------------------------------
# What the reference computes
# ---------------------------------------------------------------------------------------------------------------------


def named_modules(model):
    """The observed places: name, module, and whether the module's input (else its output) is meant."""
    if isinstance(model, GPT2LMHeadModel):
        core = model.transformer
        blocks = [(f"h.{i}", block, False) for i, block in enumerate(core.h)]
        return [("embed", core.h[0], True), *blocks, ("ln_f", core.ln_f, False)]
    core = model.model.decoder
    places = [("embed", core.layers[0], True), *((f"layers.{i}", layer, False) for i, layer in enumerate(core.layers))]
    if core.final_layer_norm is not None:
        places.append(("final_layer_norm", core.final_layer_norm, False))
    if core.project_out is not None:
        places.append(("project_out", core.project_out, False))
    return places


def trace(model, ids):
    """Every observed tensor and the logits, each `[seq, width]`."""
    seen, hooks = OrderedDict(), []
    for name, module, is_input in named_modules(model):

        def keep(_module, inputs, output, name=name, is_input=is_input):
            value = inputs[0] if is_input else output
            value = value[0] if isinstance(value, tuple) else value
            seen[name] = value.reshape(len(ids), -1).clone()

        hooks.append(module.register_forward_hook(keep))
    with torch.no_grad():
        seen["logits"] = model(torch.tensor([ids]), use_cache=False).logits[0].clone()
    for hook in hooks:
        hook.remove()
    order = [*(name for name, _, _ in named_modules(model)), "logits"]
    return OrderedDict((name, seen[name]) for name in order)


def reference_error(model, ids):
    """Largest distance of the f32 pass from the f64 pass, relative to the tensor's largest value."""
    single = trace(model, ids)
    double = trace(model.double(), ids)
    model.float()
    return max(((single[n].double() - double[n]).abs().max() / double[n].abs().max()).item() for n in single)


def greedy(model, ids, steps, eos):
    """`(new ids, their log-probabilities, smallest gap between the two best logits)`; ends before `eos`,
    and where the gap is too small to be of use."""
    ids, new, logprobs, gap = list(ids), [], [], math.inf
    for _ in range(steps):
        with torch.no_grad():
            logits = model(torch.tensor([ids]), use_cache=False).logits[0, -1]
        best = torch.topk(logits, 2)
        gap = min(gap, (best.values[0] - best.values[1]).item())
        token = best.indices[0].item()
        if token == eos or gap < SMALLEST_GAP:
            break
        new.append(token)
        logprobs.append(torch.log_softmax(logits.double(), -1)[token].item())
        ids.append(token)
    return new, logprobs, gap


def score(model, text, string):
    """Log-probability of every token of `string` after the first, perplexity, bits per byte of the scored text."""
    ids = text.encode_prompt(string)
    with torch.no_grad():
        logits = model(torch.tensor([ids]), use_cache=False).logits[0].double()
    logprobs = [torch.log_softmax(logits[i], -1)[ids[i + 1]].item() for i in range(len(ids) - 1)]
    nats = -sum(logprobs)
    scored_bytes = len(text.decode(ids[1:]).encode())
    return {"text": string, "ids": ids, "logprobs": logprobs, "perplexity": math.exp(nats / len(logprobs)),
            "bits_per_byte": nats / math.log(2) / scored_bytes}  # fmt: skip


def find_stop(model, text, eos):
    """A prompt whose greedy continuation ends with end-of-text after a few tokens."""
    words = sorted({word for word in PRETOKENS.findall(CORPUS) if word.strip().isascii() and word.strip().isalpha()})
    for word in words:
        prompt = "The" + word if word.startswith(" ") else word
        ids = text.encode_prompt(prompt)
        new, _, gap = greedy(model, ids, 16, eos)
        if 3 <= len(new) < 16 and gap > SMALLEST_GAP:
            return {"prompt": prompt, "prompt_ids": ids, "ids": new, "text": text.decode(new)}
    return None


# ---------------------------------------------------------------------------------------------------------------------
# The fixtures
# ---------------------------------------------------------------------------------------------------------------------


def published_config(config, architecture, **published):
    """The keys that the published files carry; defaults that only a newer transformers writes are left out."""
    return {"architectures": [architecture], **config, **published}


class Fixture:
    def __init__(self, name, text, config, build, dtype, context, eos, prompt, readable, variants, write, first_seed):
        self.first_seed = first_seed
        self.name, self.text, self.config, self.build = name, text, config, build
        self.dtype, self.context, self.eos, self.prompt = dtype, context, eos, prompt
        self.readable, self.variants, self.write = readable, variants, write

    def make(self):
        vocab_size = self.config["vocab_size"]
        unused = sorted(set(range(vocab_size)) - self.text.reachable_ids - {self.eos})
        unreadable = [i for i in range(vocab_size) if i != self.eos and not self.text.is_readable(i)]
        prompt_ids = self.text.encode_prompt(self.prompt)
        steps = self.context - len(prompt_ids)
        for seed in range(self.first_seed, 100_000):
            model = self.build(self.config)
            fill(model, seed, self.dtype, unreadable if self.readable else unused)
            ids, logprobs, gap = greedy(model, prompt_ids, steps, self.eos)
            if len(ids) < steps or gap < SMALLEST_GAP or len(set(ids[:40])) < DISTINCT_OF_40 or set(ids) & set(unused):
                continue
            stop = find_stop(model, self.text, self.eos)
            if stop is not None:
                break
        generated = model.generate(torch.tensor([prompt_ids]), attention_mask=torch.ones(1, len(prompt_ids)),
                                   max_new_tokens=steps, do_sample=False, pad_token_id=self.eos)  # fmt: skip
        assert generated[0, len(prompt_ids) :].tolist() == ids, "transformers' own generate disagrees"

        random = np.random.RandomState(seed)
        allowed = sorted(self.text.reachable_ids)
        start = [] if self.text.bos is None else [self.text.bos]
        short = start + random.choice(allowed, 11 - len(start)).tolist()
        long = start + random.choice(allowed, self.context - len(start)).tolist()
        positions = sorted({p for p in (0, 1, 15, 16, 17, 63, 64, 65, 80, 127, 128) if p < self.context - 1})
        positions.append(self.context - 1)

        tensors = {f"short.{name}": value for name, value in trace(model, short).items()}
        tensors |= {f"long.{name}": value[positions].clone() for name, value in trace(model, long).items()}
        for variant, change in self.variants.items():
            changed = self.build({**self.config, **change})
            changed.load_state_dict(model.state_dict())
            tensors[f"variant.{variant}.logits"] = trace(changed, short)["logits"][-1:].clone()

        folder = FIXTURES / self.name
        folder.mkdir(parents=True, exist_ok=True)
        for old in folder.iterdir():
            old.unlink()
        self.write(self, model, folder)
        self.check_published_form(folder, model, short)
        save_file({name: value.contiguous() for name, value in tensors.items()}, folder / "expected.tensors")
        expected = {
            "reference": f"transformers {__import__('transformers').__version__}, torch {torch.__version__.split('+')[0]}, f32",
            "seed": seed, "parameters": sum(p.numel() for p in model.parameters()), "reference_error": reference_error(model, long),
            "short": {"ids": short}, "long": {"ids": long, "positions": positions},
            "greedy": {"prompt": self.prompt, "prompt_ids": prompt_ids, "ids": ids, "logprobs": logprobs,
                       "text": self.text.decode(ids), "smallest_gap": gap},
            "stop": stop, "score": score(model, self.text, "The cat's light 😀 was late."),
            "variants": self.variants,
        }  # fmt: skip
        lines = ",\n".join(f"{json.dumps(key)}: {json.dumps(value)}" for key, value in expected.items())
        (folder / "expected.json").write_text(f"{{\n{lines}\n}}\n")
        for file in folder.iterdir():
            file.chmod(0o644)
        size = sum(file.stat().st_size for file in folder.iterdir())
        assert size <= MAX_FOLDER_BYTES, f"{self.name}: {size} bytes"
        print(f"{self.name}: {size} bytes, seed {seed}, smallest gap {gap:.3f}, "
              f"reference error {expected['reference_error']:.1e}\n  {expected['greedy']['text']!r}\n  stop: {stop}")  # fmt: skip

    def check_published_form(self, folder, model, ids):
        """transformers itself must read the folder as a published checkpoint, and compute the same."""
        kind = type(model)
        again = kind.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()
        assert torch.equal(trace(again, ids)["logits"], trace(model, ids)["logits"]), f"{folder}: does not load back"


def build_gpt2(config):
    return GPT2LMHeadModel(GPT2Config(**config, attn_implementation="eager")).eval()


def build_opt(config):
    return OPTForCausalLM(OPTConfig(**config, attn_implementation="eager")).eval()


def write_config(fixture, folder, **published):
    config = {**fixture.config, **published}
    (folder / "config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")


def write_gpt2_a(fixture, model, folder):
    """openai-community/gpt2: bare names, f32 mask buffers, no lm_head, tokenizer.json."""
    tensors = {n.removeprefix("transformer."): t.contiguous() for n, t in model.state_dict().items() if "lm_head" not in n}
    n = fixture.config["n_positions"]
    for layer in range(fixture.config["n_layer"]):
        tensors[f"h.{layer}.attn.bias"] = torch.ones(n, n).tril().reshape(1, 1, n, n)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    fixture.text.write_tokenizer_json(folder)
    write_config(fixture, folder, architectures=["GPT2LMHeadModel"], model_type="gpt2", n_ctx=n,
                 task_specific_params={"text-generation": {"do_sample": True, "max_length": 50}})  # fmt: skip


def write_gpt2_b(fixture, model, folder):
    """Fine-tuned descendants: `transformer.` names, u8 masks, scalar masked_bias, own lm_head, bf16, vocab + merges."""
    tensors = {name: tensor.to(fixture.dtype).contiguous() for name, tensor in model.state_dict().items()}
    n = fixture.config["n_positions"]
    for layer in range(fixture.config["n_layer"]):
        tensors[f"transformer.h.{layer}.attn.bias"] = torch.ones(n, n, dtype=torch.uint8).tril().reshape(1, 1, n, n)
        tensors[f"transformer.h.{layer}.attn.masked_bias"] = torch.tensor(-1e4).to(fixture.dtype)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    fixture.text.write_vocab_and_merges(folder)
    write_config(fixture, folder, architectures=["GPT2LMHeadModel"], model_type="gpt2", torch_dtype="bfloat16")


def write_opt_a(fixture, model, folder):
    """facebook/opt-125m: a state dict with `_metadata`, whose lm_head shares the storage of the embedding."""
    state = model.state_dict()
    stored, tensors = {}, OrderedDict()
    for name, tensor in state.items():
        key = tensor.data_ptr()
        stored.setdefault(key, tensor.to(fixture.dtype))
        tensors[name] = stored[key]
    assert tensors["lm_head.weight"].data_ptr() == tensors["model.decoder.embed_tokens.weight"].data_ptr()
    tensors._metadata = state._metadata
    torch.save(tensors, folder / "pytorch_model.bin")
    fixture.text.write_vocab_and_merges(folder)
    write_config(fixture, folder, architectures=["OPTForCausalLM"], model_type="opt", prefix="</s>",
                 torch_dtype="float16", _name_or_path="opt-125m")  # fmt: skip


def write_opt_b(fixture, model, folder):
    """facebook/opt-350m's form, saved from the bare decoder: `decoder.` names, no lm_head, an unnamed archive."""
    tensors = {n.removeprefix("model."): t.to(fixture.dtype) for n, t in model.state_dict().items() if "lm_head" not in n}
    buffer = io.BytesIO()
    torch.save(tensors, buffer)
    (folder / "pytorch_model.bin").write_bytes(buffer.getvalue())
    fixture.text.write_vocab_and_merges(folder)
    write_config(fixture, folder, architectures=["OPTForCausalLM"], model_type="opt", prefix="</s>",
                 torch_dtype="float16", _remove_final_layer_norm=False)  # fmt: skip


def fixtures():
    gpt2, opt = gpt2_text(), opt_text()
    end = gpt2.vocab["<|endoftext|>"]
    gpt2_common = {"bos_token_id": end, "eos_token_id": end, "vocab_size": len(gpt2.vocab), "layer_norm_epsilon": 1e-5}
    opt_common = {"bos_token_id": 2, "eos_token_id": 2, "pad_token_id": 1, "activation_function": "relu"}
    return gpt2, opt, [
        Fixture("gpt2-tiny-a", gpt2, {
            **gpt2_common, "n_positions": 100, "n_embd": 30, "n_layer": 2, "n_head": 3, "activation_function": "gelu_new",
        }, build_gpt2, torch.float32, 100, end, "The lamp in the window", True, {}, write_gpt2_a, 47),
        Fixture("gpt2-tiny-b", gpt2, {
            **gpt2_common, "n_positions": 131, "n_embd": 42, "n_layer": 3, "n_head": 2, "n_inner": 97,
            "activation_function": "gelu", "scale_attn_by_inverse_layer_idx": True, "tie_word_embeddings": False,
            "layer_norm_epsilon": 1e-3,
        }, build_gpt2, torch.bfloat16, 131, end, "There was once a clockmaker", False, {
            "relu": {"activation_function": "relu"},
            "gelu_pytorch_tanh": {"activation_function": "gelu_pytorch_tanh"},
            "silu": {"activation_function": "silu"},
            "unscaled_attention": {"scale_attn_weights": False, "scale_attn_by_inverse_layer_idx": False},
            "default_epsilon": {"layer_norm_epsilon": 1e-5},
        }, write_gpt2_b, 3),
        Fixture("opt-tiny-a", opt, {
            **opt_common, "vocab_size": len(opt.vocab) + 7, "hidden_size": 44, "num_hidden_layers": 3,
            "num_attention_heads": 4, "ffn_dim": 150, "max_position_embeddings": 130, "word_embed_proj_dim": 44,
            "do_layer_norm_before": True,
        }, build_opt, torch.float16, 130, 2, "When the snow had melted", True, {}, write_opt_a, 162),
        Fixture("opt-tiny-b", opt, {
            **opt_common, "vocab_size": len(opt.vocab) + 7, "hidden_size": 51, "num_hidden_layers": 3,
            "num_attention_heads": 3, "ffn_dim": 101, "max_position_embeddings": 130, "word_embed_proj_dim": 22,
            "do_layer_norm_before": False,
        }, build_opt, torch.float16, 130, 2, "The boat would come", False, {}, write_opt_b, 80),
    ]  # fmt: skip


def main(names):
    torch.set_num_threads(1)
    gpt2, opt, everything = fixtures()
    write_text_fixture(FIXTURES / "text" / "gpt2.json", gpt2)
    write_text_fixture(FIXTURES / "text" / "opt.json", opt)
    published = os.environ.get("VITRINE_TOKENIZERS")
    if published:
        real_gpt2 = published_text(Path(published) / "gpt2", ["<|endoftext|>"])
        real_opt = published_text(Path(published) / "opt", OPT_SPECIALS, bos="</s>", **OPT_SPECIAL_TOKENS)
        write_text_fixture(FIXTURES / "text" / "published-gpt2.json", real_gpt2)
        write_text_fixture(FIXTURES / "text" / "published-opt.json", real_opt)
    for fixture in everything:
        if not names or fixture.name in names:
            fixture.make()


if __name__ == "__main__":
    main(sys.argv[1:])

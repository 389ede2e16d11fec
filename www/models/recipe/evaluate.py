"""Step 5. Bits per byte of all the held-out text, in f32, from a published folder.

Usage: python evaluate.py BUILD_FOLDER MODEL_FOLDER [FIGURES.json]

The text is read in windows as long as the context, each half a window after the one before; what is scored of a window
is what the one before has not, so that every token has at least half a context before it (but for the first window).
"""

import json
import math
import sys
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from data import token_bytes
from published import END_OF_TEXT, load

ROWS = 8


@torch.inference_mode()
def bits_per_byte(model, ids, lengths):
    """The end of text between stories is scored, and counts no byte."""
    context = model.config.max_position_embeddings
    stride = context // 2
    ids = np.concatenate([ids, np.full(-(len(ids) - 1 - context) % stride, -1)])  # -1: no token
    starts = range(0, len(ids) - context, stride)
    nats = 0.0
    for first in range(0, len(starts), ROWS):
        some = starts[first : first + ROWS]
        windows = torch.from_numpy(np.stack([ids[s : s + context + 1] for s in some]))
        logits = model(windows[:, :-1].clamp(min=END_OF_TEXT)).logits
        targets = windows[:, 1:].clone()
        for row, start in enumerate(some):
            targets[row, : stride if start else 0] = -1
        logits, targets = logits.flatten(0, 1), targets.flatten()
        nats += F.cross_entropy(logits, targets, ignore_index=-1, reduction="sum").item()
    scored = ids[1:][ids[1:] >= 0]
    return nats / math.log(2) / lengths[scored].sum(), nats / len(scored)


def main(build, folder, figures=None):
    model, tokenizer = load(folder)
    ids = np.fromfile(build / "held_out.bin", np.uint16).astype(np.int64)
    bits, nats = bits_per_byte(model, ids, token_bytes(tokenizer))
    print(f"{folder}: {bits:.4f} bits per byte, {nats:.4f} nats per token of {len(ids)} held-out tokens")
    if figures:
        figures.write_text(json.dumps({"parameters": model.num_parameters(), "bits_per_byte": bits}) + "\n")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))

"""What the models read: windows of the training text, and a fixed part of the held-out text."""

import numpy as np
import torch
from tokenizers import Tokenizer

from model import CONTEXT


class Windows:
    """An epoch is every window once, cut from a new offset and in a new order."""

    def __init__(self, file, seed):
        self.ids, self.seed = np.fromfile(file, np.uint16), seed
        self.length = self.epoch = self.taken = 0
        self.starts = ()

    def order(self):
        random = np.random.default_rng([self.seed, self.epoch, self.length])
        offset = random.integers(self.length)
        return random.permutation(np.arange(offset, len(self.ids) - self.length, self.length))

    def next(self, rows, length):
        """`[rows, length + 1]` ids: each window, and the id after it."""
        if length != self.length or self.taken + rows > len(self.starts):
            self.epoch, self.taken, self.length = self.epoch + 1, 0, length
            self.starts = self.order()
        chosen = self.starts[self.taken : self.taken + rows]
        self.taken += rows
        return torch.from_numpy(np.stack([self.ids[s : s + length + 1] for s in chosen]).astype(np.int64))

    def state(self):
        return {"length": self.length, "epoch": self.epoch, "taken": self.taken}

    def load(self, state):
        vars(self).update(state)
        self.starts = self.order()


def token_bytes(tokenizer):
    """How many bytes of text each id stands for; a byte-level BPE writes every byte as one character."""
    lengths = np.zeros(tokenizer.get_vocab_size())
    for token, number in tokenizer.get_vocab(with_added_tokens=False).items():
        lengths[number] = len(token)
    lengths[tokenizer.token_to_id("<|endoftext|>")] = 0
    return lengths


class HeldOut:
    """Bits per byte of a fixed fifth of the held-out text, to watch a training by; evaluate.py reads all of it."""

    def __init__(self, build):
        self.ids = np.fromfile(build / "held_out.bin", np.uint16).astype(np.int64)
        self.bytes = token_bytes(Tokenizer.from_file(str(build / "tokenizer.json")))

    @torch.no_grad()
    def bits_per_byte(self, model, length):
        """In windows of `length` that do not overlap."""
        places = np.arange(0, len(self.ids) - CONTEXT, 5 * CONTEXT)
        starts = (places[:, None] + np.arange(0, CONTEXT, length)).ravel()
        nats = scored = 0.0
        for some in np.array_split(starts, -(-len(starts) // 8)):
            windows = np.stack([self.ids[s : s + length + 1] for s in some])
            nats += model.loss(torch.from_numpy(windows)).item() * windows[:, 1:].size
            scored += self.bytes[windows[:, 1:]].sum()
        return nats / scored / np.log(2)

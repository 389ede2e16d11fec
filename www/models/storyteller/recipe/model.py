"""The storyteller in PyTorch: GPT-2's architecture, small. Both train.py and export.py use it."""

import torch
import torch.nn.functional as F
from torch import nn

LAYERS, HIDDEN, HEADS = 6, 192, 6
VOCABULARY, CONTEXT = 4096, 256
END_OF_TEXT = 0  # the tokenizer's only special token


class Block(nn.Module):
    """Attention, then a perceptron, each on a normalised copy of the stream `[batch, seq, hidden]`."""

    def __init__(self):
        super().__init__()
        self.ln_1 = nn.LayerNorm(HIDDEN)
        self.c_attn = nn.Linear(HIDDEN, 3 * HIDDEN)
        self.attn_c_proj = nn.Linear(HIDDEN, HIDDEN)
        self.ln_2 = nn.LayerNorm(HIDDEN)
        self.c_fc = nn.Linear(HIDDEN, 4 * HIDDEN)
        self.mlp_c_proj = nn.Linear(4 * HIDDEN, HIDDEN)

    def forward(self, x):
        batch, seq, _ = x.shape
        heads = [t.view(batch, seq, HEADS, -1).transpose(1, 2) for t in self.c_attn(self.ln_1(x)).split(HIDDEN, 2)]
        attended = F.scaled_dot_product_attention(*heads, is_causal=True)
        x = x + self.attn_c_proj(attended.transpose(1, 2).reshape(batch, seq, HIDDEN))
        return x + self.mlp_c_proj(F.gelu(self.c_fc(self.ln_2(x)), approximate="tanh"))


class Storyteller(nn.Module):
    """Token ids `[batch, seq]` to logits `[batch, seq, vocabulary]`; the head is the embedding."""

    def __init__(self):
        super().__init__()
        self.wte = nn.Embedding(VOCABULARY, HIDDEN)
        self.wpe = nn.Embedding(CONTEXT, HIDDEN)
        self.h = nn.ModuleList(Block() for _ in range(LAYERS))
        self.ln_f = nn.LayerNorm(HIDDEN)
        for module in self.modules():
            if isinstance(module, (nn.Linear, nn.Embedding)):
                nn.init.normal_(module.weight, std=0.02)
            if isinstance(module, nn.Linear):
                nn.init.zeros_(module.bias)
        for block in self.h:  # GPT-2 scales what is added to the stream by the number of additions
            for projection in (block.attn_c_proj, block.mlp_c_proj):
                nn.init.normal_(projection.weight, std=0.02 / (2 * LAYERS) ** 0.5)

    def forward(self, ids):
        x = self.wte(ids) + self.wpe(torch.arange(ids.shape[1]))
        for block in self.h:
            x = block(x)
        return self.ln_f(x) @ self.wte.weight.t()

    def loss(self, ids):
        """Mean nats per token of predicting `ids[:, 1:]` from what stands before each."""
        logits = self(ids[:, :-1])
        return F.cross_entropy(logits.reshape(-1, VOCABULARY), ids[:, 1:].reshape(-1))

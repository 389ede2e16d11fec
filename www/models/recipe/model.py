"""Both models in PyTorch: a pre-norm decoder with learned positions and a tied head, as GPT-2 and OPT are.

They differ in the perceptron's activation and in names: export.py gives each its own. Training runs in bf16 with f32
weights. What is computed by hand here, attention and the loss, is so because PyTorch's own is slower on a processor.
"""

import torch
import torch.nn.functional as F
from torch import nn

LAYERS, HIDDEN, HEADS = 6, 256, 4
VOCABULARY, CONTEXT = 4096, 512
ACTIVATION = {"gpt2": lambda x: F.gelu(x, approximate="tanh"), "opt": F.relu}


def attention(query, key, value, mask):
    """Causal attention, `[batch * heads, seq, head_dim]`; queries in chunks that see no key after them all."""
    seq, scale = query.shape[1], query.shape[2] ** -0.5
    attended = []
    for start in range(0, seq, 256):
        end = min(seq, start + 256)
        scores = torch.baddbmm(mask[start:end, :end], query[:, start:end] * scale, key[:, :end].transpose(1, 2))
        attended.append(torch.softmax(scores, -1) @ value[:, :end])
    return torch.cat(attended, 1)


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

    def forward(self, x, mask, activation):
        batch, seq, _ = x.shape
        heads = self.c_attn(self.ln_1(x)).view(batch, seq, 3, HEADS, -1).permute(2, 0, 3, 1, 4)
        attended = attention(*heads.reshape(3, batch * HEADS, seq, -1), mask).view(batch, HEADS, seq, -1)
        x = x + self.attn_c_proj(attended.transpose(1, 2).reshape(batch, seq, HIDDEN))
        return x + self.mlp_c_proj(activation(self.c_fc(self.ln_2(x))))


class CrossEntropy(torch.autograd.Function):
    """Mean nats per token of `stream @ embedding.T`; the gradient is made while the logits are still in cache."""

    CHUNK = 256

    @staticmethod
    def forward(ctx, stream, embedding, targets):
        total, d_stream, d_embedding = 0.0, torch.empty_like(stream), torch.zeros(embedding.shape)
        for start in range(0, len(targets), CrossEntropy.CHUNK):
            rows = stream[start : start + CrossEntropy.CHUNK]
            target = targets[start : start + CrossEntropy.CHUNK, None]
            log_probabilities = torch.log_softmax((rows @ embedding.t()).float(), 1)
            total -= log_probabilities.gather(1, target).sum()
            d_logits = log_probabilities.exp_()
            d_logits.scatter_add_(1, target, torch.full(target.shape, -1.0))
            d_logits = d_logits.div_(len(targets)).to(stream.dtype)
            d_stream[start : start + CrossEntropy.CHUNK] = d_logits @ embedding
            d_embedding += d_logits.t() @ rows
        ctx.save_for_backward(d_stream, d_embedding)
        return total / len(targets)

    @staticmethod
    def backward(ctx, d_loss):
        d_stream, d_embedding = ctx.saved_tensors
        return d_stream * d_loss, d_embedding * d_loss, None


class Decoder(nn.Module):
    """Token ids to logits over the vocabulary."""

    def __init__(self, architecture):
        super().__init__()
        self.activation = ACTIVATION[architecture]
        self.wte = nn.Embedding(VOCABULARY, HIDDEN)
        self.wpe = nn.Embedding(CONTEXT, HIDDEN)
        self.h = nn.ModuleList(Block() for _ in range(LAYERS))
        self.ln_f = nn.LayerNorm(HIDDEN)
        self.register_buffer("mask", torch.full((CONTEXT, CONTEXT), float("-inf")).triu(1).bfloat16(), persistent=False)
        for module in self.modules():
            if isinstance(module, (nn.Linear, nn.Embedding)):
                nn.init.normal_(module.weight, std=0.02)
            if isinstance(module, nn.Linear):
                nn.init.zeros_(module.bias)
        for block in self.h:  # every block begins as the identity
            nn.init.zeros_(block.attn_c_proj.weight)
            nn.init.zeros_(block.mlp_c_proj.weight)

    def stream(self, ids, offset):
        """What the head reads, `[batch, seq, hidden]` in bf16; the first token stands at position `offset`."""
        with torch.autocast("cpu", torch.bfloat16):
            x = self.wte(ids) + self.wpe.weight[offset : offset + ids.shape[1]]
            for block in self.h:
                x = block(x, self.mask, self.activation)
            return self.ln_f(x).bfloat16()

    def loss(self, ids, offset=0):
        """Mean nats per token of predicting `ids[:, 1:]` from what stands before each."""
        stream = self.stream(ids[:, :-1], offset).flatten(0, 1)
        return CrossEntropy.apply(stream, self.wte.weight.bfloat16(), ids[:, 1:].reshape(-1))

"""Step 2. Trains for a number of minutes (default 68) on train.bin, and writes checkpoint.pt.

Muon (orthogonalised momentum, Jordan 2024) moves the matrices of the blocks, AdamW everything else.
The amount of training is set by the clock, so two runs do not give the same weights.

Usage: python train.py [MINUTES]
"""

import sys
import time

import numpy as np
import torch

from model import CONTEXT, HIDDEN, Storyteller

BATCH = 16
ADAM_RATE, MUON_RATE = 3e-3, 0.02
MUON_MOMENTUM, MUON_DECAY = 0.95, 0.05


def sample(ids, rows, random):
    """`[rows, CONTEXT + 1]` token ids from random places."""
    starts = random.integers(0, len(ids) - CONTEXT - 1, rows)
    return torch.from_numpy(np.stack([ids[s : s + CONTEXT + 1] for s in starts]).astype(np.int64))


@torch.no_grad()
def held_out_loss(model, ids, rows=8, most=24):
    """Mean nats per token over the first batches of the held-out ids."""
    count = min(len(ids) // (CONTEXT * rows), most)
    losses = []
    for batch in range(count):
        starts = [(batch * rows + row) * CONTEXT for row in range(rows)]
        losses.append(model.loss(torch.from_numpy(np.stack([ids[s : s + CONTEXT + 1] for s in starts]).astype(np.int64))))
    return torch.stack(losses).mean().item()


def schedule(progress, step):
    """The learning rate's factor: 100 steps of warm-up, level until 30 %, then down in a line to 2 %."""
    decay = 1.0 if progress < 0.3 else (1 - progress) / 0.7 * 0.98 + 0.02
    return min(1.0, step / 100) * decay


def orthogonalised(gradient):
    """The nearest orthogonal matrix, by five Newton-Schulz steps."""
    a, b, c = 3.4445, -4.7750, 2.0315
    x = gradient / (gradient.norm() + 1e-7)
    tall = x.shape[0] > x.shape[1]
    x = x.T if tall else x
    for _ in range(5):
        product = x @ x.T
        x = a * x + (b * product + c * product @ product) @ x
    return x.T if tall else x


class Muon:
    """Momentum, then orthogonalisation; query, key and value of a fused matrix each on its own."""

    def __init__(self, parameters):
        self.momentum = {parameter: torch.zeros_like(parameter) for parameter in parameters}

    @torch.no_grad()
    def step(self, rate):
        for parameter, momentum in self.momentum.items():
            momentum.mul_(MUON_MOMENTUM).add_(parameter.grad)
            update = parameter.grad.add(momentum, alpha=MUON_MOMENTUM)
            if parameter.shape[0] == 3 * HIDDEN:
                update, scale = torch.cat([orthogonalised(part) for part in update.split(HIDDEN)]), 1.0
            else:
                update, scale = orthogonalised(update), max(1.0, parameter.shape[0] / parameter.shape[1]) ** 0.5
            parameter.mul_(1 - rate * MUON_DECAY).add_(update, alpha=-rate * scale)


def main(minutes):
    torch.manual_seed(1)
    random = np.random.default_rng(1)
    train, val = np.memmap("train.bin", np.uint16), np.memmap("val.bin", np.uint16)
    model = Storyteller()
    print(f"{sum(p.numel() for p in model.parameters())} parameters", flush=True)

    linear = ("c_attn", "attn_c_proj", "c_fc", "mlp_c_proj")
    matrices = [getattr(block, name).weight for block in model.h for name in linear]
    rest = [p for p in model.parameters() if not any(p is matrix for matrix in matrices)]
    adam = torch.optim.AdamW(rest, lr=ADAM_RATE, betas=(0.9, 0.95), weight_decay=0.0)
    muon = Muon(matrices)
    loss_of = torch.compile(model.loss)
    loss_of(sample(train, BATCH, random)).backward()  # compiles: minutes that are not training
    model.zero_grad(set_to_none=True)

    start, step, reported = time.time(), 0, 0.0
    while (progress := (time.time() - start) / 60 / minutes) < 1:
        rate = schedule(progress, step)
        loss = loss_of(sample(train, BATCH, random))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(rest, 1.0)
        for group in adam.param_groups:
            group["lr"] = ADAM_RATE * rate
        adam.step()
        muon.step(MUON_RATE * rate)
        model.zero_grad(set_to_none=True)
        step += 1
        if time.time() - reported > 300:
            reported = time.time()
            tokens = step * BATCH * CONTEXT / 1e6
            print(f"step {step}, {tokens:.2f} M tokens, train {loss.item():.3f}, held out {held_out_loss(model, val):.3f}", flush=True)
            torch.save(model.state_dict(), "checkpoint.pt")
    torch.save(model.state_dict(), "checkpoint.pt")
    print(f"step {step}, {step * BATCH * CONTEXT / 1e6:.2f} M tokens, held out {held_out_loss(model, val):.3f}")


if __name__ == "__main__":
    main(float(sys.argv[1]) if len(sys.argv) > 1 else 68)

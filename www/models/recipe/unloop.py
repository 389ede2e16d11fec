"""Step 3. Teaches a trained model to leave a loop, as Xu et al. 2022 do ("Learning to Break the Loop", DITTO).

Usage: python unloop.py gpt2|opt BUILD_FOLDER [STEPS]     (reads NAME.pt, writes NAME.unlooped.pt)

A model that has read the same words twice expects them a third time, and the more the oftener. So it is shown windows
in which a few tokens of the text are written again and again, and what it expects of each is to be half of what it
expected one round before. Half of every step is text as it stands, so that nothing else is forgotten.
"""

import sys
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from data import HeldOut, Windows
from model import CONTEXT, Decoder
from train import PASS_TOKENS, SEED

STEPS, REPORT_EVERY = 120, 20
RATE = 2e-4
ROWS = PASS_TOKENS // CONTEXT
LONGEST_ROUND = 40  # tokens; short rounds are as frequent as long ones
REMAINS = 0.5


def looped(windows, random):
    """The windows with a round of some tokens repeated to the end, where each repetition begins, and the rounds' lengths."""
    rounds = np.exp(random.uniform(0, np.log(LONGEST_ROUND + 1), len(windows))).astype(np.int64)
    starts = random.integers(LONGEST_ROUND, CONTEXT // 2, len(windows))
    windows = windows.clone()
    for window, start, length in zip(windows, starts, rounds):
        window[start:] = window[start - length : start].repeat(CONTEXT // length + 1)[: len(window) - start]
    return windows, starts, rounds


def loop_loss(model, windows, starts, rounds):
    """Mean of `-ln(1 - |p - REMAINS p'|)` of the repeated tokens, of which p' was the probability one round before."""
    logits = F.linear(model.stream(windows[:, :-1], 0), model.wte.weight.bfloat16()).float()
    nats = F.cross_entropy(logits.flatten(0, 1), windows[:, 1:].flatten(), reduction="none")
    losses = []
    for p, start, length in zip(nats.view(len(windows), -1).neg().exp(), starts - 1, rounds):
        before = p[start - length : -length].detach()
        losses.append(-torch.log1p(-(p[start:] - REMAINS * before).abs().clamp(max=1 - 1e-5)))
    return torch.cat(losses).mean()


def main(name, build, steps):
    torch.set_num_threads(1)
    model = Decoder(name)
    model.load_state_dict(torch.load(build / f"{name}.pt", weights_only=True)["model"])
    optimiser = torch.optim.AdamW(model.parameters(), RATE, betas=(0.9, 0.95), weight_decay=0)
    fall = torch.optim.lr_scheduler.LinearLR(optimiser, 1.0, 0.0, steps)
    text, source = Windows(build / "train.bin", SEED + 1), Windows(build / "train.bin", SEED + 2)
    random, held_out = np.random.default_rng(SEED), HeldOut(build)
    for step in range(steps):
        loss = model.loss(text.next(ROWS, CONTEXT))
        loss.backward()
        loop = loop_loss(model, *looped(source.next(ROWS, CONTEXT), random))
        loop.backward()
        optimiser.step()
        fall.step()
        optimiser.zero_grad(set_to_none=True)
        if step % REPORT_EVERY == 0 or step + 1 == steps:
            bits = held_out.bits_per_byte(model, CONTEXT)
            print(f"{name} step {step} text {loss.item():.4f} loops {loop.item():.4f} held-out {bits:.4f}", flush=True)
    torch.save({"model": model.state_dict()}, build / f"{name}.unlooped.pt")


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]) if len(sys.argv) > 3 else STEPS)

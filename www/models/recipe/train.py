"""Step 2. Trains gpt2 and opt in one process each: first together, on the same weights, then each on its own.

Usage: python train.py gpt2|opt BUILD_FOLDER [--part-at STEP] [--decay-at STEP] [--steps STEP] [--report-every STEPS]

While together, the activation is OPT's, which is the faster one, and windows are short. From `--part-at` on each has
its own activation, and windows of the whole context. The rate is level until `--decay-at` and falls to nothing at
`--steps`. In place of a number that is not given, a file in the build folder is waited for: `part`, or `decay`, which
holds the minutes of processor time that the fall shall take and also parts them.

A process that was killed goes on from the last checkpoint, to the same weights; while together, start both again.
"""

import argparse
import time
from pathlib import Path

import numpy as np
import torch

from crew import Alone, Crew
from data import HeldOut, Windows
from model import ACTIVATION, CONTEXT, Decoder
from muon import Optimiser

NAMES = ("gpt2", "opt")
SEED = 1
STEP_TOKENS, PASS_TOKENS = 8192, 4096  # tokens in a step, and in one pass through the model
SHORT = 256  # the windows' length while they train together
WARM_UP = 200
CHECKPOINT_SECONDS = 300


class Run:
    """The training of one model: all that a checkpoint must hold for it to go on."""

    def __init__(self, name, build, schedule):
        self.name, self.build = name, build
        self.step, self.step_seconds = 0, 0.0
        self.schedule = schedule  # part_at, decay_at, steps: the step, or None while it is not known
        torch.manual_seed(SEED)
        self.model = Decoder("opt")
        self.windows = Windows(build / "train.bin", SEED)
        self.optimiser = Optimiser(self.model)
        self.crew = Alone()

    def together(self):
        part_at = self.schedule["part_at"]
        return part_at is None or self.step < part_at

    def rate(self):
        """The factor of the learning rates."""
        decay_at, steps = self.schedule["decay_at"], self.schedule["steps"]
        decaying = decay_at is not None and self.step >= decay_at
        fall = 1 - ((self.step - decay_at) / (steps - decay_at)) ** 0.5 if decaying else 1.0
        return min(1.0, (self.step + 1) / WARM_UP) * fall

    def train_step(self, asked_to_part):
        """One step; the result is its loss, and whether any of the crew was asked to part."""
        length = SHORT if self.together() else CONTEXT
        self.model.activation = ACTIVATION["opt" if self.together() else self.name]
        losses = []
        for turn in range(STEP_TOKENS // PASS_TOKENS):
            ids = self.windows.next(PASS_TOKENS // length, length)
            if turn % self.crew.size != self.crew.rank:
                continue
            # Short windows stand anywhere in the context, half of them at its beginning, so that no position is new later.
            place = np.random.default_rng([SEED, self.step, turn])
            offset = int(place.integers(2) * place.integers(CONTEXT - length + 1))
            loss = self.model.loss(ids, offset)
            loss.backward()
            losses.append(loss.item())
        gradients = [parameter.grad for parameter in self.model.parameters()]
        torch._foreach_div_(gradients, len(losses))
        parting = self.crew.average(gradients, asked_to_part)
        self.optimiser.step(self.rate(), self.crew)
        self.model.zero_grad(set_to_none=True)
        self.step += 1
        return sum(losses) / len(losses), parting

    def meet(self):
        """Joins the other process if the two are to train the same weights."""
        if self.together():
            self.crew = Crew(NAMES.index(self.name), len(NAMES), self.build / "meeting")

    def save(self, file):
        """Atomic, so that a kill leaves the checkpoint before."""
        state = {
            "model": self.model.state_dict(),
            "optimiser": self.optimiser.state(),
            "windows": self.windows.state(),
            "run": {"step": self.step, "step_seconds": self.step_seconds, "schedule": self.schedule},
        }
        new = self.build / f"{self.name}.new"
        torch.save(state, new)
        new.rename(self.build / file)

    def checkpoint(self):
        """Each writes its own; while together the first writes for both."""
        if not self.together():
            self.save(f"{self.name}.pt")
        elif self.name == NAMES[0]:
            self.save("together.pt")

    def load(self):
        """Goes on from the last checkpoint, if there is one."""
        files = [self.build / f"{self.name}.pt", self.build / "together.pt"]
        file = next((file for file in files if file.exists()), None)
        if file is None:
            return
        state = torch.load(file, weights_only=True)
        self.model.load_state_dict(state["model"])
        self.optimiser.load(state["optimiser"])
        self.windows.load(state["windows"])
        vars(self).update(state["run"])


def train(run, report_every):
    held_out = HeldOut(run.build)
    schedule = run.schedule
    part_file, decay_file = run.build / "part", run.build / "decay"
    losses, saved = [], time.process_time()
    while schedule["steps"] is None or run.step < schedule["steps"]:
        together = run.together()
        if not together and schedule["decay_at"] is None and decay_file.exists():
            schedule["decay_at"] = run.step
            schedule["steps"] = run.step + round(60 * float(decay_file.read_text()) / run.step_seconds)
        asked_to_part = together and schedule["part_at"] is None and (part_file.exists() or decay_file.exists())
        before = time.process_time()
        loss, parting = run.train_step(asked_to_part)
        took = time.process_time() - before
        run.step_seconds = 0.98 * run.step_seconds + 0.02 * took if len(losses) > 2 else took
        losses.append(loss)
        if parting:
            schedule["part_at"] = run.step
        if together and not run.together():
            run.step_seconds *= run.crew.size  # alone, it makes every pass of a step itself
            if run.name == NAMES[0]:
                run.save("together.pt")
            run.crew = run.crew.parted()
        if run.step % report_every == 0 or run.step == schedule["steps"]:
            bits = held_out.bits_per_byte(run.model, SHORT if run.together() else CONTEXT)
            tokens = run.step * STEP_TOKENS
            own = STEP_TOKENS / run.crew.size / run.step_seconds
            print(
                time.strftime("%H:%M:%S"),
                f"step {run.step} tokens {tokens} train {np.mean(losses[-report_every:]):.4f} held-out {bits:.4f} bits/byte",
                f"rate {run.rate():.3f} tokens/s {own:.0f} schedule {schedule}",
                flush=True,
            )
        if time.process_time() - saved > CHECKPOINT_SECONDS:
            saved = time.process_time()
            run.checkpoint()
    run.checkpoint()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("name", choices=NAMES)
    parser.add_argument("build", type=Path)
    for option in ("--part-at", "--decay-at", "--steps"):
        parser.add_argument(option, type=int)
    parser.add_argument("--report-every", type=int, default=100)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    run = Run(arguments.name, arguments.build, {key: getattr(arguments, key) for key in ("part_at", "decay_at", "steps")})
    run.load()
    run.meet()
    train(run, arguments.report_every)


if __name__ == "__main__":
    main()

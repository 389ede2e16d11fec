"""Step 7. Writes a model's README.md from card.md, its files, its figures and its samples.

Usage: python card.py gpt2|opt BUILD_FOLDER MODEL_FOLDER
"""

import json
import sys
from pathlib import Path

import torch

from model import CONTEXT, HEADS, HIDDEN, LAYERS, VOCABULARY
from samples import LENGTH, SEED, TEMPERATURE
from train import STEP_TOKENS

NAMES = {"gpt2": ("storyteller", "GPT-2"), "opt": ("storyteller-opt", "OPT")}


def main(name, build, folder):
    model, architecture = NAMES[name]
    other, _ = NAMES["opt" if name == "gpt2" else "gpt2"]
    schedule = torch.load(build / f"{name}.pt", weights_only=True)["run"]["schedule"]
    figures = json.loads((build / f"{model}.figures.json").read_text())
    written = json.loads((build / f"{model}.samples.json").read_text())
    first = {sample["prompt"]: sample["text"] for sample in reversed(written["samples"])}
    card = (Path(__file__).parent / "card.md").read_text()
    values = dict(
        model=model,
        other=other,
        architecture=architecture,
        layers=LAYERS,
        hidden=HIDDEN,
        heads=HEADS,
        context=CONTEXT,
        vocabulary=f"{VOCABULARY:,}",
        parameters=f"{figures['parameters'] / 1e6:.2f} million",
        shared=round(schedule["part_at"] * STEP_TOKENS / 1e6, 1),
        total=round(schedule["steps"] * STEP_TOKENS / 1e6, 1),
        bits=f"{figures['bits_per_byte']:.3f}",
        **written["measured"],
        temperature=TEMPERATURE,
        seed=SEED,
        length=LENGTH,
        shown="\n\n---\n\n".join(f"**{prompt}**{first[prompt]}" for prompt in reversed(first)),
    )
    (folder / "README.md").write_text(card.format(**values))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]))

"""Step 6. Has a published model continue the prompts of prompts.txt, unpicked, and measures what it wrote.

Usage: python samples.py BUILD_FOLDER MODEL_FOLDER OUT.json SAMPLES_A_PROMPT

Temperature 0.8 and nothing else: every token may be drawn. Measured are the longest run of tokens that also stands in
the training text, loops, and what the patterns of left_out.txt find.
"""

import json
import sys
from pathlib import Path

import numpy as np
import torch

from prepare import left_out
from published import END_OF_TEXT, load, prompt_ids

SEED, TEMPERATURE, LENGTH = 7, 0.8, 200
GRAM = 8  # tokens that are looked up; longer runs are followed from there
LOOP_TOKENS, LOOP_PERIOD = 24, 40


@torch.inference_mode()
def sampled(model, prompt, number):
    """`number` continuations: ids up to the end of the text, or LENGTH of them."""
    how = dict(do_sample=True, temperature=TEMPERATURE, top_k=0, top_p=1.0, max_new_tokens=LENGTH)
    rows = model.generate(torch.tensor([prompt]), num_return_sequences=number, **how)[:, len(prompt) :].tolist()
    return [ids[: ids.index(END_OF_TEXT)] if END_OF_TEXT in ids else ids for ids in rows]


class Known:
    """The training text, for finding what is copied from it."""

    def __init__(self, ids):
        self.ids = ids
        grams = self.grams(ids)
        self.places = np.argsort(grams, kind="stable")
        self.sorted = grams[self.places]

    @staticmethod
    def grams(ids):
        """A number for each run of GRAM ids."""
        count = max(0, len(ids) - GRAM + 1)
        value = np.zeros(count, np.uint64)
        for offset in range(GRAM):
            value = value * np.uint64(0x9E3779B97F4A7C15) + ids[offset : offset + count].astype(np.uint64) + np.uint64(1)
        return value

    def longest_run(self, sample):
        """The longest run of ids that both hold, and where it begins in the sample; runs below GRAM count as 0."""
        sample = np.array(sample, dtype=np.uint16)
        best = (0, 0)
        for start, gram in enumerate(self.grams(sample)):
            low, high = np.searchsorted(self.sorted, [gram, gram + np.uint64(1)])
            for place in self.places[low:high]:
                length = min(len(sample) - start, len(self.ids) - place)
                differing = np.flatnonzero(sample[start : start + length] != self.ids[place : place + length])
                best = max(best, (int(differing[0]) if len(differing) else length, start))
        return best


def loops(ids):
    """Whether the same ids follow each other three times or more, over LOOP_TOKENS or more."""
    ids = np.array(ids)
    for period in range(1, LOOP_PERIOD + 1):
        run = 0
        for same in ids[period:] == ids[:-period]:
            run = run + 1 if same else 0
            if run >= max(2 * period, LOOP_TOKENS - period):
                return True
    return False


def main(build, folder, out, number):
    torch.set_num_threads(1)  # one token is too little work to share
    torch.manual_seed(SEED)
    model, tokenizer = load(folder)
    known = Known(np.fromfile(build / "train.bin", np.uint16))
    demeaning = left_out()
    samples, runs, looping, found = [], [], 0, []
    for prompt in (Path(__file__).parent / "prompts.txt").read_text().splitlines():
        for ids in sampled(model, prompt_ids(tokenizer, prompt), number):
            samples.append({"prompt": prompt, "text": tokenizer.decode(ids)})
            run, start = known.longest_run(ids)
            runs.append((run, tokenizer.decode(ids[start : start + run])))
            looping += loops(ids)
            found += demeaning.findall(samples[-1]["text"])
    longest, copied = max(runs)
    measured = dict(
        samples=len(samples),
        longest_run=longest,
        copied=copied,
        median_run=int(np.median([run for run, _ in runs])),
        loops=looping,
        left_out_words=found,
    )
    out.write_text(json.dumps({"measured": measured, "samples": samples}, indent=1) + "\n")
    print(f"{folder}: {measured}")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:4]), int(sys.argv[4]))

"""Step 1. Cleans the books and writes tokenizer.json, train.bin, held_out.bin (uint16 ids), train.txt and held_out.txt.

Usage: python prepare.py FOLDER_OF_TXT BUILD_FOLDER [BOOKS]     (only the first so many books of books.tsv)
"""

import csv
import re
import sys
from itertools import islice
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

from clean import stories

HERE = Path(__file__).parent
VOCABULARY = 4096
END_OF_TEXT = "<|endoftext|>"  # id 0, between stories
HELD_OUT = 0.015  # the last part of each book


def left_out():
    """The pattern of the paragraphs that are left out."""
    lines = (HERE / "left_out.txt").read_text().splitlines()
    return re.compile(r"\b(?:" + "|".join(line for line in lines if line and line[0] != "#") + r")(?!\w)", re.I)


def parted(told):
    """A book's stories as training text and held-out text; the cut falls between two paragraphs."""
    pieces = [("\n\n" if n else END_OF_TEXT, text) for story in told for n, text in enumerate(story)]
    room = HELD_OUT * sum(len(text) for _, text in pieces)
    cut = len(pieces)
    while sum(len(text) for _, text in pieces[cut:]) < room:
        cut -= 1
    return tuple("".join(map("".join, part))[len(part[0][0]) :] for part in (pieces[:cut], pieces[cut:]))


def train_tokenizer(texts):
    """A byte-level BPE, as GPT-2 has one."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=[END_OF_TEXT],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def main(folder, build, books):
    build.mkdir(parents=True, exist_ok=True)
    demeaning, dropped, paragraphs = left_out(), 0, 0
    texts = {"train": [], "held_out": []}
    with open(HERE / "books.tsv", newline="") as table:
        for book in islice(csv.DictReader(table, delimiter="\t", quoting=csv.QUOTE_NONE), books):
            text = (folder / book["file"]).read_text(encoding="utf-8", errors="replace")
            told = stories(text, book["begins"], book["ends"], many=book["holds"] == "stories")
            kept = [[text for text in story if not demeaning.search(text)] for story in told]
            paragraphs += sum(map(len, told))
            dropped += sum(map(len, told)) - sum(map(len, kept))
            for part, text in zip(texts, parted([story for story in kept if story])):
                texts[part].append(text)
    tokenizer = train_tokenizer(texts["train"])
    tokenizer.save(str(build / "tokenizer.json"))
    print(f"{len(texts['train'])} books, {paragraphs} paragraphs, {dropped} left out")
    for part, books in texts.items():
        text = END_OF_TEXT + END_OF_TEXT.join(books)
        ids = np.array(tokenizer.encode(text).ids, dtype=np.uint16)
        ids.tofile(build / f"{part}.bin")
        (build / f"{part}.txt").write_text(text)
        length = len(text.replace(END_OF_TEXT, "").encode())
        print(f"{part}: {length} bytes, {len(ids)} tokens, {length / len(ids):.3f} bytes a token")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]) if len(sys.argv) > 3 else None)

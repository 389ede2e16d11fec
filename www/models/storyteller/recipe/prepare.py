"""Step 1. Cleans the books, trains the tokenizer, and writes tokenizer.json, train.bin and val.bin (uint16 ids).

Usage: python prepare.py FOLDER_OF_TXT
"""

import re
import sys
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

from model import END_OF_TEXT, VOCABULARY

HELD_OUT = 0.015  # the last part of each book

TYPOGRAPHY = {"\u2019": "'", "\u2018": "'", "\u201c": '"', "\u201d": '"', "\u2014": "--", "_": ""}
HEADING = re.compile(r"^(CHAPTER|Chapter|\[Illustration|ILLUSTRATION|CONTENTS|PREFACE|[IVXLC]+\.?$)")
EDITORIAL = re.compile(r"\[Illustration[^\]]*\]|\[\d+\]|\{\d+\}")


def clean(book):
    """A book as paragraphs of one line each, without headings, illustrations and note marks."""
    for typographic, plain in TYPOGRAPHY.items():
        book = book.replace(typographic, plain)
    paragraphs = [re.sub(r"\s+", " ", paragraph).strip() for paragraph in re.split(r"\n\s*\n", book)]
    paragraphs = [p for p in paragraphs if len(p) > 1 and not p.isupper() and not HEADING.match(p)]
    paragraphs = [EDITORIAL.sub("", p).strip() for p in paragraphs]
    return "\n\n".join(p for p in paragraphs if p)


def train_tokenizer(books):
    """A byte-level BPE, as GPT-2 has one."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=["<|endoftext|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(books, trainer)
    return tokenizer


def main(folder):
    files = sorted(Path(folder).glob("*.txt"))
    if not files:
        sys.exit(f"{folder} holds no .txt file")
    books = [clean(file.read_text(encoding="utf-8", errors="replace")) for file in files]
    tokenizer = train_tokenizer(books)
    tokenizer.save("tokenizer.json")
    encoded = [np.array([END_OF_TEXT, *tokenizer.encode(book).ids], dtype=np.uint16) for book in books]
    kept = [int(len(ids) * (1 - HELD_OUT)) for ids in encoded]
    np.concatenate([ids[:n] for ids, n in zip(encoded, kept)]).tofile("train.bin")
    np.concatenate([ids[n:] for ids, n in zip(encoded, kept)]).tofile("val.bin")
    print(f"{len(books)} books, {sum(map(len, encoded))} tokens, {sum(map(len, encoded)) - sum(kept)} of them held out")


if __name__ == "__main__":
    main(sys.argv[1])

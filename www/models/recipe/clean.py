"""A book of Project Gutenberg as stories: lists of paragraphs, one line each.

Typography becomes ASCII: straight quotes, doubled for speech, `--` for a dash. Headings, captions, tables,
notes and separators go; lines of prose are joined, lines of verse stay lines. Nothing here knows a book by name.
"""

import re
import unicodedata

ASCII = str.maketrans({
    "\u2018": "'", "\u2019": "'", "\u00b4": "'", "`": "'", "\u201c": '"', "\u201d": '"',
    "\u2014": "--", "\u2013": "-", "\u00a0": " ", "\u00e6": "ae", "\u00c6": "Ae", "\u0153": "oe", "\u00f8": "o",
    "\ufeff": "", "\r": "", "_": "", "=": "", "~": "",
})  # fmt: skip

# [Illustration: ...], [12], {12}, [Pg 12], (12): what an editor put between or inside sentences.
EDITORIAL = re.compile(r"\[[^\]]{1,400}\]|\{\w+\}|\((?:\d+|[*+])\)")
# A paragraph that is a note, a caption or a source, though it reads like prose.
NOTE = re.compile(
    r"\(?\d+[).\]]|footnote|transcriber|illustrat(?:ion|ed)|frontispiece|copyright|all rights reserved|chapter\b"
    r"|end of|the end\b|finis\b|produced by|printed (?:by|in|and)|translated (?:by|from)|by the same author",
    re.I,
)
# What follows a book's end.
AFTER = re.compile(r"^\W*(?:THE END\W*$|NOTES AND REFERENCES|LIFE OF AESOP|Transcriber)", re.M)
# A note in brackets may go on over several paragraphs.
LONG_NOTE = re.compile(r"\[(?:Footnote|Frontispiece|Illustration|Note|Sidenote|Picture)[^\]]*\]")
# Whom a tale is from, below it: `(From the Russian.)`, `Charles Perrault.`, `Par Madame d'Aulnoy.`
SOURCE = re.compile(
    r"\([^)]{1,140}\)?|(?:From|Adapted|Translated|Traditions|Cuentos) .{1,120}"
    r"|(?:(?:[A-Z][\w.,']*|par|de|la|le|et|d'\w+|du|des)[ .,]*){1,10}"
)
# A paragraph that a page's end broke in two.
BROKEN = re.compile(r"[a-z,]$")
# The number of the page on which such a paragraph goes on.
PAGE = re.compile(r"\d{1,3} [a-z]")
# A chapter's first words in capitals.
DROP_CAP = re.compile(r"^[A-Z]{2,}(?:,? [A-Z]{2,})*(?=,? [a-z])")
TYPESETTING = [
    (r"(?<=[A-Za-z])- (?=[A-Za-z])", "-"),  # a word that a line's end broke at its hyphen
    (r" *-{2,} *| - ", "--"),
    (r"\*[* ]*", ""),
    (r" +([,.;:!?])", r"\1"),
    (r" {2,}", " "),
]
# What is in no sentence of a story, but in tables, addresses and catalogues.
UNTOLD = re.compile(r"[|\[\]{}@#^<>+/\\]")
HEADING_WORDS = 16
NUMERAL = re.compile(r"^[\divxlcIVXLC\d. -]+$")
SMALL_WORD = {
    "a", "an", "and", "as", "at", "but", "by", "for", "from", "how", "in", "into", "is", "it", "of", "off", "on", "or",
    "out", "over", "s", "than", "that", "the", "their", "to", "up", "upon", "was", "were", "when", "which", "who", "with",
}  # fmt: skip
# Words that begin with an apostrophe, which an opening quote looks like.
ELIDED = (
    r"(?:t[iw]\w*|em|un|ee|e|im|ave|ome|ouse|cause|bout|s?cuse|nough|cept|spect|stead|tother|fraid|citement|satiable)\b"
)
OPENING = re.compile(r"(^|[\s(\0-])'(?!" + ELIDED + r")(?='?[\w(-])", re.I)
CLOSING = re.compile(r"([.,!?;:)-])'(?=$|[\s\-).,;:!?\0])")
QUOTED_WORDS = re.compile(r"(^|[\s(-])'(\w[\w ]{0,40}?\w|\w)'(?=[\s,.;:!?)-])")


def ascii_only(book):
    """The book without typographic quotes and dashes, italics' underscores and accents."""
    book = unicodedata.normalize("NFKD", book.translate(ASCII))
    return "".join(c for c in book if c.isascii())


def blocks(book):
    """Runs of lines between blank lines."""
    return [block.split("\n") for block in re.split(r"\n[ \t]*(?:\n[ \t]*)+", book.strip("\n"))]


def is_heading(text):
    """Numerals, capitals, or a few words without a sentence's end or with no long one in small letters."""
    text = re.sub(r"(?<=\S) ?\([^)]*\)$", "", text)  # KING KOJATA (From the Russian)
    words = re.findall(r"[A-Za-z][A-Za-z'.-]*", text)
    if not words or NUMERAL.match(text) or (text.isupper() and len(words) > 2):
        return True
    if len(words) > HEADING_WORDS or '"' in text:
        return False
    letters = [c for c in text if c.isalpha()]
    if sum(c.isupper() for c in letters) > 0.7 * len(letters) and len(letters) > 3:
        return True
    if text[-1] != ".":
        return text[-1] not in "!?\"':;,)-"
    return len(words) > 2 and not any(w[0].islower() and w not in SMALL_WORD for w in words[1:])


def is_table(lines):
    """Contents, advertisements and boxes: columns, dot leaders, rules."""
    return sum(bool(re.search(r"\S {3,}\S|\. ?\. ?\.  ?\.|[|+]|\s\d+$", line.strip())) for line in lines) * 2 > len(lines)


def is_verse(lines, width):
    """Two or more short lines that begin with capitals; prose fills its lines."""
    stripped = [line.strip() for line in lines]
    if len(stripped) < 2 or max(map(len, stripped)) > 0.84 * width:
        return False
    capitals = sum(bool(re.match(r"[\"'(-]*[A-Z]", line)) for line in stripped)
    indented = sum(line.startswith("  ") for line in lines)
    return indented * 3 >= len(lines) * 2 or (len(lines) > 2 and capitals == len(lines))


def double_quotes(text):
    """Speech in single quotes gets double ones, and speech inside speech single ones."""
    text = text.replace('"', "\0")
    text = CLOSING.sub(r'\1"', OPENING.sub(r'\1"', QUOTED_WORDS.sub(r'\1"\2"', text)))
    return text.replace("\0", "'")


def paragraph(lines, width):
    """The text of a block, or None where it is no part of the story."""
    stripped = [re.sub(r"\s+", " ", line).strip() for line in lines]
    text = EDITORIAL.sub("", ("\n" if is_verse(lines, width) else " ").join(stripped))
    for pattern, replacement in TYPESETTING:
        text = re.sub(pattern, replacement, text)
    text = DROP_CAP.sub(lambda capitals: capitals[0].capitalize(), text.strip())
    return None if len(text) < 2 or NOTE.match(text) or UNTOLD.search(text) else text


def bounded(found, begins, ends):
    """What stands from the paragraph that starts with `begins` to the one that ends with `ends` (empty: the last)."""
    numbered = [(number, text) for number, story in enumerate(found) for text in story]
    first = next(i for i, (_, text) in enumerate(numbered) if text.lower().startswith(begins.lower()))
    last = next((i for i, (_, text) in enumerate(numbered) if ends and text.endswith(ends)), len(numbered) - 1)
    kept = numbered[first : last + 1]
    return [[text for n, text in kept if n == number] for number in sorted({number for number, _ in kept})]


def stories(book, begins, ends, many):
    """The paragraphs of a book: a list for each story where it holds `many`, else one list."""
    book = ascii_only(book)
    after = AFTER.search(book, len(book) // 2)
    book = LONG_NOTE.sub("", book[: after.start()] if after else book)
    lengths = sorted(len(line) for line in book.split("\n") if len(line) > 30)
    width = lengths[len(lengths) * 9 // 10]
    single = len(OPENING.findall(book)) > book.count('"')
    found = [[]]
    for lines in blocks(book):
        joined = EDITORIAL.sub("", " ".join(line.strip() for line in lines)).strip()
        if not joined or is_table(lines):
            continue
        if is_heading(joined):
            found.append([])
            continue
        text = paragraph(lines, width)
        if not text:
            continue
        text = double_quotes(text) if single else text
        if found[-1] and "\n" not in found[-1][-1] + text and (BROKEN.search(found[-1][-1]) or PAGE.match(text)):
            found[-1][-1] += " " + re.sub(r"^\d+ ", "", text)
        else:
            found[-1].append(text)
    found = bounded(found, begins, ends)
    if not many:
        return [[text for story in found for text in story]]
    told = [story[:-1] if SOURCE.fullmatch(story[-1]) else story for story in found]
    return [story for story in told if story]

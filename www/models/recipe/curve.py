"""Draws the held-out bits per byte of both models against the tokens that each has read, from their logs.

Usage: python curve.py BUILD_FOLDER OUT.svg
"""

import math
import re
import sys
from pathlib import Path

WIDTH, HEIGHT = 640, 300
LEFT, RIGHT, TOP, BOTTOM = 44, 12, 12, 36
MOST_BITS = 2.6
COLOURS = {"gpt2": "#b5542c", "opt": "#2c6fb5"}
LABELS = {"gpt2": "storyteller (GPT-2)", "opt": "storyteller-opt (OPT)"}
LINE = re.compile(r"tokens (\d+) train \S+ held-out (\S+) bits/byte")


def read(log):
    """`(million tokens, bits per byte)`; a resumed training wrote some steps twice, and the last counts."""
    return sorted({int(tokens) / 1e6: float(bits) for tokens, bits in LINE.findall(log.read_text())}.items())


def main(build, out):
    curves = {name: read(build / f"{name}.log") for name in COLOURS}
    points = [point for curve in curves.values() for point in curve]
    most, least_bits = max(x for x, _ in points), math.floor(min(y for _, y in points) * 10) / 10

    def place(x, y):
        right = LEFT + (WIDTH - LEFT - RIGHT) * x / most
        down = TOP + (HEIGHT - TOP - BOTTOM) * (MOST_BITS - y) / (MOST_BITS - least_bits)
        return f"{right:.1f},{down:.1f}"

    svg = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}"',
        ' font-family="sans-serif" font-size="11" fill="#777">',
        "<title>Held-out bits per byte against tokens read</title>",
    ]
    for tenth in range(round(least_bits * 10), round(MOST_BITS * 10) + 1, 2):
        x, y = place(0, tenth / 10).split(",")
        svg.append(f'<path d="M{x} {y}H{WIDTH - RIGHT}" stroke="#7773"/>')
        svg.append(f'<text x="{LEFT - 6}" y="{y}" dy="4" text-anchor="end">{tenth / 10}</text>')
    step = 10 ** math.floor(math.log10(most)) / 2
    for mark in range(int(most / step) + 1):
        x, _ = place(mark * step, least_bits).split(",")
        svg.append(f'<text x="{x}" y="{HEIGHT - 18}" text-anchor="middle">{mark * step:g}</text>')
    svg.append(f'<text x="{WIDTH - RIGHT}" y="{HEIGHT - 4}" text-anchor="end">million tokens read</text>')
    svg.append(f'<text x="{LEFT}" y="{HEIGHT - 4}">bits per byte of held-out text</text>')
    for row, (name, curve) in enumerate(curves.items()):
        drawn = " ".join(place(x, y) for x, y in curve if y <= MOST_BITS)
        svg.append(f'<polyline points="{drawn}" fill="none" stroke="{COLOURS[name]}" stroke-width="1.5"/>')
        y = TOP + 14 + 16 * row
        svg.append(f'<text x="{WIDTH - RIGHT}" y="{y}" text-anchor="end" fill="{COLOURS[name]}">{LABELS[name]}</text>')
    out.write_text("\n".join([*svg, "</svg>", ""]))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))

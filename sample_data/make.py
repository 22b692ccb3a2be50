"""Write the generated parts of the sample data again, byte for byte.

    python sample_data/make.py --out sample_data

Needs nothing but the standard library. The novella, book.txt, is not made by a program.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from pathlib import Path

from generators.clauses import draw_sentence
from generators.draw import Draw, split
from generators.english import Token, english
from generators.german import german
from generators.music import draw_chorale
from generators.pronunciation import draw_word
from generators.sentiment import Twins, draw_twins

Files = dict[str, list[str]]  # name -> lines


def pairs() -> Files:
    """English TAB German, 2000 and 200."""
    draw = Draw("pairs")

    def make() -> tuple[str, str]:
        sentence = draw_sentence(draw)
        return " ".join(word for word, _ in english(sentence)), " ".join(german(sentence))

    def words(pair: tuple[str, str]) -> list[str]:
        return [*(f"en:{word}" for word in pair[0].split()), *pair[1].split()]

    train, valid = split(make, lambda pair: pair[0], words, 2000, 200)
    return _files("pairs.tsv", ("\t".join(p) for p in train), ("\t".join(p) for p in valid))


def sentiment() -> Files:
    """Label TAB text, 600 and 100: 300 and 50 of each label."""

    def words(twins: Twins) -> list[str]:
        return [word for _, text in twins for word in text.split()]

    draw = Draw("sentiment")
    train, valid = split(lambda: draw_twins(draw), frozenset, words, 300, 50)
    return _files(
        "sentiment.tsv",
        ("\t".join(line) for twins in train for line in twins),
        ("\t".join(line) for twins in valid for line in twins),
    )


def tags() -> Files:
    """Token TAB tag, a blank line after each sentence but the last, 400 and 60 sentences."""
    draw = Draw("tags")

    def make() -> tuple[Token, ...]:
        return tuple(english(draw_sentence(draw)))

    def words(tokens: tuple[Token, ...]) -> list[str]:
        return [word for word, _ in tokens]

    def lines(sentences: list[tuple[Token, ...]]) -> list[str]:
        blocks = [["\t".join(token) for token in sentence] for sentence in sentences]
        return [line for block in blocks for line in (*block, "")][:-1]

    train, valid = split(make, lambda tokens: " ".join(words(tokens)), words, 400, 60)
    return _files("tags.tsv", lines(train), lines(valid))


def music() -> Files:
    """One chorale a line, 80 and 10."""
    draw = Draw("music")
    train, valid = split(lambda: " ".join(draw_chorale(draw)), str, lambda piece: [], 80, 10)
    return _files("music.txt", train, valid)


def pronunciation() -> Files:
    """Word TAB phonemes, 1500 and 150."""
    draw = Draw("pronunciation")
    train, valid = split(
        lambda: draw_word(draw), lambda entry: entry[0], lambda entry: entry[1], 1500, 150
    )
    return _files(
        "pronunciation.tsv",
        (f"{word}\t{' '.join(phonemes)}" for word, phonemes in train),
        (f"{word}\t{' '.join(phonemes)}" for word, phonemes in valid),
    )


def _files(name: str, train: Iterable[str], valid: Iterable[str]) -> Files:
    stem, _, ending = name.partition(".")
    return {name: list(train), f"{stem}.valid.{ending}": list(valid)}


def main() -> None:
    """Write every generated file into a folder."""
    parser = argparse.ArgumentParser(description="Write the generated parts of the sample data.")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="an existing folder")
    out: Path = parser.parse_args().out
    if not out.is_dir():
        parser.error(f"--out: {out} is not a folder; make it first")
    for files in (pairs(), sentiment(), tags(), music(), pronunciation()):
        for name, lines in files.items():
            (out / name).write_bytes("".join(f"{line}\n" for line in lines).encode())


if __name__ == "__main__":
    main()

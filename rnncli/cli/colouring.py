"""Tokens as coloured text: on a terminal, and as a page of HTML that needs nothing else."""

from __future__ import annotations

import html
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rnncli.cli.console import printable
from rnncli.text.protocol import without_surrogates

if TYPE_CHECKING:
    from rich.text import Text

    from rnncli.evaluation.explain import Explained
    from rnncli.text.tokenizers import Tokenizer

LEVELS = 10
"""Shades of each of the two colours."""

LINE_END_SIGN = "↵"
_POSITIVE, _NEGATIVE = (214, 39, 40), (31, 119, 180)
_WHITE = 255

Colour = tuple[int, int, int]


@dataclass(frozen=True)
class Segment:
    """Some characters and the value of the token, or tokens, that make them."""

    text: str
    value: float


@dataclass(frozen=True)
class Scale:
    """What the colours say. ``subject`` in words; ``full``: the value of the deepest shade;
    ``signed``: whether values may be below 0; ``additive``: a character's value is the sum of its
    tokens', else the last one's."""

    subject: str
    full: float
    signed: bool = True
    additive: bool = False

    def level(self, value: float) -> int:
        """From -LEVELS to LEVELS; 0 is no colour."""
        if value != value:
            return 0
        return max(-LEVELS, min(LEVELS, round(LEVELS * value / self.full)))

    @property
    def legend(self) -> str:
        below = f", the deepest blue {-self.full:g}" if self.signed else ""
        return f"{self.subject}; the deepest red is {self.full:g}{below}"


def shade(level: int) -> Colour:
    """White for 0, through lighter reds (above) or blues (below) to the deepest."""
    deepest = _POSITIVE if level > 0 else _NEGATIVE
    red, green, blue = (_WHITE + (c - _WHITE) * abs(level) // LEVELS for c in deepest)
    return red, green, blue


def segments(tokenizer: Tokenizer, one: Explained, scale: Scale) -> Iterator[Segment]:
    """A line's text in pieces, its end last."""
    decoder = tokenizer.decoder()
    *tokens, _ = one.tokens
    *values, last = one.values.tolist()
    waiting: float | None = None
    for token, value in zip(tokens, values, strict=True):
        waiting = value + (waiting or 0.0) if scale.additive else value
        if text := decoder.push(token):
            yield Segment(text, waiting)
            waiting = None
    if (text := decoder.finish()) or waiting is not None:
        yield Segment(text, 0.0 if waiting is None else waiting)
    yield Segment(LINE_END_SIGN, last)


def coloured_line(parts: Iterable[Segment], scale: Scale) -> Text:
    """One line for rich's console."""
    from rich.text import Text

    line = Text()
    for part in parts:
        level = scale.level(part.value)
        colour = "black on rgb({},{},{})".format(*shade(level)) if level else ""
        line.append(printable(part.text), colour)
    return line


def page(title: str, scale: Scale, lines: Iterable[Iterable[Segment]]) -> Iterator[str]:
    """The parts of an HTML document. Pointing at a token shows its value."""
    name = html.escape(without_surrogates(title))
    yield (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f"<title>{name}</title>\n<style>\n{_style()}</style>\n</head>\n<body>\n"
        f"<h1>{name}</h1>\n<p>{html.escape(scale.legend)}. {_key(scale)}</p>\n<pre>\n"
    )
    for line in lines:
        yield "".join(_span(part, scale) for part in line) + "\n"
    yield "</pre>\n</body>\n</html>\n"


def _style() -> str:
    levels = [level for level in range(-LEVELS, LEVELS + 1) if level]
    shades = "".join(f".{_name(k)}{{background:#{_hex(shade(k))}}}\n" for k in levels)
    return (
        ":root{color-scheme:light}\n"
        "body{font-family:sans-serif;margin:2em;color:#000;background:#fff}\n"
        "pre{font-size:1.1em;line-height:1.5;white-space:pre-wrap}\n"
    ) + shades


def _key(scale: Scale) -> str:
    """The shades in order, each with the value it stands for."""
    levels = range(-LEVELS if scale.signed else 0, LEVELS + 1)
    marks = (Segment(" ", scale.full * level / LEVELS) for level in levels)
    return "".join(_span(mark, scale) for mark in marks)


def _span(part: Segment, scale: Scale) -> str:
    level = scale.level(part.value)
    shown = f' class="{_name(level)}"' if level else ""
    text = html.escape(without_surrogates(part.text))
    return f'<span{shown} title="{part.value:.4g}">{text}</span>'


def _name(level: int) -> str:
    return f"{'p' if level > 0 else 'n'}{abs(level)}"


def _hex(colour: Colour) -> str:
    return "".join(f"{part:02x}" for part in colour)

"""A text cut for evaluation: every token is a target exactly once, whatever the shape.

Training may leave out the few tokens that fill no batch (``rnncli.text.batching``); here nothing is
left out.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from rnncli.text.batching import LineBatches

Array = npt.NDArray[Any]

PIECE = 256
"""Time steps run at once; longer texts and lines hand the state on."""

_LINES_AT_ONCE = 32
_TOKENS_AT_ONCE = 1 << 20  # longer lines are run by themselves
_RATIO, _SLACK = 2, 16  # lines run together: the longest at most ratio * shortest + slack


@dataclass(frozen=True)
class Piece:
    """inputs, targets: (T, B) int64; mask: (T, B), false for padding, or None for no padding.
    ``fresh``: sequences begin here; else they go on where the piece before stopped."""

    inputs: Array
    targets: Array
    mask: Array | None
    fresh: bool


def column_pieces(ids: Array, boundary_id: int, columns: int, piece: int) -> Iterator[Piece]:
    """A text (N,) cut into 1 to N contiguous ``columns``, the first ones a token longer where it
    does not divide. What precedes the first is ``boundary_id``."""
    length, longer = divmod(len(ids), columns)
    starts = np.arange(columns) * length + np.minimum(np.arange(columns), longer)
    for begin in range(0, length, piece):
        end = min(begin + piece, length)
        both = np.empty((end - begin + 1, columns), np.int64)
        for column, start in enumerate(starts.tolist()):
            first = start + begin - 1
            if first < 0:
                both[0, column] = boundary_id
                both[1:, column] = ids[:end]
            else:
                both[:, column] = ids[first : start + end]
        yield Piece(both[:-1], both[1:], None, fresh=begin == 0)
    if longer:
        lasts = starts[:longer] + length
        both = np.full((2, columns), boundary_id, np.int64)
        both[0, :longer], both[1, :longer] = ids[lasts - 1], ids[lasts]
        yield Piece(both[:1], both[1:], np.arange(columns)[None, :] < longer, fresh=length == 0)


def line_pieces(ids: Array, boundary_id: int, piece: int) -> Iterator[Piece]:
    """The lines of a text (N,), each ended by ``boundary_id``, those of like length together."""
    lengths = LineBatches([ids], 1, boundary_id).lengths
    ends = np.cumsum(lengths)
    for numbers in group_lines(lengths, _LINES_AT_ONCE):
        lines = [ids[ends[n] - lengths[n] : ends[n] - 1] for n in numbers]
        yield from whole_pieces(*fill_lines(lines, boundary_id), piece)


def group_lines(lengths: Array, lines_at_once: int) -> Iterator[list[int]]:
    """The numbers of lines to run together, every line once, by length."""
    group: list[int] = []
    for number in np.argsort(lengths, kind="stable").tolist():
        size = lengths[number]
        if group and (
            len(group) == lines_at_once
            or size > _RATIO * lengths[group[0]] + _SLACK
            or size * (len(group) + 1) > _TOKENS_AT_ONCE
        ):
            yield group
            group = []
        group.append(number)
    if group:
        yield group


def fill_lines(
    lines: Sequence[Sequence[int] | Array], boundary_id: int
) -> tuple[Array, Array, Array]:
    """Inputs, targets and mask (T, B) of lines without their ends, which are added as targets."""
    lengths = np.array([len(line) + 1 for line in lines])
    both = np.full((lengths.max() + 1, len(lines)), boundary_id, np.int64)
    for column, line in enumerate(lines):
        both[1 : len(line) + 1, column] = line
    return both[:-1], both[1:], np.arange(lengths.max())[:, None] < lengths


def whole_pieces(inputs: Array, targets: Array, mask: Array, piece: int) -> Iterator[Piece]:
    """Whole sequences, each array (T, B), in pieces of ``piece`` steps."""
    for start in range(0, len(inputs), piece):
        part = slice(start, start + piece)
        yield Piece(inputs[part], targets[part], mask[part], fresh=start == 0)

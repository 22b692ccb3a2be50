"""Token streams as batches: parallel columns with carried state, or whole lines of like length."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from rnncli.text.corpus import TokenStream

Ids = npt.NDArray[np.unsignedinteger[Any]]
Tokens = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]
Item = TypeVar("Item")

_SCAN = 1 << 24  # tokens looked at together when lines are found
LENGTH_SPREAD = 0.1  # how far lengths are jittered, so that lines meet others each epoch
_RATIO, _SLACK = 2, 16  # a batch is cut where its lines get longer than ratio * shortest + slack


class Stream:
    """Training streams: the tokens cut into ``batch_size`` contiguous columns (the rest, fewer than
    ``batch_size`` tokens, left out). What precedes column 0 is ``boundary_id``; what precedes any
    other column is the token before it."""

    def __init__(self, parts: Sequence[Ids], batch_size: int, boundary_id: int) -> None:
        """``parts``: arrays (N_i,), read as one long array, never copied as a whole."""
        self._tokens = _Joined(parts)
        self.batch_size = batch_size
        self._boundary_id = boundary_id
        self.length = self._tokens.size // batch_size
        """Predictions a column."""

    def window(self, start: int, stop: int) -> tuple[Tokens, Tokens]:
        """Inputs (T, B) and targets (T, B), C-contiguous, of the predictions ``start`` to ``stop -
        1`` of each column; ``inputs[t]`` is the token before ``targets[t]``. Raises IndexError
        outside 0 to ``length``."""
        if not 0 <= start <= stop <= self.length:
            raise IndexError(f"window {start} to {stop} is outside 0 to {self.length}")
        both = np.empty((stop - start + 1, self.batch_size), np.int64)
        for column in range(self.batch_size):
            first = column * self.length + start - 1
            if first < 0:
                both[0, column] = self._boundary_id
                both[1:, column] = self._tokens.read(0, stop)
            else:
                both[:, column] = self._tokens.read(first, column * self.length + stop)
        return both[:-1], both[1:]


def weighted_parts(
    streams: Sequence[TokenStream],
    weights: Sequence[float],
    epoch: int,
    rng: np.random.Generator,
) -> list[Ids]:
    """The arrays of one epoch in which stream i appears ``weights[i]`` times (all once without
    weights): the integer part of the weight whole, the fractional part as one contiguous slice. Its
    place is drawn from ``rng`` and moves on with ``epoch``, so that an ``rng`` seeded alike for
    every epoch still goes through the whole stream. Nothing is copied."""
    parts: list[Ids] = []
    for stream, weight in zip(streams, weights or [1.0] * len(streams), strict=True):
        whole = int(weight)
        parts += [stream.ids] * whole
        size = round((weight - whole) * len(stream.ids))
        if size:
            places = len(stream.ids) - size + 1
            start = (int(rng.integers(places)) + epoch * size) % places
            parts.append(stream.ids[start : start + size])
    return parts


def weighted_items(
    files: Sequence[Sequence[Item]], weights: Sequence[float], rng: np.random.Generator
) -> list[Item]:
    """The items of one epoch: of a file with weight w all of them floor(w) times, and of the rest
    of w a share drawn from ``rng``; all once without weights."""
    chosen: list[Item] = []
    for items, weight in zip(files, weights or [1.0] * len(files), strict=True):
        chosen += list(items) * int(weight)
        some = rng.permutation(len(items))[: round((weight % 1.0) * len(items))]
        chosen += [items[number] for number in some.tolist()]
    return chosen


class LineBatches:
    """Every line a sequence of its own, for state that is reset: batches of whole lines of like
    length. A last line without its boundary is a line too."""

    def __init__(self, parts: Sequence[Ids], batch_size: int, boundary_id: int) -> None:
        self._tokens = _Joined(parts)
        self._batch_size = batch_size
        self._boundary_id = boundary_id
        starts, lengths = _lines(self._tokens, boundary_id)
        self._starts = starts
        self.lengths = lengths
        """Tokens of each line, its boundary included, (lines,)."""

    def epoch(self, rng: np.random.Generator | None = None) -> LineEpoch:
        """The batches of one pass: every line exactly once, in an order drawn from ``rng``, or by
        length without it."""
        lengths = self.lengths
        keys = lengths.astype(np.float64)
        if rng is not None:
            keys *= rng.uniform(1, 1 + LENGTH_SPREAD, len(keys))
        order = np.argsort(keys, kind="stable")
        cuts = self._cuts(lengths[order])
        turns = np.arange(len(cuts) - 1)
        if rng is not None:
            rng.shuffle(turns)
        return LineEpoch(self, order, cuts, turns)

    def _cuts(self, lengths: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Where batches begin in lines sorted by about their length, and the end."""
        count = len(lengths)
        cuts = np.arange(0, count, self._batch_size)
        extra: list[int] = []
        if count:
            shortest, longest = (
                np.minimum.reduceat(lengths, cuts),
                np.maximum.reduceat(lengths, cuts),
            )
            uneven = np.flatnonzero(longest > _RATIO * shortest + _SLACK)
        else:
            uneven = cuts
        for batch in uneven:
            least = lengths[cuts[batch]]
            for place in range(cuts[batch] + 1, min(cuts[batch] + self._batch_size, count)):
                if lengths[place] > _RATIO * least + _SLACK:
                    extra.append(place)
                    least = lengths[place]
        return np.sort(np.concatenate([cuts, np.array([*extra, count], np.int64)]))

    def batch(self, lines: npt.NDArray[np.int64]) -> tuple[Tokens, Tokens, Mask]:
        """Inputs (T, B), targets (T, B) and mask (T, B) of the lines with the numbers ``lines``,
        (B,): ``inputs[0]`` is the boundary, ``mask`` is True where there is a target; boundaries
        fill the rest."""
        lengths = self.lengths[lines]
        size = int(lengths.max())
        both = np.full((size + 1, len(lines)), self._boundary_id, np.int64)
        for column, (start, length) in enumerate(
            zip(self._starts[lines].tolist(), lengths.tolist(), strict=True)
        ):
            both[1 : length + 1, column] = self._tokens.read(start, start + length)
        mask = np.arange(size)[:, None] < lengths[None, :]
        return both[:-1], both[1:], mask


class LineEpoch:
    """One pass over the lines: ``len()`` batches, each made when it is asked for."""

    def __init__(
        self,
        source: LineBatches,
        order: npt.NDArray[np.int64],
        cuts: npt.NDArray[np.int64],
        turns: npt.NDArray[np.int64],
    ) -> None:
        self._source = source
        self._order = order
        self._cuts = cuts
        self._turns = turns

    def __len__(self) -> int:
        return len(self._turns)

    def lines(self, number: int) -> npt.NDArray[np.int64]:
        """The numbers, from 0 in the text, of the lines in batch ``number``, (B,)."""
        turn = self._turns[number]
        return self._order[self._cuts[turn] : self._cuts[turn + 1]]

    def batch(self, number: int) -> tuple[Tokens, Tokens, Mask]:
        """Inputs, targets, mask, each (T, B): see ``LineBatches.batch``."""
        return self._source.batch(self.lines(number))


class _Joined:
    """Several arrays read as one."""

    def __init__(self, parts: Sequence[Ids]) -> None:
        self.parts = [part for part in parts if len(part)]
        self._ends = np.cumsum([0, *map(len, self.parts)])
        self.size = int(self._ends[-1])

    def read(self, start: int, stop: int) -> Ids:
        """The tokens from ``start`` to ``stop - 1``; a view where one part has them all."""
        first = int(np.searchsorted(self._ends, start, "right")) - 1
        pieces: list[Ids] = []
        while start < stop:
            offset = int(self._ends[first])
            piece = self.parts[first][start - offset : stop - offset]
            pieces.append(piece)
            start += len(piece)
            first += 1
        if len(pieces) == 1:
            return pieces[0]
        return np.concatenate(pieces) if pieces else np.empty(0, np.uint16)


def _lines(
    tokens: _Joined, boundary_id: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Start and length of each line: a line ends at a boundary or with its part."""
    ends: list[npt.NDArray[np.int64]] = []
    offset = 0
    for part in tokens.parts:
        for start in range(0, len(part), _SCAN):
            found = np.flatnonzero(part[start : start + _SCAN] == boundary_id)
            ends.append(found + (offset + start + 1))
        offset += len(part)
        if part[-1] != boundary_id:
            ends.append(np.array([offset]))
    stops = np.concatenate(ends) if ends else np.empty(0, np.int64)
    starts = np.concatenate([[0], stops[:-1]]).astype(np.int64) if len(stops) else stops
    return starts, stops - starts

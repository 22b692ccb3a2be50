"""N-best lists: hypotheses that share an id, as Moses writes them or as tab-separated columns.

Moses: ``id ||| text ||| features ||| score``, where features, score and what follows may be left
out. Tab-separated: id, text, and perhaps a score and more columns. For a model of translation the
id is the number of the source's line, from 0, as Moses counts them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rnncli.errors import DataError, UsageError, choices_hint
from rnncli.evaluation.pair_scoring import PairScorer
from rnncli.evaluation.scoring import LineScore, LineScorer

FORMATS = ("auto", "moses", "tsv")
_BAR = "|||"
_SPELLED_BAR = "&#124;&#124;&#124;"
"""How Moses, and ``translate``, write a bar that is text."""


@dataclass(frozen=True)
class Hypothesis:
    """One line of an n-best list. ``score`` is the given one, None without; ``features`` and
    ``rest``: the columns before and after it, as they were."""

    id: str
    text: str
    score: float | None
    features: str
    rest: tuple[str, ...]


def guess_format(line: str) -> str:
    """``moses`` or ``tsv``, by which separator ends the id of ``line``."""
    return "moses" if _BAR in line.partition("\t")[0] else "tsv"


def parse(line: str, format: str) -> Hypothesis:
    """Raises DataError, without a place, for a line that is no hypothesis."""
    if format == "moses":
        columns = line.removesuffix("\r").split(_BAR)
        fields = [field.strip() for field in columns]
        if len(fields) < 2:
            raise DataError(f"no n-best entry, expected 'id {_BAR} text', got {line[:60]!r}")
        if len(fields) == 3 and _is_number(fields[2]):  # a score without features
            fields.insert(2, "")
        head, _, features, score, *rest = (*fields, "", "")[: max(4, len(fields))]
        # White space is text but for the one space beside a bar.
        text = columns[1].removeprefix(" ").removesuffix(" ").replace(_SPELLED_BAR, _BAR)
    else:
        fields = line.split("\t")
        if len(fields) < 2:
            raise DataError(f"no n-best entry, expected 'id TAB text', got {line[:60]!r}")
        head, text, score, *rest = (*fields, "")[: max(3, len(fields))]
        features = ""
    if score and not _is_number(score):
        raise DataError(f"the score of an n-best entry must be a number, not {score[:60]!r}")
    return Hypothesis(head, text, float(score) if score else None, features, tuple(rest))


def render(hypothesis: Hypothesis, format: str, log_p: float, combined: float) -> str:
    """The line with ``combined`` in the place of the score, and ``log_p`` added: as the feature
    ``rnncli=`` at the end of Moses' features, or as the last column."""
    one = hypothesis
    if format == "moses":
        features = f"{one.features} rnncli= {_fixed(log_p)}".strip()
        text = one.text.replace(_BAR, _SPELLED_BAR)
        return f" {_BAR} ".join((one.id, text, features, _fixed(combined), *one.rest))
    return "\t".join((one.id, one.text, _fixed(combined), *one.rest, _fixed(log_p)))


def combine(given: float | None, log_p: float, weight: float) -> float:
    """(1 - weight) given + weight log_p; ``log_p`` alone where no score was given."""
    return log_p if given is None else (1.0 - weight) * given + weight * log_p


class NoSource(DataError):
    """An entry whose id names no line of the source: the list is of another text."""


EntryScorer = Callable[[Sequence[Hypothesis]], Sequence[LineScore | NoSource]]


class ByText:
    """The score of each entry's text under language models."""

    def __init__(self, scorer: LineScorer) -> None:
        self._scorer = scorer

    def __call__(self, entries: Sequence[Hypothesis]) -> list[LineScore]:
        return self._scorer([entry.text for entry in entries])


class BySource:
    """The score of each entry's text as a translation of the line of ``sources`` that its id names;
    ``name`` is theirs, for messages."""

    def __init__(self, scorer: PairScorer, sources: Sequence[str], name: str) -> None:
        self._scorer, self._sources, self._name = scorer, sources, name

    def __call__(self, entries: Sequence[Hypothesis]) -> list[LineScore | NoSource]:
        numbers = [self._number(entry.id) for entry in entries]
        scores = iter(self._scorer([
            (self._sources[number], entry.text)
            for number, entry in zip(numbers, entries, strict=True)
            if isinstance(number, int)
        ]))  # fmt: skip
        return [one if isinstance(one, NoSource) else next(scores) for one in numbers]

    def _number(self, id: str) -> int | NoSource:
        number = int(id) if id.isascii() and id.isdigit() and len(id) < 19 else -1
        if 0 <= number < len(self._sources):
            return number
        last = len(self._sources) - 1
        lines = f"its lines are 0 to {last:,}" if last >= 0 else "it is empty"
        return NoSource(f"id {id[:60]!r} names no line of the source {self._name}; {lines}")


@dataclass(frozen=True)
class Rescored:
    """A line as it is to be written, its id, and its combined score."""

    id: str
    score: float
    line: str


class Rescorer:
    """Adds a model's log-probabilities to n-best entries. ``unit``: nats in one unit of the
    logarithms written; ``format`` auto: by the first line that is not blank. Raises UsageError for
    an unknown format or a ``weight`` outside 0 to 1."""

    def __init__(
        self, scorer: EntryScorer, *, weight: float, unit: float = 1.0, format: str = "auto"
    ) -> None:
        if format not in FORMATS:
            raise UsageError(f"--format: unknown value {format!r}{choices_hint(format, FORMATS)}")
        if not 0.0 <= weight <= 1.0:
            raise UsageError(f"--weight {weight:g}: it must be from 0 to 1")
        self._scorer = scorer
        self._weight = weight
        self._unit = unit
        self._format = format

    def __call__(self, lines: Sequence[str]) -> list[Rescored | DataError]:
        """One result for each line, in order: an error for a line that is no entry, and NoSource
        for one of another text."""
        if self._format == "auto":
            for line in lines:
                if line.strip():
                    self._format = guess_format(line)
                    break
        parsed = [self._parse(line) for line in lines]
        entries = [one for one in parsed if isinstance(one, Hypothesis)]
        scores = iter(self._scorer(entries))
        return [
            one if isinstance(one, DataError) else self._rescored(one, next(scores))
            for one in parsed
        ]

    def _parse(self, line: str) -> Hypothesis | DataError:
        try:
            return parse(line, self._format)
        except DataError as error:
            return error

    def _rescored(self, entry: Hypothesis, score: LineScore | NoSource) -> Rescored | NoSource:
        if isinstance(score, NoSource):
            return score
        log_p = -score.total_nats / self._unit
        combined = combine(entry.score, log_p, self._weight)
        return Rescored(entry.id, combined, render(entry, self._format, log_p, combined))


class BestOfEach:
    """Of hypotheses in order, the best of each id: the first among equals."""

    def __init__(self) -> None:
        self._seen: set[str] = set()
        self._best: Rescored | None = None

    def push(self, one: Rescored) -> list[str]:
        """The best line of the id before, when ``one`` begins another id.

        Raises DataError, without a place, when an id comes back after another one.
        """
        done: list[str] = []
        if self._best is None or one.id != self._best.id:
            if one.id in self._seen:
                raise DataError(
                    f"id {one.id!r} comes back after another one; sort the n-best lists by id"
                )
            done = self.finish()
            self._seen.add(one.id)
            self._best = one
        elif one.score > self._best.score:
            self._best = one
        return done

    def finish(self) -> list[str]:
        """The best line of the last id, if there was any id."""
        return [] if self._best is None else [self._best.line]


def _fixed(value: float) -> str:
    return f"{round(value, 4) + 0.0:.4f}"  # never -0.0000


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False

"""Pairs as commands read them: the lines of a table, or of two files side by side, as they come."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from itertools import chain
from typing import TYPE_CHECKING, Annotated, Protocol

from typer import Option

from rnncli.cli.streams import LineReader, OnBadInput, open_lines
from rnncli.errors import DataError, UsageError

if TYPE_CHECKING:
    from rnncli.text.pairs import Pair

SourceFile = Annotated[
    str | None,
    Option("--source", metavar="F", help="For a model of translation: sources; with --target."),
]
TargetFile = Annotated[
    str | None, Option("--target", metavar="F", help="Their translations, line by line.")
]


class PairReader(Protocol):
    """Pairs in order. ``name`` is for messages."""

    @property
    def name(self) -> str: ...

    def batches(self, max_pairs: int) -> Iterator[Sequence[Pair | None]]:
        """At most ``max_pairs`` at once, and no more than are there already; None for a line that
        is none."""
        ...


@contextmanager
def open_pairs(
    table: str | None,
    source: str | None,
    target: str | None,
    *,
    on_bad_input: OnBadInput = OnBadInput.REPLACE,
    any_bytes: bool = False,
    strict: bool = False,
) -> Iterator[PairReader]:
    """The pairs of a ``table`` (source TAB target; None without the others: standard input), or of
    a ``source`` and a ``target``. Either side of a pair may be empty.

    A line of a table without two columns is an error when ``strict``; else it is no pair: a blank
    one silently, any other as a bad line. When ``strict`` a bad line that was to be left empty, in
    any of the files, is no pair either. Raises UsageError for files that do not go together, and as
    ``open_lines``; reading raises DataError for files of unequal length.
    """
    if (source is None) != (target is None):
        raise UsageError("--source and --target: give both, or a table of pairs")
    if source is not None and table is not None:
        raise UsageError("give a table of pairs, or --source and --target, not both")
    if source == target == "-":
        raise UsageError("--source - and --target -: standard input has one of them")
    with ExitStack() as files:
        left, *right = [
            files.enter_context(open_lines(name, on_bad_input=on_bad_input, any_bytes=any_bytes))
            for name in ([table] if source is None else [source, target])
        ]
        yield _TwoFiles(left, right[0], strict) if right else _Table(left, strict)


class _Table:
    def __init__(self, reader: LineReader, strict: bool) -> None:
        self.name = reader.name
        self._reader, self._strict = reader, strict
        if not strict:
            reader.repair = "repaired with U+FFFD or, where they are no pair, left out"

    def batches(self, max_pairs: int) -> Iterator[Sequence[Pair | None]]:
        return self._reader.parsed(max_pairs, self._pair)

    def _pair(self, number: int, line: str) -> Pair | None:
        from rnncli.text.pairs import split_pair

        try:
            return split_pair(line)
        except DataError as error:
            if self._strict and not line and self._reader.was_bad(number):
                return None  # it was to be left empty
            if self._strict:
                raise DataError(f"{self.name}:{number}: {error}") from None
            if line.strip():
                self._reader.bad_line(number, str(error), "")
            return None


class _TwoFiles:
    def __init__(self, source: LineReader, target: LineReader, strict: bool) -> None:
        self.name = f"{source.name} and {target.name}"
        self._source, self._target, self._strict = source, target, strict

    def _lines(self, reader: LineReader, max_lines: int) -> Iterator[list[str | None]]:
        """Its lines; None for one that was to be left empty, where that matters."""

        def parse(number: int, line: str) -> str | None:
            return None if self._strict and not line and reader.was_bad(number) else line

        return reader.parsed(max_lines, parse)

    def batches(self, max_pairs: int) -> Iterator[Sequence[Pair | None]]:
        sides = self._lines(self._source, max_pairs), self._lines(self._target, max_pairs)
        waiting: tuple[deque[str | None], deque[str | None]] = deque(), deque()
        while True:
            for lines, batches in zip(waiting, sides, strict=True):
                if not lines:
                    lines.extend(next(batches, ()))
            count = min(map(len, waiting))
            if not count:
                break
            both = [(waiting[0].popleft(), waiting[1].popleft()) for _ in range(count)]
            yield [None if a is None or b is None else (a, b) for a, b in both]
        for _ in chain(*sides):  # what is left of one of them is counted
            pass
        counts = self._source.lines, self._target.lines
        if counts[0] != counts[1]:
            from rnncli.text.pairs import unequal_files

            raise unequal_files((self._source.name, self._target.name), counts)

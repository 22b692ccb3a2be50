"""The manners of a filter: one line out for each line in, whatever comes, as soon as it comes.

Bytes are read and written directly, past Python's buffers: a line typed at a terminal is answered
at once, a file is worked through in batches, and the same text comes out either way.
"""

from __future__ import annotations

import os
import select
import zlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from typing import TypeVar

from rnncli.cli.console import note
from rnncli.errors import ClosedPipe, DataError, FileError, RnncliError
from rnncli.text.lines import BOM

T = TypeVar("T")

_CHUNK_BYTES = 1 << 16


class OnBadInput(StrEnum):
    """What becomes of a line that is not UTF-8."""

    REPLACE = "replace"  # U+FFFD for each bad byte
    ERROR = "error"  # the command stops
    EMPTY = "empty"  # an empty line in its place


class LineReader:
    """The lines of a file or of standard input, as they come. They end at ``\\n`` alone. A UTF-8
    byte-order mark at the very start is dropped, except with ``any_bytes``."""

    def __init__(
        self,
        name: str,
        handle: int,
        *,
        on_bad_input: OnBadInput = OnBadInput.REPLACE,
        any_bytes: bool = False,
    ) -> None:
        self.name = name
        self.lines = 0  # handed out so far
        self.bad_lines = 0  # among them
        self.first_bad = ""  # its number, and what is wrong with it
        self._first_bad = 0
        self._bad: set[int] = set()  # of the last lines handed out
        self.repair = "repaired with U+FFFD"  # what becomes of it unless it is left empty
        self._handle = handle
        self._on_bad_input = on_bad_input
        self._any_bytes = any_bytes

    def batches(self, max_lines: int) -> Iterator[list[str]]:
        """All lines in order, at most ``max_lines`` at once, and no more than are there already.

        Raises FileError when reading fails, DataError with file:line for a line that is not UTF-8
        when that is to be an error, after the lines before it.
        """
        return self.parsed(max_lines, lambda number, line: line)

    def parsed(self, max_lines: int, parse: Callable[[int, str], T]) -> Iterator[list[T]]:
        """As ``batches``, with what ``parse`` makes of a line's number, from 1, and its text; what
        it raises comes after the lines before, too."""
        waiting: deque[bytes] = deque()
        reads = self._reads()
        while True:
            try:
                lines = next(reads, None)
            except RnncliError:  # damaged from here on
                if waiting:
                    yield from self._parsed(waiting, parse)
                raise
            if lines is None:
                break
            waiting.extend(lines)
            while len(waiting) >= max_lines or (waiting and not self._more_is_there()):
                count = min(len(waiting), max_lines)
                yield from self._parsed([waiting.popleft() for _ in range(count)], parse)
        if waiting:
            yield from self._parsed(waiting, parse)

    def _reads(self) -> Iterator[list[bytes]]:
        """The lines that each read completes."""
        start = bytearray()  # of a line whose end has not come yet
        chunks = self._chunks()
        for chunk in chunks if self._any_bytes else _without_mark(chunks):
            first, *others = chunk.split(b"\n")
            start += first
            if others:
                lines = [bytes(start), *others]
                start = bytearray(lines.pop())
                yield lines
        if start:
            yield [bytes(start)]

    def _chunks(self) -> Iterator[bytes]:
        chunks: Iterator[bytes] = iter(lambda: read_available(self._handle, self.name), b"")
        return _gunzip(chunks, self.name) if self.name.endswith(".gz") else chunks

    def _more_is_there(self) -> bool:
        return bool(select.select([self._handle], [], [], 0)[0])

    def _parsed(self, lines: Iterable[bytes], parse: Callable[[int, str], T]) -> Iterator[list[T]]:
        """All of ``lines``; where one is an error those before it first, as if they had come by
        themselves."""
        done: list[T] = []
        self._bad.clear()  # what was handed out before is done with
        for line in lines:
            try:
                text = self._decode(line)
                done.append(parse(self.lines, text))
            except DataError:
                if done:
                    self.lines -= 1
                    yield done
                raise
        yield done

    def _decode(self, line: bytes) -> str:
        self.lines += 1
        try:
            return line.decode("utf-8", "surrogateescape" if self._any_bytes else "strict")
        except UnicodeDecodeError as error:
            what = f"not UTF-8 at its byte {error.start + 1} ({error.reason})"
            return self.bad_line(self.lines, what, line.decode(errors="replace"))

    def was_bad(self, number: int) -> bool:
        """Whether line ``number`` was counted as bad."""
        return number in self._bad

    def bad_line(self, number: int, what: str, repaired: str) -> str:
        """What stands for line ``number`` with ``what`` wrong: ``repaired``, or an empty line.

        Counts it. Raises DataError with file:line when it is to be an error.
        """
        if self._on_bad_input == OnBadInput.ERROR:
            raise DataError(
                f"{self.name}:{number}: {what}; --on-bad-input replace or empty would go on"
            )
        # A line may be no UTF-8 and no request, and be found so at different times.
        self.bad_lines += number not in self._bad
        self._bad.add(number)
        if not self._first_bad or number < self._first_bad:
            self._first_bad, self.first_bad = number, f"line {number}: {what}"
        return "" if self._on_bad_input == OnBadInput.EMPTY else repaired


@contextmanager
def open_lines(
    file: str | None,
    *,
    on_bad_input: OnBadInput = OnBadInput.REPLACE,
    any_bytes: bool = False,
) -> Iterator[LineReader]:
    """The lines of ``file``, gzip when its name ends in .gz; standard input for None and ``-``.

    Bad lines are reported on stderr at the end. With ``any_bytes`` no line is bad:
    bytes that are not UTF-8 are surrogate escapes (PEP 383), and LineWriter writes them as they
    were. Raises FileError when the file cannot be opened.
    """
    standard = file is None or file == "-"
    name = "standard input" if standard else str(file)
    try:
        handle = 0 if standard else os.open(name, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise FileError.of("read", name, error) from None
    reader = LineReader(name, handle, on_bad_input=on_bad_input, any_bytes=any_bytes)
    try:
        yield reader
    finally:
        if not standard:
            os.close(handle)
        if reader.bad_lines:
            became = "left empty" if on_bad_input == OnBadInput.EMPTY else reader.repair
            bad = "1 bad line" if reader.bad_lines == 1 else f"{reader.bad_lines} bad lines"
            note(f"{name}: {bad} {became}; the first is {reader.first_bad}")


class LineWriter:
    """Whole lines to standard output, each batch at once."""

    def write(self, lines: Iterable[str]) -> None:
        """One line for each of ``lines``; a newline inside one becomes a space. What making them
        raises comes after those that were made.

        Raises ClosedPipe when the reader went away, FileError when writing fails.
        """
        done: list[str] = []
        try:
            for line in lines:
                done.append(line.replace("\n", " ") + "\n")
        finally:  # the lines before one that is an error
            self._write("".join(done))

    def _write(self, text: str) -> None:
        try:
            data = memoryview(text.encode("utf-8", "surrogateescape"))
        except UnicodeEncodeError:  # a surrogate that stands for no byte
            data = memoryview(text.encode("utf-8", "replace"))
        while data:
            try:
                data = data[os.write(1, data) :]
            except BlockingIOError:
                select.select([], [1], [])
            except BrokenPipeError:
                raise ClosedPipe from None
            except OSError as error:
                raise FileError.of("write", "standard output", error) from None


def filter_lines(
    reader: LineReader, function: Callable[[list[str]], Iterable[str]], *, max_lines: int = 256
) -> None:
    """Write what ``function`` makes of the reader's lines, one line for each."""
    writer = LineWriter()
    for lines in reader.batches(max_lines):
        writer.write(function(lines))


def read_available(handle: int, name: str) -> bytes:
    """What is there to read, 64 KiB at most; waits for the first byte. Empty at the end."""
    while True:
        try:
            return os.read(handle, _CHUNK_BYTES)
        except BlockingIOError:
            select.select([handle], [], [])
        except OSError as error:
            raise FileError.of("read", name, error) from None


def _without_mark(chunks: Iterator[bytes]) -> Iterator[bytes]:
    """The same without a byte-order mark at the very start, which may come in pieces."""
    begin = b""
    for chunk in chunks:
        begin += chunk
        if not (len(begin) < len(BOM) and BOM.startswith(begin)):
            break
    yield begin.removeprefix(BOM)
    yield from chunks


def _gunzip(chunks: Iterable[bytes], name: str) -> Iterator[bytes]:
    """The contents of a gzip file of one or several members."""
    member, padded = None, False
    try:
        for chunk in chunks:
            while chunk := chunk if member else chunk.lstrip(b"\0" * padded):
                member = member or zlib.decompressobj(wbits=31)
                yield member.decompress(chunk)
                chunk = member.unused_data
                if member.eof:
                    member, padded = None, True  # tapes pad with zeros after a member
    except zlib.error as error:
        raise DataError(f"{name}: not a gzip file, or a damaged one ({error})") from None
    if member is not None:
        raise DataError(f"{name}: the gzip file is cut short")

"""Bytes of a text file, in chunks of whole lines or line by line.

Lines end at ``\\n`` alone, and the last line is ended even where the file does not. A UTF-8
byte-order mark at the very start is dropped, except for the byte tokenizer (``byte_exact``), which
gives back every byte. Files ending in ``.gz`` are read through gzip. What cannot be read twice
(standard input as ``-``, a pipe) is copied to a temporary file first.
"""

from __future__ import annotations

import contextlib
import gzip
import shutil
import sys
import tempfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, BinaryIO

from rnncli.errors import DataError, FileError, UsageError

CHUNK_BYTES = 4_000_000
BOM = b"\xef\xbb\xbf"
ON_BAD_INPUT = ("replace", "error", "empty")

_spooled: dict[object, IO[bytes]] = {}  # by what was read: a path, or the stdin object


@dataclass(frozen=True)
class Source:
    """A text file that can be read as often as needed. ``name`` is for messages."""

    path: Path
    name: str
    gzipped: bool = False

    @classmethod
    def of(cls, path: str | Path) -> Source:
        """Raises FileError for what is missing, a folder or unreadable."""
        name = str(path)
        if name == "-":
            if sys.stdin is None:
                raise FileError("cannot read -: there is no standard input")
            return cls(_spool(sys.stdin, sys.stdin.buffer, name), "standard input")
        file = Path(path)
        try:
            if not file.exists() or file.is_dir() or file.is_file():
                with open(file, "rb"):
                    pass
                return cls(file, name, file.suffix == ".gz")
            if file in _spooled:
                return cls(Path(_spooled[file].name), name, file.suffix == ".gz")
            with open(file, "rb") as stream:
                return cls(_spool(file, stream, name), name, file.suffix == ".gz")
        except OSError as error:
            raise FileError.of("read", name, error) from None
        except ValueError as error:  # a null byte
            raise FileError(f"cannot read {name!r}: {error}") from None

    @contextlib.contextmanager
    def open(self) -> Iterator[BinaryIO]:
        """The bytes after decompression. Raises FileError; DataError for what is not gzip."""
        try:
            with contextlib.ExitStack() as stack:
                stream: Any = stack.enter_context(open(self.path, "rb"))
                if self.gzipped:
                    stream = stack.enter_context(gzip.open(stream, "rb"))
                yield stream
        except (gzip.BadGzipFile, EOFError, zlib.error) as error:
            raise DataError(f"{self.name}: not a whole gzip file: {error}") from None
        except OSError as error:
            raise FileError.of("read", self.name, error) from None


@dataclass(frozen=True)
class Span:
    """Part of a source: the bytes from ``start`` to ``stop`` (None: its end), after decompression.
    ``first_line`` is the number, from 1, of the line it begins with."""

    source: Source
    start: int = 0
    stop: int | None = None
    first_line: int = 1

    def chunks(self, byte_exact: bool = False, cut_lines: bool = False) -> Iterator[bytes]:
        """Whole lines of ``CHUNK_BYTES`` or so together, each line ended by a newline. With
        ``cut_lines`` a line longer than that comes in pieces, cut before a space."""
        with self.source.open() as stream:
            yield from _chunks(self._blocks(stream, byte_exact), cut_lines)

    def _blocks(self, stream: BinaryIO, byte_exact: bool) -> Iterator[bytes]:
        place = stream.seek(self.start)
        while self.stop is None or place < self.stop:
            size = CHUNK_BYTES if self.stop is None else min(CHUNK_BYTES, self.stop - place)
            block = stream.read(size)
            if not block:
                return
            if place == 0 and not byte_exact:
                limit = len(BOM) if self.stop is None else min(len(BOM), self.stop)
                while BOM.startswith(block) and (more := stream.read(limit - len(block))):
                    block += more
                place += len(block)
                block = block.removeprefix(BOM)
            else:
                place += len(block)
            if block:
                yield block


def read_lines(
    path: str | Path,
    *,
    strip_lines: bool = False,
    byte_exact: bool = False,
    on_bad_input: str = "replace",
    notes: list[str] | None = None,
) -> Iterator[str]:
    """The lines of a text file, without their ends.

    Bytes that are not UTF-8 become surrogate escapes with ``byte_exact``; else ``on_bad_input``
    says: ``replace`` (each by U+FFFD), ``error`` (DataError with file:line) or ``empty`` (such a
    line becomes an empty one). Once all lines are read, ``notes`` has a sentence about how many
    were so, if any. Raises FileError for what cannot be read.
    """
    span = Span(Source.of(path))
    number, bad = span.first_line, 0
    for chunk in span.chunks(byte_exact):
        decoded = decode_chunk(
            chunk, byte_exact, on_bad_input, span.source.name, number, strip_lines
        )
        number += decoded.text.count("\n")
        bad += len(decoded.bad)
        yield from decoded.text.split("\n")[:-1]
    if bad and notes is not None:
        lines = number - span.first_line
        notes.append(bad_lines_note(span.source.name, bad, lines, on_bad_input))


def bad_lines_note(name: str, bad: int, lines: int, on_bad_input: str) -> str:
    """A sentence for the user: ``bad`` of the ``lines`` of a text were not UTF-8."""
    became = "was left empty" if on_bad_input == "empty" else "has U+FFFD for what was not"
    return f"{name}: {bad:,} of {lines:,} lines were not UTF-8; each {became}."


@dataclass(frozen=True)
class DecodedChunk:
    """``text``: what the chunk says. ``bytes``: how many bytes that was in the file, less what
    stripping took away. ``bad``: numbers of the lines that were not UTF-8."""

    text: str
    bytes: int
    bad: tuple[int, ...]


def decode_chunk(
    chunk: bytes,
    byte_exact: bool,
    on_bad_input: str,
    name: str,
    first_line: int,
    strip_lines: bool,
) -> DecodedChunk:
    """The text of a chunk whose first line is number ``first_line`` of the file ``name``. Raises
    DataError for bad UTF-8 if ``on_bad_input`` is ``error``."""
    if on_bad_input not in ON_BAD_INPUT:
        raise UsageError(
            f"on_bad_input: unknown value {on_bad_input!r}; choices: {', '.join(ON_BAD_INPUT)}"
        )
    bad: tuple[int, ...] = ()
    errors = "surrogateescape" if byte_exact else "replace"
    try:
        text = chunk.decode(errors="surrogateescape" if byte_exact else "strict")
    except UnicodeDecodeError:
        lines = chunk.split(b"\n")
        wrong = [place for place, line in enumerate(lines) if not _is_utf8(line)]
        bad = tuple(first_line + place for place in wrong)
        if on_bad_input == "error":
            raise DataError(
                f"{name}:{bad[0]}: not UTF-8 text; convert the file to UTF-8 (with iconv, for "
                "example), or choose --on-bad-input replace or the byte tokenizer"
            ) from None
        if on_bad_input == "empty":
            for place in wrong:
                lines[place] = b""
            chunk = b"\n".join(lines)
        text = chunk.decode(errors=errors)
    size = len(chunk)
    if strip_lines:
        stripped = "\n".join([line.strip() for line in text.split("\n")])
        size -= _utf8_size(text) - _utf8_size(stripped)
        text = stripped
    return DecodedChunk(text, size, bad)


def _chunks(blocks: Iterator[bytes], cut_lines: bool) -> Iterator[bytes]:
    pending: list[bytes] = []  # the start of a line whose end has not come
    for block in blocks:
        end = block.rfind(b"\n") + 1
        if not end and cut_lines:
            end = max(block.rfind(b" "), 0)
        if end:
            yield b"".join([*pending, block[:end]])
            pending = []
        if end < len(block):
            pending.append(block[end:])
    if pending:
        yield b"".join([*pending, b"\n"])


def _spool(key: object, stream: IO[bytes], name: str) -> Path:
    """A temporary file, deleted at exit, with everything that ``stream`` has; ``key`` is read once
    in the life of the process, since it cannot be read again."""
    if key not in _spooled:
        copy = tempfile.NamedTemporaryFile(prefix="rnncli-")  # noqa: SIM115
        try:
            shutil.copyfileobj(stream, copy, CHUNK_BYTES)
            copy.flush()
        except OSError as error:
            raise FileError.of("copy to a temporary file:", name, error) from None
        _spooled[key] = copy
    return Path(_spooled[key].name)


def _is_utf8(line: bytes) -> bool:
    try:
        line.decode()
    except UnicodeDecodeError:
        return False
    return True


def _utf8_size(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode("utf-8", "surrogateescape"))

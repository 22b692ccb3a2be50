"""What is done with a chunk of text: encoding it, or counting what its vocabulary could be.

A task takes and gives plain headers and bytes, so that it runs in this process or in another one
(``parallel``) alike.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass
from typing import Any, Protocol

from rnncli.text.byte_char import count_chars_in_text
from rnncli.text.lines import DecodedChunk, decode_chunk
from rnncli.text.protocol import Tokenizer
from rnncli.text.tokenizers import tokenizer_from_bytes
from rnncli.text.word import count_words

Header = dict[str, Any]  # what JSON can say


@dataclass(frozen=True)
class Chunk:
    """Whole lines (or part of a very long one) of the file ``name``, from line ``first_line``;
    ``text`` is the number of the text that they belong to."""

    data: bytes
    name: str
    first_line: int
    text: int = 0


@dataclass(frozen=True)
class TextOptions:
    """How the bytes of a file become lines of text."""

    strip_lines: bool = False
    byte_exact: bool = False
    on_bad_input: str = "replace"

    @property
    def cuts_lines(self) -> bool:
        """Whether a line may be read in parts."""
        return not self.strip_lines and self.on_bad_input != "empty"

    def decode(self, chunk: Chunk) -> DecodedChunk:
        """Raises DataError for bad UTF-8 if ``on_bad_input`` is ``error``."""
        return decode_chunk(
            chunk.data,
            self.byte_exact,
            self.on_bad_input,
            chunk.name,
            chunk.first_line,
            self.strip_lines,
        )


class Task(Protocol):
    def describe(self) -> tuple[Header, bytes]:
        """What ``task_from`` needs to make the task again in another process."""
        ...

    def run(self, chunk: Chunk) -> tuple[Header, bytes]: ...


class EncodeTask:
    """Gives the token ids (the payload) and, in the header, what was counted."""

    def __init__(self, tokenizer: Tokenizer, options: TextOptions) -> None:
        self._tokenizer = tokenizer
        self._options = options

    def describe(self) -> tuple[Header, bytes]:
        header = {"task": "encode", "kind": self._tokenizer.kind, "options": asdict(self._options)}
        return header, self._tokenizer.to_bytes()

    def run(self, chunk: Chunk) -> tuple[Header, bytes]:
        decoded = self._options.decode(chunk)
        text = decoded.text
        ids = self._tokenizer.encode_text(text)
        lines = text.count("\n")
        unknown = self._tokenizer.unk_id
        header = {
            "lines": lines,
            "words": len(text.split()) + lines,
            "characters": len(text),
            "bytes": decoded.bytes,
            "tokens": len(ids),
            "oov": 0 if unknown is None else int((ids == unknown).sum()),
            "bad": len(decoded.bad),
            "first_bad": decoded.bad[0] if decoded.bad else 0,
            "last_bad": decoded.bad[-1] if decoded.bad else 0,
        }
        return header, ids.tobytes()


class CountTask:
    """Counts words or characters: ``keys`` and ``counts`` in the header."""

    def __init__(self, kind: str, options: TextOptions) -> None:
        self._kind = kind
        self._options = options

    def describe(self) -> tuple[Header, bytes]:
        return {"task": "count", "kind": self._kind, "options": asdict(self._options)}, b""

    def run(self, chunk: Chunk) -> tuple[Header, bytes]:
        text = self._options.decode(chunk).text
        counts: Counter[str]
        counts = count_words([text]) if self._kind == "word" else count_chars_in_text(text)
        return {"keys": list(counts), "counts": list(counts.values())}, b""


def task_from(header: Header, payload: bytes) -> Task:
    """The task that ``describe`` described."""
    options = TextOptions(**header["options"])
    if header["task"] == "count":
        return CountTask(header["kind"], options)
    return EncodeTask(tokenizer_from_bytes(header["kind"], payload), options)

"""Tokens that are pieces of words: sentencepiece models, bpe or unigram.

The text is always spelled by the pieces themselves, never by sentencepiece's own decoder, so that
it comes back exactly and one token at a time. sentencepiece writes a space as U+2581; a U+2581 of
the text itself is therefore kept from it and spelled as its three bytes. In a model that changes
nothing in the text and has no piece that goes on after a space, words are encoded one by one and
remembered: the same tokens, several times as fast.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import sentencepiece

from rnncli.errors import DataError, FileError, ModelError
from rnncli.text.protocol import (
    LINE_END,
    SPACE_MARK,
    Ids,
    Utf8Decoder,
    check_ids,
    fingerprint,
    id_dtype,
    look_up,
    without_surrogates,
)

_KINDS: dict[int | bytes, str] = {1: "unigram", 2: "bpe"}
_OTHER_KINDS: dict[int | bytes, str] = {3: "word", 4: "char"}
_WORDS = re.compile(f" ?[^ {SPACE_MARK}]+| |{SPACE_MARK}")
_LONGEST_KNOWN, _MOST_KNOWN = 40, 100_000
_UNKNOWN_SPELLING = " \u2047 ".encode()  # as sentencepiece decodes an unknown piece

sentencepiece.set_min_log_level(3)  # its complaints come back as exceptions


class SubwordTokenizer:
    """A sentencepiece model. Its end-of-sentence piece ends a line; a model without one gets an id
    for it after its own. Round trips are exact with the models that rnncli trains; with a model
    from elsewhere they are as exact as its normalisation."""

    def __init__(self, model: bytes) -> None:
        """``model``: a serialised ModelProto. Raises ModelError when it is not one."""
        self._model = model
        settings = _Settings(model)
        self.kind = settings.kind
        processor: Any = sentencepiece.SentencePieceProcessor()
        try:
            processor.LoadFromSerializedProto(model)
            size = processor.GetPieceSize()
            pieces = [processor.IdToPiece(token) for token in range(size)]
        except (RuntimeError, ValueError) as error:
            raise ModelError(f"damaged sentencepiece model: {_reason(error)}") from None
        self._processor = processor
        self.unk_id: int | None = processor.unk_id()
        end = processor.eos_id()
        if end < 0:
            end = size
            pieces.append(LINE_END)
        self.boundary_id: int = end
        self.vocab_size = len(pieces)
        self._pieces = pieces
        self._strips_first_space = settings.adds_first_space
        self._is_exact = (
            settings.keeps_text
            and SPACE_MARK in self._index
            and all(f"<0x{byte:02X}>" in self._index for byte in SPACE_MARK.encode())
            and not any(SPACE_MARK in piece[1:] for piece in pieces)
        )
        self._known: dict[str, list[int]] = {}  # tokens of words, where words stand alone

    @cached_property
    def _index(self) -> dict[str, int]:
        return {piece: token for token, piece in enumerate(self._pieces)}

    @cached_property
    def _mark_ids(self) -> list[int]:
        return [self._index[f"<0x{byte:02X}>"] for byte in SPACE_MARK.encode()]

    @cached_property
    def _spellings(self) -> list[bytes]:
        return [self._spelling(token) for token in range(self.vocab_size)]

    def _spelling(self, token: int) -> bytes:
        if token == self.boundary_id:
            return b"\n"
        if token == self.unk_id:
            return _UNKNOWN_SPELLING
        if self._processor.IsControl(token):
            return b""
        piece: str = self._pieces[token]
        if self._processor.IsByte(token):
            return bytes([int(piece[1:-1], 16)])
        return piece.replace(SPACE_MARK, " ").encode("utf-8", "replace")

    @property
    def splits_at_spaces(self) -> bool:
        """Whether a text encodes as its words do, each with the space before it."""
        return self._is_exact

    def encode(self, line: str) -> list[int]:
        if not self._is_exact:
            return self._encode(line)
        tokens: list[int] = []
        known = self._known
        for word in _WORDS.findall(line):
            found = known.get(word)
            if found is None:
                found = self._mark_ids if word == SPACE_MARK else self._encode(word)
                if len(word) <= _LONGEST_KNOWN:
                    if len(known) >= _MOST_KNOWN:
                        known.clear()
                    known[word] = found
            tokens += found
        return tokens

    def _encode(self, text: str) -> list[int]:
        tokens: list[int] = self._processor.EncodeAsIds(_without_bad(text))
        return tokens

    def encode_sampled(self, lines: Sequence[str], dropout: float, seed: int) -> list[list[int]]:
        """The tokens of each line with merges left out by chance (BPE-dropout, Provilkov et al.
        2020, sec. 3), the same for the same seed; of a bpe model."""
        texts = [line if SPACE_MARK not in line else "" for line in map(_without_bad, lines)]
        found: list[list[int]] = []

        def sample() -> None:
            # sentencepiece seeds its numbers once a thread
            sentencepiece.set_random_generator_seed(seed % (1 << 32))
            found.extend(
                self._processor.SampleEncodeAsIds(text, nbest_size=-1, alpha=dropout)
                for text in texts
            )

        thread = threading.Thread(target=sample)
        thread.start()
        thread.join()
        # A U+2581 is spelled by bytes, which no merge makes.
        return [
            self.encode(line) if line and not text else tokens
            for line, text, tokens in zip(lines, texts, found, strict=True)
        ]

    def encode_text(self, text: str) -> Ids:
        import numpy as np

        lines = text.split("\n")
        tokens: list[int] = []
        for line in lines[:-1]:
            tokens += self.encode(line)
            tokens.append(self.boundary_id)
        tokens += self.encode(lines[-1])
        return np.array(tokens, id_dtype(self.vocab_size))

    def decode(self, ids: Sequence[int]) -> str:
        decoder = self.decoder()
        return "".join([decoder.push(token) for token in ids]) + decoder.finish()

    def pieces(self, ids: Sequence[int]) -> list[str]:
        check_ids(ids, self.vocab_size)
        return [self._pieces[token] for token in ids]

    def ids(self, pieces: Sequence[str]) -> list[int]:
        return look_up(pieces, self._index)

    def decoder(self) -> Utf8Decoder | FirstSpaceDecoder:
        decoder = Utf8Decoder(self._spellings, "replace")
        return FirstSpaceDecoder(decoder) if self._strips_first_space else decoder

    def to_bytes(self) -> bytes:
        return self._model

    @cached_property
    def fingerprint(self) -> str:
        return fingerprint(self.kind, self._model)


class FirstSpaceDecoder:
    """A StreamDecoder for models that put a space before each line: it is taken away again."""

    def __init__(self, decoder: Utf8Decoder) -> None:
        self._decoder = decoder
        self._at_start = True

    def push(self, token: int) -> str:
        text = self._decoder.push(token)
        if not text:
            return text
        if self._at_start:
            text = text.removeprefix(" ")
        self._at_start = text.endswith("\n")
        return text

    def finish(self) -> str:
        return self._decoder.finish()


class _Settings:
    """The few settings of a ModelProto that the processor does not tell (sentencepiece_model.proto:
    TrainerSpec is field 2, NormalizerSpec field 3)."""

    def __init__(self, model: bytes) -> None:
        model_type: int | bytes = 1
        normalizer: dict[int, int | bytes] = {}
        for number, value in _fields(model):
            if number == 2 and isinstance(value, bytes):
                model_type = dict(_fields(value)).get(3, model_type)
            elif number == 3 and isinstance(value, bytes):
                normalizer |= _fields(value)
        self.adds_first_space = bool(normalizer.get(3, True))
        charsmap, removes_spaces, marks_spaces = (
            normalizer.get(2, b""),
            normalizer.get(4, True),
            normalizer.get(5, True),
        )
        self.keeps_text = bool(
            not charsmap and not self.adds_first_space and not removes_spaces and marks_spaces
        )
        if model_type not in _KINDS:
            kind = _OTHER_KINDS.get(model_type, repr(model_type))
            raise ModelError(f"a sentencepiece model of type {kind}; it must be bpe or unigram")
        self.kind = _KINDS[model_type]


def _fields(message: bytes) -> Iterator[tuple[int, int | bytes]]:
    """(number, value) of each field of a protocol buffer. Raises ModelError when it is none."""
    place = 0

    def varint() -> int:
        nonlocal place
        value = shift = 0
        while shift < 64:
            if place >= len(message):
                break
            byte = message[place]
            place += 1
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value
            shift += 7
        raise ModelError("damaged sentencepiece model: not a protocol buffer")

    while place < len(message):
        key = varint()
        wire = key & 7
        if wire == 0:
            yield key >> 3, varint()
            continue
        if wire not in (1, 2, 5):
            raise ModelError("damaged sentencepiece model: not a protocol buffer")
        size = {1: 8, 5: 4}.get(wire) or varint()
        if place + size > len(message):
            raise ModelError("damaged sentencepiece model: cut short")
        yield key >> 3, message[place : place + size]
        place += size


def load_model(path: Path) -> SubwordTokenizer:
    """The model in a ``.model`` file. Raises FileError, or DataError when it is none."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise FileError.of("read", path, error) from None
    try:
        return SubwordTokenizer(data)
    except ModelError as error:
        raise DataError(f"{path}: {error}") from None


def _without_bad(text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError:
        return without_surrogates(text)
    return text


def _reason(error: Exception) -> str:
    return (str(error).splitlines() or ["unreadable"])[0]

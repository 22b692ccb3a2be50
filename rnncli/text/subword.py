"""Tokens that are pieces of words: sentencepiece models, bpe or unigram.

The text is always spelled by the pieces themselves, never by sentencepiece's own decoder, so that
it comes back exactly and one token at a time. sentencepiece writes a space as U+2581; a U+2581 of
the text itself is therefore kept from it and spelled as its three bytes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
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
        self._keeps_marks = not settings.adds_first_space and all(
            f"<0x{byte:02X}>" in self._index for byte in SPACE_MARK.encode()
        )

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

    def encode(self, line: str) -> list[int]:
        if SPACE_MARK in line and self._keeps_marks:
            first, *rest = line.split(SPACE_MARK)
            tokens = self._encode(first)
            for part in rest:
                tokens += self._mark_ids
                tokens += self._encode(part)
            return tokens
        return self._encode(line)

    def _encode(self, text: str) -> list[int]:
        try:
            text.encode()
        except UnicodeEncodeError:
            text = without_surrogates(text)
        tokens: list[int] = self._processor.EncodeAsIds(text)
        return tokens

    def encode_text(self, text: str) -> Ids:
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
        self.adds_first_space = True
        for number, value in _fields(model):
            if number == 2 and isinstance(value, bytes):
                model_type = dict(_fields(value)).get(3, model_type)
            elif number == 3 and isinstance(value, bytes):
                self.adds_first_space = bool(dict(_fields(value)).get(3, self.adds_first_space))
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


def _reason(error: Exception) -> str:
    return (str(error).splitlines() or ["unreadable"])[0]

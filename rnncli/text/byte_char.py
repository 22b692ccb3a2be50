"""Tokens that are bytes, or characters."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property

from rnncli.errors import ModelError, UsageError
from rnncli.sections import TokenizerConfig
from rnncli.text.protocol import (
    UNKNOWN,
    Ids,
    Utf8Decoder,
    check_ids,
    fingerprint,
    id_dtype,
    look_up,
    most_frequent,
    visible,
    without_surrogates,
)

_BYTES = [bytes([value]) for value in range(256)]
_BYTE_PIECES = [visible(chr(value)) if value < 128 else f"<0x{value:02X}>" for value in range(256)]
_BYTE_IDS = {piece: value for value, piece in enumerate(_BYTE_PIECES)}
_CODE_POINTS = 0x110000


class ByteTokenizer:
    """The 256 bytes of UTF-8. Bytes that are not UTF-8 travel through ``str`` as surrogate escapes
    (PEP 383), so that encoding and decoding is the identity on any bytes."""

    kind = "byte"
    splits_at_spaces = True
    vocab_size = 256
    boundary_id = 10
    unk_id: int | None = None

    def encode(self, line: str) -> list[int]:
        return list(_utf8(line))

    def encode_text(self, text: str) -> Ids:
        import numpy as np

        return np.frombuffer(_utf8(text), np.uint8).astype(np.uint16)

    def decode(self, ids: Sequence[int]) -> str:
        check_ids(ids, 256)
        return bytes(list(ids)).decode("utf-8", "surrogateescape")

    def pieces(self, ids: Sequence[int]) -> list[str]:
        check_ids(ids, 256)
        return [_BYTE_PIECES[token] for token in ids]

    def ids(self, pieces: Sequence[str]) -> list[int]:
        return look_up(pieces, _BYTE_IDS)

    def decoder(self) -> Utf8Decoder:
        return Utf8Decoder(_BYTES, "surrogateescape")

    def to_bytes(self) -> bytes:
        return b"{}"

    @property
    def fingerprint(self) -> str:
        return fingerprint(self.kind, self.to_bytes())

    @classmethod
    def from_config(cls, config: TokenizerConfig) -> ByteTokenizer:
        """Raises UsageError for a limited vocabulary: there are always 256 bytes."""
        if config.vocab_size not in (0, 256):
            raise UsageError(
                f"tokenizer.vocab_size: {config.vocab_size} does not go with kind 'byte', "
                "which always has 256 tokens; leave it out"
            )
        return cls()

    @classmethod
    def from_bytes(cls, data: bytes) -> ByteTokenizer:
        if data != b"{}":
            raise ModelError("damaged byte tokenizer: expected an empty JSON object")
        return cls()


class CharTokenizer:
    """The characters of the training text. Id 0 is the newline, id 1 stands for any character that
    is not in the vocabulary (and decodes to U+FFFD), then by falling frequency."""

    kind = "char"
    splits_at_spaces = True
    boundary_id = 0
    unk_id: int | None = 1

    def __init__(self, chars: Sequence[str]) -> None:
        """``chars``: the vocabulary after the newline and the unknown one."""
        self._spellings = ["\n", "\ufffd", *chars]
        self._index = _CharIndex({char: 2 + i for i, char in enumerate(chars)} | {"\n": 0})
        self.vocab_size = len(self._spellings)

    @classmethod
    def from_counts(cls, counts: Mapping[str, int], config: TokenizerConfig) -> CharTokenizer:
        return cls(most_frequent(counts, config, ("\n", UNKNOWN)))

    def encode(self, line: str) -> list[int]:
        return list(map(self._index.__getitem__, line))

    def encode_text(self, text: str) -> Ids:
        import numpy as np

        codes = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)
        return self._by_code_point[codes]

    @cached_property
    def _by_code_point(self) -> Ids:
        import numpy as np

        table = np.full(_CODE_POINTS, self.unk_id, id_dtype(self.vocab_size))
        for char, token in self._index.items():
            table[ord(char)] = token
        return table

    def decode(self, ids: Sequence[int]) -> str:
        check_ids(ids, self.vocab_size)
        return "".join([self._spellings[token] for token in ids])

    @cached_property
    def _pieces(self) -> list[str]:
        return [visible("\n"), UNKNOWN, *map(visible, self._spellings[2:])]

    @cached_property
    def _piece_ids(self) -> dict[str, int]:
        return {piece: token for token, piece in enumerate(self._pieces)}

    def pieces(self, ids: Sequence[int]) -> list[str]:
        check_ids(ids, self.vocab_size)
        return [self._pieces[token] for token in ids]

    def ids(self, pieces: Sequence[str]) -> list[int]:
        return look_up(pieces, self._piece_ids)

    def decoder(self) -> CharDecoder:
        return CharDecoder(self._spellings)

    def to_bytes(self) -> bytes:
        return json.dumps({"chars": "".join(self._spellings[2:])}).encode()

    @cached_property
    def fingerprint(self) -> str:
        return fingerprint(self.kind, self.to_bytes())

    @classmethod
    def from_bytes(cls, data: bytes) -> CharTokenizer:
        """Raises ModelError when damaged."""
        try:
            chars = json.loads(data)["chars"]
        except (ValueError, KeyError, TypeError, RecursionError):
            raise ModelError("damaged char tokenizer: not a JSON object with 'chars'") from None
        if not isinstance(chars, str) or len({*chars, "\n"}) != len(chars) + 1:
            raise ModelError("damaged char tokenizer: 'chars' must be a string of distinct ones")
        return cls(list(chars))


class CharDecoder:
    """A StreamDecoder for tokens that are whole characters."""

    def __init__(self, spellings: Sequence[str]) -> None:
        self._spellings = spellings

    def push(self, token: int) -> str:
        check_ids((token,), len(self._spellings))
        return self._spellings[token]

    def finish(self) -> str:
        return ""


class _CharIndex(dict[str, int]):
    def __missing__(self, char: str) -> int:
        return 1


def count_chars(lines: Iterable[str]) -> Counter[str]:
    counts: Counter[str] = Counter()
    for line in lines:
        counts.update(line)
    return counts


def count_chars_in_text(text: str) -> Counter[str]:
    """The same of many lines at once: an order of magnitude faster than character by character."""
    import numpy as np

    codes = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)
    totals = np.bincount(codes)
    return Counter({chr(code): int(totals[code]) for code in np.flatnonzero(totals)})


def _utf8(text: str) -> bytes:
    try:
        return text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:  # a surrogate that stands for no byte
        return without_surrogates(text).encode()

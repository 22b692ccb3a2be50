"""What every tokenizer offers, and the parts that several of them share."""

from __future__ import annotations

import codecs
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Protocol, TypeAlias

from rnncli.errors import DataError, UsageError
from rnncli.sections import TokenizerConfig

# numpy is imported where arrays are made: a filter that starts for one line does without.
if TYPE_CHECKING:
    from typing import Any

    import numpy as np
    import numpy.typing as npt

UNKNOWN = "<unk>"
LINE_END = "</s>"
SPACE_MARK = "\u2581"  # how sentencepiece prints a space; the other kinds follow it

Ids: TypeAlias = "npt.NDArray[np.unsignedinteger[Any]]"


class StreamDecoder(Protocol):
    """Text from ids that come one at a time; the concatenation equals ``decode`` of them all."""

    def push(self, token: int) -> str:
        """The text that ``token`` completes: whole characters, perhaps none."""
        ...

    def finish(self) -> str:
        """What an incomplete character at the end becomes."""
        ...


class Tokenizer(Protocol):
    """Ids are 0 to ``vocab_size - 1``; ``boundary_id`` ends a line and stands before the first."""

    @property
    def kind(self) -> str: ...
    @property
    def vocab_size(self) -> int: ...
    @property
    def boundary_id(self) -> int: ...
    @property
    def unk_id(self) -> int | None: ...
    @property
    def fingerprint(self) -> str:
        """SHA-256 (hexadecimal) of the kind and ``to_bytes()``."""
        ...

    @property
    def splits_at_spaces(self) -> bool:
        """Whether a text cut before a space encodes to the same tokens as in one."""
        ...

    def encode(self, line: str) -> list[int]:
        """The tokens of one line, without its end."""
        ...

    def encode_text(self, text: str) -> Ids:
        """The tokens of many lines, (N,), uint16 or uint32: ``boundary_id`` for every newline."""
        ...

    def decode(self, ids: Sequence[int]) -> str:
        """The text; a boundary becomes a newline. Raises DataError for an id out of range."""
        ...

    def pieces(self, ids: Sequence[int]) -> list[str]:
        """A printable piece, free of white space, for each id."""
        ...

    def ids(self, pieces: Sequence[str]) -> list[int]:
        """The inverse of ``pieces``. Raises DataError for an unknown piece."""
        ...

    def decoder(self) -> StreamDecoder: ...

    def to_bytes(self) -> bytes:
        """Everything that ``tokenizer_from_bytes`` needs to make this tokenizer again."""
        ...


class Utf8Decoder:
    """A StreamDecoder for tokens that are byte strings, perhaps parts of characters."""

    def __init__(self, spellings: Sequence[bytes], errors: str) -> None:
        self._spellings = spellings
        self._utf8 = codecs.getincrementaldecoder("utf-8")(errors)

    def push(self, token: int) -> str:
        check_ids((token,), len(self._spellings))
        return self._utf8.decode(self._spellings[token])

    def finish(self) -> str:
        return self._utf8.decode(b"", final=True)


def fingerprint(kind: str, data: bytes) -> str:
    return hashlib.sha256(kind.encode() + data).hexdigest()


def id_dtype(vocab_size: int) -> type[np.uint16] | type[np.uint32]:
    """The smaller of uint16 and uint32 that holds every id."""
    import numpy as np

    return np.uint16 if vocab_size <= 1 << 16 else np.uint32


def check_ids(ids: Iterable[int], vocab_size: int) -> None:
    """Raises DataError for an id outside 0 to ``vocab_size - 1``."""
    for token in ids:
        if not 0 <= token < vocab_size:
            raise DataError(f"token id {token} is outside the vocabulary, 0 to {vocab_size - 1}")


def look_up(pieces: Sequence[str], table: Mapping[str, int]) -> list[int]:
    """The id of each piece. Raises DataError for a piece that is not in ``table``."""
    try:
        return [table[piece] for piece in pieces]
    except KeyError as error:
        raise DataError(f"piece {error.args[0][:40]!r} is not in the vocabulary") from None


def without_surrogates(text: str) -> str:
    """``text`` with U+FFFD for every lone surrogate, which no UTF-8 can spell."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def visible(char: str) -> str:
    """A printable piece for one character: ``a``, ``▁`` for a space, ``<0x0A>`` for a newline."""
    if char == " ":
        return SPACE_MARK
    if char.isprintable() and char != SPACE_MARK:
        return char
    return f"<0x{ord(char):02X}>"


def most_frequent(
    counts: Mapping[str, int], config: TokenizerConfig, reserved: Sequence[str]
) -> list[str]:
    """The keys of ``counts`` by falling frequency, then code point, within the limits of
    ``config``, whose ``vocab_size`` has room for the ``reserved`` ones too. Raises UsageError when
    it has room for nothing else."""
    room = config.vocab_size - len(reserved) if config.vocab_size else len(counts)
    if config.vocab_size and room < 1:
        raise UsageError(
            f"tokenizer.vocab_size: {config.vocab_size} leaves no room beside "
            f"{' and '.join(map(repr, reserved))}; it must be 0 (no limit) or at least "
            f"{len(reserved) + 1}"
        )
    kept = [key for key, n in counts.items() if n >= config.min_count and key not in reserved]
    kept.sort(key=lambda key: (-counts[key], key))
    return kept[:room]

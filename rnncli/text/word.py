"""Tokens that are words: what stands between white space."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property

from rnncli.errors import ModelError
from rnncli.sections import TokenizerConfig
from rnncli.text.protocol import (
    LINE_END,
    UNKNOWN,
    Ids,
    check_ids,
    fingerprint,
    id_dtype,
    look_up,
    most_frequent,
)


class WordTokenizer:
    """The words of the training text. Id 0 is ``</s>``, the line's end; id 1 is ``<unk>``, for any
    word that is not in the vocabulary and for ``<unk>`` where the text has it (as Penn Treebank
    does); then by falling frequency. A literal ``</s>`` inside a line is an unknown word: only the
    end of a line ends a line."""

    kind = "word"
    splits_at_spaces = True
    boundary_id = 0
    unk_id: int | None = 1

    def __init__(self, words: Sequence[str]) -> None:
        """``words``: the vocabulary after ``</s>`` and ``<unk>``."""
        self._words = [LINE_END, UNKNOWN, *words]
        self._index = {word: token for token, word in enumerate(self._words) if token}
        self.vocab_size = len(self._words)

    @classmethod
    def from_counts(cls, counts: Mapping[str, int], config: TokenizerConfig) -> WordTokenizer:
        return cls(most_frequent(counts, config, (LINE_END, UNKNOWN)))

    def encode(self, line: str) -> list[int]:
        find = self._index.get
        return [find(word, 1) for word in line.split()]

    def encode_text(self, text: str) -> Ids:
        import numpy as np

        find = self._index.get
        lines = text.split("\n")
        tokens: list[int] = []
        for line in lines[:-1]:
            tokens += [find(word, 1) for word in line.split()]
            tokens.append(self.boundary_id)
        tokens += self.encode(lines[-1])
        return np.array(tokens, id_dtype(self.vocab_size))

    def decode(self, ids: Sequence[int]) -> str:
        decoder = self.decoder()
        return "".join([decoder.push(token) for token in ids])

    def pieces(self, ids: Sequence[int]) -> list[str]:
        check_ids(ids, self.vocab_size)
        return [self._words[token] for token in ids]

    def ids(self, pieces: Sequence[str]) -> list[int]:
        return look_up(pieces, self._piece_ids)

    @cached_property
    def _piece_ids(self) -> dict[str, int]:
        return self._index | {LINE_END: self.boundary_id}

    def decoder(self) -> WordDecoder:
        return WordDecoder(self._words)

    def to_bytes(self) -> bytes:
        return json.dumps({"words": self._words[2:]}).encode()

    @cached_property
    def fingerprint(self) -> str:
        return fingerprint(self.kind, self.to_bytes())

    @classmethod
    def from_bytes(cls, data: bytes) -> WordTokenizer:
        """Raises ModelError when damaged."""
        try:
            words = json.loads(data)["words"]
        except (ValueError, KeyError, TypeError, RecursionError):
            raise ModelError("damaged word tokenizer: not a JSON object with 'words'") from None
        if (
            not isinstance(words, list)
            or not all(isinstance(word, str) and word.split() == [word] for word in words)
            or len({*words, LINE_END, UNKNOWN}) != len(words) + 2
        ):
            raise ModelError("damaged word tokenizer: 'words' must be a list of distinct words")
        return cls(words)


class WordDecoder:
    """A StreamDecoder for words: a space between two, a newline for the line's end."""

    def __init__(self, words: Sequence[str]) -> None:
        self._words = words
        self._at_start = True

    def push(self, token: int) -> str:
        check_ids((token,), len(self._words))
        if token == WordTokenizer.boundary_id:
            self._at_start = True
            return "\n"
        text = self._words[token] if self._at_start else " " + self._words[token]
        self._at_start = False
        return text

    def finish(self) -> str:
        return ""


def count_words(lines: Iterable[str]) -> Counter[str]:
    counts: Counter[str] = Counter()
    for line in lines:
        counts.update(line.split())
    return counts

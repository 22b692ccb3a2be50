"""Tokens and the white-space words of their text, whatever the kind of tokenizer."""

from __future__ import annotations

import re
from collections.abc import Sequence

from rnncli.text.protocol import SPACE_MARK, Tokenizer

_SUBWORDS = ("bpe", "unigram")
_BYTE_PIECE = re.compile(r"<0x[0-9A-F]{2}>")


def word_numbers(tokenizer: Tokenizer, ids: Sequence[int], line: str | None = None) -> list[int]:
    """Which word, from 0, of ``" ".split()`` of its text each token belongs to. White space and
    parts of a character belong to the word that comes next; at the end of the text, to the last
    one. ``line``: what ``ids`` are the tokens of, where that is known."""
    numbers: list[int] = []
    word, inside = -1, False
    for text in _spelled(tokenizer, ids, line):
        first = -1
        for char in text:
            if char.isspace():
                inside = False
            elif not inside:
                word, inside = word + 1, True
            if inside and first < 0:
                first = word
        numbers.append(first)
    following = max(word, 0)
    for place in range(len(numbers) - 1, -1, -1):
        if numbers[place] < 0:
            numbers[place] = following
        following = numbers[place]
    return numbers


def _spelled(tokenizer: Tokenizer, ids: Sequence[int], line: str | None) -> list[str]:
    """The text that each token completes."""
    if tokenizer.kind == "char" and line is not None and len(line) == len(ids):
        return list(line)
    decoder = tokenizer.decoder()
    # What sentencepiece makes of an unknown piece has spaces, which a text that was read has not.
    read = line is not None and tokenizer.kind in _SUBWORDS
    unknown = tokenizer.unk_id if read else None
    return ["\ufffd" if token == unknown else decoder.push(token) for token in ids]


def all_unseen(tokenizer: Tokenizer, ids: Sequence[int]) -> bool:
    """Whether ``ids``, some, have nothing that the tokenizer learned from its training text: only
    unknown tokens, and bytes of characters that it spells so because it never saw them."""
    if not ids or tokenizer.kind == "byte":
        return False
    if tokenizer.kind not in _SUBWORDS:
        known = [token for token in ids if token != tokenizer.unk_id]
        return not "".join(tokenizer.pieces(known)).replace(SPACE_MARK, " ").strip()
    pieces = zip(ids, tokenizer.pieces(ids), strict=True)
    rest = [p for token, p in pieces if token != tokenizer.unk_id and p != SPACE_MARK]
    return all(_BYTE_PIECE.fullmatch(piece) for piece in rest)

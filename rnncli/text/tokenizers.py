"""Every kind of tokenizer behind one protocol: trained on lines, or made again from bytes."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from rnncli.errors import ModelError, UsageError
from rnncli.sections import TokenizerConfig
from rnncli.text.byte_char import ByteTokenizer, CharTokenizer, count_chars
from rnncli.text.protocol import StreamDecoder, Tokenizer
from rnncli.text.word import WordTokenizer, count_words

__all__ = [
    "StreamDecoder",
    "Tokenizer",
    "load_sentencepiece",
    "tokenizer_from_bytes",
    "train_tokenizer",
]


def train_tokenizer(config: TokenizerConfig, lines: Iterable[str]) -> Tokenizer:
    """The tokenizer that ``config`` describes, its vocabulary from ``lines`` (without line ends).

    With ``config.model`` the sentencepiece model named there. Raises UsageError for a vocabulary
    too small for its kind, or for a model of another kind, FileError and DataError as
    ``load_sentencepiece`` does.
    """
    if config.model is not None:
        loaded = load_sentencepiece(config.model)
        if loaded.kind != config.kind:
            raise UsageError(
                f"tokenizer.kind: {config.kind!r}, and {config.model} is a model of kind "
                f"{loaded.kind!r}; use that"
            )
        return loaded
    if config.kind == "byte":
        return ByteTokenizer.from_config(config)
    if config.kind == "char":
        return CharTokenizer.from_counts(count_chars(lines), config)
    if config.kind == "word":
        return WordTokenizer.from_counts(count_words(lines), config)
    from rnncli.text.subword_training import train_subword

    return train_subword(config, lines)


def tokenizer_from_bytes(kind: str, data: bytes) -> Tokenizer:
    """The tokenizer whose ``to_bytes()`` gave ``data``. Raises ModelError when damaged."""
    if kind == "byte":
        return ByteTokenizer.from_bytes(data)
    if kind == "char":
        return CharTokenizer.from_bytes(data)
    if kind == "word":
        return WordTokenizer.from_bytes(data)
    if kind in ("bpe", "unigram"):
        from rnncli.text.subword import SubwordTokenizer

        tokenizer = SubwordTokenizer(data)
        if tokenizer.kind != kind:
            raise ModelError(f"damaged {kind} tokenizer: the model inside is {tokenizer.kind}")
        return tokenizer
    raise ModelError(f"unknown kind of tokenizer {kind!r}")


def load_sentencepiece(path: str | Path) -> Tokenizer:
    """The tokenizer of a sentencepiece ``.model`` file. Raises FileError, or DataError when the
    file is no such model."""
    from rnncli.text.subword import load_model

    return load_model(Path(path))

"""Whether the scores of whole configurations may stand in one column."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from itertools import pairwise

from rnncli.config import Config
from rnncli.errors import UsageError
from rnncli.sections import TokenizerConfig
from rnncli.text.subword_training import DEFAULT_VOCAB_SIZE
from rnncli.training.compare import Candidate


def require_comparable(candidates: Sequence[Candidate]) -> None:
    """Raise UsageError for candidates whose scores are of different quantities: of two tasks, by
    two kinds of tokens, or on two validation texts."""
    for one, other in pairwise(candidates):
        if one.config.task != other.config.task:
            raise UsageError(
                f"{one.label} has task = {one.config.task!r} and {other.label} "
                f"{other.config.task!r}, whose scores are of different things and cannot be "
                "compared; give configurations of one task"
            )
        mine, theirs = _tokens(one.config.tokenizer), _tokens(other.config.tokenizer)
        if mine != theirs:
            raise UsageError(
                f"{one.label} predicts {mine} and {other.label} {theirs}, and a perplexity by one "
                "cannot be compared with a perplexity by the other; give all of them one tokenizer "
                "(--tokenizer, --set tokenizer.vocab_size=N), or train them apart and compare the "
                "bits per character, or of translations the BLEU, of rnncli evaluate"
            )
        for name, value, its in _unlike_texts(one.config, other.config):
            raise UsageError(
                f"{one.label} has {name} = {value!r} and {other.label} {its!r}, so that they are "
                f"not validated on the same; give all of them one (--set {name}=...)"
            )


def _unlike_texts(one: Config, other: Config) -> Iterator[tuple[str, object, object]]:
    """Settings by which the two are validated on different data: name and both values."""
    data: tuple[str, ...] = ("valid", "valid_source", "valid_target", "strip_lines")
    if one.data.valid is None and one.data.valid_source is None:
        data += ("train", "source", "target", "valid_fraction")  # it is held out of these
    made = tuple(f.name for f in dataclasses.fields(one.synthetic) if f.name != "solved_share")
    sections = {"synthetic": made} if one.task.startswith("synthetic:") else {"data": data}
    if one.task == "lm":
        sections["training"] = ("state",)  # from which a line is predicted
    for section, names in sections.items():
        for name in names:
            values = [getattr(getattr(config, section), name) for config in (one, other)]
            if values[0] != values[1]:
                yield f"{section}.{name}", values[0], values[1]


def _tokens(tokenizer: TokenizerConfig) -> str:
    """What is predicted with it, in words. Pieces of two vocabularies are not alike."""
    if tokenizer.model is not None:
        return f"the pieces of {tokenizer.model}"
    if tokenizer.kind in ("bpe", "unigram"):
        return f"{tokenizer.vocab_size or DEFAULT_VOCAB_SIZE:,} pieces ({tokenizer.kind})"
    if tokenizer.kind == "byte":
        return "bytes"
    limits = [f"at most {tokenizer.vocab_size:,}"] if tokenizer.vocab_size else []
    limits += [f"seen {tokenizer.min_count} times or more"] if tokenizer.min_count > 1 else []
    name = "characters" if tokenizer.kind == "char" else "words"
    return name + (f" ({', '.join(limits)})" if limits else "")

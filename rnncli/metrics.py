"""Figures for what a model is worth, each with the signature that says what was counted."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Protocol

from rnncli import __version__
from rnncli.errors import DataError


@dataclass(frozen=True)
class Score:
    """One figure. Two of them may be compared when their signatures are the same."""

    name: str
    value: float
    unit: str
    signature: str


class TextCounts(Protocol):
    """How much text was scored. Line ends count as a token, a word, a character and a byte."""

    @property
    def tokens(self) -> int: ...
    @property
    def words(self) -> int: ...
    @property
    def characters(self) -> int: ...
    @property
    def bytes(self) -> int: ...
    @property
    def oov(self) -> int:
        """Tokens that are the unknown one."""
        ...


@dataclass(frozen=True)
class LanguageModelScores:
    """The loss of a text in every unit. ``nats``: minus its log-probability, over all tokens;
    ``oov_nats``: the unknown tokens' part of it. ``state``: carried or reset. ``notes``: what else
    the figures depend on, such as ``columns:32``; the end of the signature."""

    nats: float
    oov_nats: float
    counts: TextCounts
    tokenizer: str
    state: str
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.counts.tokens < 1:
            raise DataError("there is no text to measure; expected at least one line")

    @property
    def perplexity(self) -> float:
        """exp of the nats a token, ``</s>`` and ``<unk>`` included."""
        return _exp(self.nats, self.counts.tokens)

    @property
    def word_perplexity(self) -> float:
        """The same a word, however the words are spelled; comparable between tokenizers."""
        return _exp(self.nats, self.counts.words)

    @property
    def bits_per_character(self) -> float:
        return _divide(self.nats, self.counts.characters) / math.log(2)

    @property
    def bits_per_byte(self) -> float:
        return _divide(self.nats, self.counts.bytes) / math.log(2)

    @property
    def perplexity_without_oov(self) -> float:
        """exp of the nats a token over those that are not the unknown one (which is still what the
        following ones were predicted from)."""
        return _exp(self.nats - self.oov_nats, self.counts.tokens - self.counts.oov)

    @property
    def signature(self) -> str:
        return self._signature("counted")

    def scores(self) -> tuple[Score, ...]:
        """Every figure with its unit and signature."""
        all_tokens, known_tokens = self._signature("counted"), self._signature("left-out")
        return (
            Score("perplexity", self.perplexity, "token", all_tokens),
            Score("word_perplexity", self.word_perplexity, "word", all_tokens),
            Score("bits_per_character", self.bits_per_character, "bits", all_tokens),
            Score("bits_per_byte", self.bits_per_byte, "bits", all_tokens),
            Score("perplexity_without_oov", self.perplexity_without_oov, "token", known_tokens),
        )

    def to_dict(self) -> dict[str, Any]:
        """The object that ``evaluate --json`` prints."""
        return {
            "nats": self.nats,
            "tokens": self.counts.tokens,
            "words": self.counts.words,
            "characters": self.counts.characters,
            "bytes": self.counts.bytes,
            "oov": self.counts.oov,
            **{score.name: score.value for score in self.scores()},
            "state": self.state,
            "signature": self.signature,
        }

    def _signature(self, unknown: str) -> str:
        parts = (
            f"rnncli:{__version__}",
            f"tokens:{self.tokenizer}",
            "eos:counted",
            f"unk:{unknown}",
            f"state:{self.state}",
        )
        return "|".join((*parts, *self.notes))


def _divide(total: float, count: int) -> float:
    return total / count if count else math.nan


def _exp(nats: float, count: int) -> float:
    try:
        return math.exp(_divide(nats, count))
    except OverflowError:
        return math.inf


@dataclass(frozen=True)
class PairScores:
    """The loss of targets given their sources. ``nats``: minus the log-probability of all
    ``tokens``, each target's end counted; ``oov``: how many of them are the unknown one."""

    nats: float
    tokens: int
    oov: int
    tokenizer: str
    notes: tuple[str, ...] = ()

    @property
    def perplexity(self) -> float:
        """exp of the nats a token, ``</s>`` and ``<unk>`` included."""
        return _exp(self.nats, self.tokens)

    @property
    def signature(self) -> str:
        parts = (f"rnncli:{__version__}", f"tokens:{self.tokenizer}", "eos:counted", "unk:counted")
        return "|".join((*parts, "given:source", *self.notes))

    def to_dict(self) -> dict[str, Any]:
        """What of the object that ``evaluate --json`` prints is about the references."""
        return {
            "nats": self.nats,
            "tokens": self.tokens,
            "oov": self.oov,
            "perplexity": self.perplexity,
            "perplexity_signature": self.signature,
        }


@dataclass(frozen=True)
class MusicScores:
    """The loss of pieces of music, every frame of every piece counted: the first one is predicted
    from the initial state and a frame of silence.

    ``nats``: minus the log-probability of all ``frames``; ``first_nats``: the part of the first
    frame of each of the ``pieces`` (those that have any frame); ``mean_nats``: the sum over pieces
    of their nats a frame. ``hits``, ``false_alarms`` and ``misses`` count keys at which what is
    more probable than not is right, sounds alone, and is silent alone; where a key depends on those
    below it (``output:nade`` in the signature), given these as they were.
    """

    nats: float
    first_nats: float
    mean_nats: float
    frames: int
    pieces: int
    hits: int
    false_alarms: int
    misses: int
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.frames < 1:
            raise DataError("there is no music to measure; expected at least one frame")

    @property
    def nats_per_frame(self) -> float:
        """All nats over all frames, divided once."""
        return _divide(self.nats, self.frames)

    @property
    def nats_per_frame_by_piece(self) -> float:
        """The mean over pieces of each one's nats a frame: short pieces weigh as much as long."""
        return _divide(self.mean_nats, self.pieces)

    @property
    def nats_per_frame_without_first(self) -> float:
        """Over the frames that have one before them."""
        return _divide(self.nats - self.first_nats, self.frames - self.pieces)

    @property
    def accuracy(self) -> float:
        """TP / (TP + FP + FN) over all frames (Bay et al. 2009)."""
        return _divide(self.hits, self.hits + self.false_alarms + self.misses)

    @property
    def signature(self) -> str:
        return "|".join(
            (f"rnncli:{__version__}", "keys:88", "first-frame:counted", "average:frames",
             "threshold:0.5", *self.notes)
        )  # fmt: skip

    def scores(self) -> tuple[Score, ...]:
        """Every figure with its unit and signature."""
        by_piece = self.signature.replace("average:frames", "average:pieces")
        rest = self.signature.replace("first-frame:counted", "first-frame:left-out")
        return (
            Score("nats_per_frame", self.nats_per_frame, "frame", self.signature),
            Score("nats_per_frame_by_piece", self.nats_per_frame_by_piece, "frame", by_piece),
            Score("nats_per_frame_without_first", self.nats_per_frame_without_first, "frame", rest),
            Score("accuracy", self.accuracy, "share", self.signature),
        )

    def to_dict(self) -> dict[str, Any]:
        """The object that ``evaluate --json`` prints for a model of music."""
        return {
            "nats": self.nats,
            "frames": self.frames,
            "pieces": self.pieces,
            **{score.name: score.value for score in self.scores()},
            "signature": self.signature,
        }

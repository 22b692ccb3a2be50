"""How scores of lines are written: numbers, JSON, or as SRILM and KenLM print theirs.

SRILM's is that of ``ngram -ppl FILE -unk -debug 1`` (2 with words): unknown words have a
probability, so none is counted as OOV. KenLM's is that of ``query``, whose numbers for words are 0
for an unknown one and 2 for ``</s>``. Both print logarithms to base 10.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from rnncli.errors import UsageError, choices_hint
from rnncli.evaluation.scoring import LineScore
from rnncli.text.protocol import LINE_END, Tokenizer

FORMATS = ("plain", "srilm", "kenlm", "json")
LEVELS = ("sentence", "word", "summary")
LOG_BASES = {"e": math.e, "2": 2.0, "10": 10.0}


def log_unit(base: str) -> float:
    """Nats in one unit of logarithms to ``base``. Raises UsageError for an unknown base."""
    if base not in LOG_BASES:
        raise UsageError(f"--log-base: unknown value {base!r}{choices_hint(base, LOG_BASES)}")
    return math.log(LOG_BASES[base])


@dataclass
class ScoreTotals:
    """What the lines so far have in common."""

    lines: int = 0
    tokens: int = 0
    oov: int = 0
    nats: float = 0.0
    oov_nats: float = 0.0

    def add(self, scores: Iterable[LineScore]) -> None:
        for score in scores:
            self.lines += 1
            self.tokens += len(score.tokens)
            self.oov += score.oov
            self.nats += score.total_nats
            self.oov_nats += float(score.nats[score.unknown].sum())


class ScoreFormat:
    """Texts of scores. ``level``: a line for each sentence, its words (the model's tokens, whatever
    they are) too, or nothing but the summary at the end. Raises UsageError for an unknown value."""

    def __init__(self, tokenizer: Tokenizer, *, level: str, log_base: str) -> None:
        if level not in LEVELS:
            raise UsageError(f"--level: unknown value {level!r}{choices_hint(level, LEVELS)}")
        self.tokenizer = tokenizer
        self.level = level
        self.log_base = log_base
        self.unit = log_unit(log_base)

    def texts(self, score: LineScore) -> list[str]:
        """The lines to write for one line."""
        raise NotImplementedError

    def missing(self) -> list[str]:
        """The lines to write for one that has no score."""
        return [] if self.level == "summary" else [""]

    def end(self, totals: ScoreTotals, name: str) -> list[str]:
        """The lines to write after all lines of the file ``name``."""
        raise NotImplementedError

    def pieces(self, score: LineScore) -> list[str]:
        """A printable piece for each token, ``</s>`` for the last."""
        return [*self.tokenizer.pieces(score.tokens[:-1]), LINE_END]

    def logs(self, score: LineScore) -> Iterator[float]:
        """The log-probability of each token."""
        return (-nats / self.unit for nats in score.nats.tolist())


class Plain(ScoreFormat):
    """The log-probability; with words ``piece log-probability`` for each, tabs between."""

    def texts(self, score: LineScore) -> list[str]:
        if self.level == "summary":
            return []
        if self.level == "sentence":
            return [_fixed(-score.total_nats / self.unit)]
        words = zip(self.pieces(score), self.logs(score), strict=True)
        return ["\t".join(f"{piece} {_fixed(log)}" for piece, log in words)]

    def end(self, totals: ScoreTotals, name: str) -> list[str]:
        if self.level != "summary":
            return []
        rows = _summary(totals, self.unit)
        return [f"{key.replace('_', ' '):<22}  {_value(value)}" for key, value in rows.items()]


class Json(ScoreFormat):
    """One object a line; with words ``pieces`` and ``logprobs`` in it, too."""

    def texts(self, score: LineScore) -> list[str]:
        if self.level == "summary":
            return []
        values: dict[str, Any] = {
            "logprob": _rounded(-score.total_nats / self.unit),
            "tokens": len(score.tokens),
            "oov": score.oov,
        }
        if self.level == "word":
            values["pieces"] = self.pieces(score)
            values["logprobs"] = [_rounded(log) for log in self.logs(score)]
        return [json.dumps(values, ensure_ascii=False)]

    def missing(self) -> list[str]:
        return [] if self.level == "summary" else [json.dumps({"logprob": None})]

    def end(self, totals: ScoreTotals, name: str) -> list[str]:
        if self.level != "summary":
            return []
        rows = {key: _rounded(v) for key, v in _summary(totals, self.unit).items()}
        return [json.dumps({**rows, "log_base": self.log_base}, ensure_ascii=False)]


class Srilm(ScoreFormat):
    """``1 sentences, 4 words, 0 OOVs`` and so on; the file's own summary always comes last."""

    def texts(self, score: LineScore) -> list[str]:
        if self.level == "summary":
            return []
        logs = list(self.logs(score))
        lines = [score.line, *self._counts("", 1, len(logs) - 1, sum(logs)), ""]
        if self.level == "word":
            lines[1:1] = self._words(self.pieces(score), logs)
        return lines

    def end(self, totals: ScoreTotals, name: str) -> list[str]:
        words, log10 = totals.tokens - totals.lines, -totals.nats / self.unit
        return self._counts(f"file {name}: ", totals.lines, words, log10)

    @staticmethod
    def _words(pieces: list[str], logs: list[float]) -> Iterator[str]:
        contexts = ("<s> ", *(f"{piece} ..." for piece in pieces))
        for piece, context, log10 in zip(pieces, contexts, logs, strict=False):
            yield f"\tp( {piece} | {context}) \t= [rnn] {10**log10:.7g} [ {log10:.7g} ]"

    @staticmethod
    def _counts(prefix: str, sentences: int, words: int, log10: float) -> list[str]:
        with_ends, without = _power(log10, words + sentences), _power(log10, words)
        return [
            f"{prefix}{sentences} sentences, {words} words, 0 OOVs",
            f"0 zeroprobs, logprob= {log10:.7g} ppl= {with_ends} ppl1= {without}",
        ]


class Kenlm(ScoreFormat):
    """``the=12 2 -1.5`` for words, where 2 is how many tokens the probability looks at, itself and
    ``<s>`` included; ``Total: -20.1 OOV: 0`` for sentences; four lines for the summary."""

    def texts(self, score: LineScore) -> list[str]:
        if self.level == "summary":
            return []
        words = ""
        if self.level == "word":
            words = "".join(
                f"{piece}={self._number(token)} {place} {log10:.7g}\t"
                for place, (piece, token, log10) in enumerate(
                    zip(self.pieces(score), score.tokens, self.logs(score), strict=True), 2
                )
            )
        return [f"{words}Total: {-score.total_nats / self.unit:.7g} OOV: {score.oov}"]

    def end(self, totals: ScoreTotals, name: str) -> list[str]:
        if self.level != "summary":
            return []
        log10, known = -totals.nats / self.unit, (totals.oov_nats - totals.nats) / self.unit
        return [
            f"Perplexity including OOVs:\t{_power(log10, totals.tokens)}",
            f"Perplexity excluding OOVs:\t{_power(known, totals.tokens - totals.oov)}",
            f"OOVs:\t{totals.oov}",
            f"Tokens:\t{totals.tokens}",
        ]

    def _number(self, token: int) -> int:
        if token == self.tokenizer.unk_id:
            return 0
        return 2 if token == self.tokenizer.boundary_id else token + 3


_CLASSES = {"plain": Plain, "srilm": Srilm, "kenlm": Kenlm, "json": Json}


def score_format(
    name: str, tokenizer: Tokenizer, *, level: str = "sentence", log_base: str | None = None
) -> ScoreFormat:
    """The format called ``name``. ``log_base`` None: 10 for srilm and kenlm, else e.

    Raises UsageError for an unknown value, or srilm or kenlm with another base.
    """
    if name not in FORMATS:
        raise UsageError(f"--format: unknown value {name!r}{choices_hint(name, FORMATS)}")
    only_ten = name in ("srilm", "kenlm")
    if only_ten and log_base not in (None, "10"):
        raise UsageError(f"--log-base {log_base}: --format {name} has logarithms to base 10 alone")
    base = log_base or ("10" if only_ten else "e")
    return _CLASSES[name](tokenizer, level=level, log_base=base)


def _summary(totals: ScoreTotals, unit: float) -> dict[str, float | int]:
    return {
        "lines": totals.lines,
        "tokens": totals.tokens,
        "oov": totals.oov,
        "logprob": -totals.nats / unit,
        "perplexity": _perplexity(totals.nats, totals.tokens),
        "perplexity_without_oov": _perplexity(
            totals.nats - totals.oov_nats, totals.tokens - totals.oov
        ),
    }


def _perplexity(nats: float, count: int) -> float:
    try:
        return math.exp(nats / count) if count else math.nan
    except OverflowError:
        return math.inf


def _power(log10: float, count: int) -> str:
    """Perplexity from a logarithm to base 10; ``undefined``, as SRILM says, of nothing."""
    return f"{_perplexity(-log10 * math.log(10), count):.7g}" if count else "undefined"


def _fixed(value: float) -> str:
    return f"{round(value, 4) + 0.0:.4f}"  # never -0.0000


def _rounded(value: float) -> float | None:
    """To 4 decimals, an integer as it is; None for what JSON has no number for."""
    if isinstance(value, int):
        return value
    return round(value, 4) + 0.0 if math.isfinite(value) else None


def _value(value: float | int) -> str:
    return str(value) if isinstance(value, int) else _fixed(value)

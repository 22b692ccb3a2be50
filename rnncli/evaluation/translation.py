"""What translations are worth, as sacreBLEU measures it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from rnncli.evaluation.significance import RESAMPLES, Estimate, metrics, resampled
from rnncli.metrics import Score

if TYPE_CHECKING:
    from sacrebleu.metrics.bleu import BLEU


_LONG = 4096
"""Entries of the table of an edit distance from which on numpy fills it faster."""


@dataclass(frozen=True)
class Quality:
    """What a system's translations are worth. ``estimates`` are BLEU's and chrF's, where there was
    resampling."""

    bleu: Score
    chrf: Score
    exact_match: float
    token_error_rate: float
    estimates: tuple[Estimate, Estimate] | None = None

    def to_dict(self) -> dict[str, Any]:
        """What of the object that ``evaluate --json`` prints is about the translations."""
        values = {
            "bleu": self.bleu.value,
            "chrf": self.chrf.value,
            "exact_match": self.exact_match,
            "token_error_rate": self.token_error_rate,
            "signature": self.bleu.signature,
            "chrf_signature": self.chrf.signature,
        }
        if self.estimates is None:
            return values
        spread = {
            one.score.name: {"mean": one.mean, "half_width": one.half_width}
            for one in self.estimates
        }
        confidence = {"level": 0.95, "resamples": RESAMPLES, **spread}
        p_values = {
            one.score.name: one.p_value for one in self.estimates if one.p_value is not None
        }
        return {**values, "confidence": confidence, **({"p_value": p_values} if p_values else {})}


def measure(
    systems: Sequence[Sequence[str]],
    references: Sequence[str],
    *,
    lowercase: bool = False,
    confidence: bool = False,
) -> list[Quality]:
    """What each system's translations are worth. Several are resampled and tested against the
    first; one is with ``confidence``. ``lowercase`` is for BLEU and chrF alone."""
    if len(systems) == 1 and not confidence:
        scores = bleu_and_chrf(systems[0], references, lowercase=lowercase)
        return [_quality(systems[0], references, scores, None)]
    found = []
    estimates = resampled(systems, references, lowercase=lowercase)
    for lines, (bleu, chrf) in zip(systems, estimates, strict=True):
        found.append(_quality(lines, references, (bleu.score, chrf.score), (bleu, chrf)))
    return found


def _quality(
    lines: Sequence[str],
    references: Sequence[str],
    scores: tuple[Score, Score],
    estimates: tuple[Estimate, Estimate] | None,
) -> Quality:
    exact, errors = exact_match(lines, references), token_error_rate(lines, references)
    return Quality(*scores, exact, errors, estimates)


def bleu_and_chrf(
    translations: Sequence[str], references: Sequence[str], *, lowercase: bool = False
) -> tuple[Score, Score]:
    """Corpus BLEU and chrF of detokenised text, one reference each, with sacreBLEU's signatures."""
    scores = []
    for name, metric in metrics(lowercase).items():
        value = metric.corpus_score(list(translations), [list(references)]).score
        scores.append(Score(name, float(value), "percent", str(metric.get_signature())))
    return scores[0], scores[1]


def sentence_bleu(translation: str, reference: str) -> float:
    """BLEU of one sentence in percent, by sacreBLEU: n-grams longer than the sentences are left
    out, and counts of 0 are smoothed (Chen and Cherry 2014, method 3)."""
    return float(_of_sentences().sentence_score(translation, [reference]).score)


@cache
def _of_sentences() -> BLEU:
    from sacrebleu.metrics.bleu import BLEU

    return BLEU(effective_order=True)


def exact_match(translations: Sequence[str], references: Sequence[str]) -> float:
    """The share of lines that are their reference."""
    pairs = zip(translations, references, strict=True)
    return sum(a == b for a, b in pairs) / max(1, len(references))


def token_error_rate(translations: Sequence[str], references: Sequence[str]) -> float:
    """Insertions, deletions and substitutions of words (between white space) that lead to the
    references, over the references' words; both summed over all lines first."""
    errors = words = 0
    for found, expected in zip(translations, references, strict=True):
        errors += edit_distance(found.split(), expected.split())
        words += len(expected.split())
    return errors / max(1, words)


def edit_distance(a: Sequence[str], b: Sequence[str]) -> int:
    """The fewest insertions, deletions and substitutions that make b of a (Levenshtein 1966)."""
    if len(a) * len(b) > _LONG:
        return _distance_of_long(a, b)
    row = list(range(len(b) + 1))
    for i, left in enumerate(a, 1):
        diagonal, row[0] = row[0], i
        for j, right in enumerate(b, 1):
            best = min(row[j] + 1, row[j - 1] + 1, diagonal + (left != right))
            diagonal, row[j] = row[j], best
    return row[-1]


def _distance_of_long(a: Sequence[str], b: Sequence[str]) -> int:
    """``edit_distance``, a row of the table at a time."""
    numbers = {word: number for number, word in enumerate(dict.fromkeys((*a, *b)))}
    columns = np.arange(len(b) + 1)
    right, row = np.array([numbers[word] for word in b]), columns
    for i, word in enumerate(a, 1):
        kept = np.minimum(row[1:] + 1, row[:-1] + (right != numbers[word]))
        # Insertions lead along the row: each costs one.
        row = np.minimum.accumulate(np.concatenate(([i], kept)) - columns) + columns
    return int(row[-1])

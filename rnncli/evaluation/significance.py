"""How sure BLEU and chrF are, and whether two systems differ: bootstrap resampling.

Koehn 2004, *Statistical significance tests for machine translation evaluation*, sec. 3, as
sacreBLEU does it: a test set is drawn again and again from the lines of the one there is, with
replacement, and the scores of all these sets tell how much one depends on the lines.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, cast

from rnncli.metrics import Score

if TYPE_CHECKING:
    from sacrebleu.metrics.base import Metric
    from sacrebleu.significance import Result

RESAMPLES = 1000
"""sacreBLEU's default, and Koehn's."""


@dataclass(frozen=True)
class Estimate:
    """A score, and of its resamples the ``mean`` and half the width of the interval that 95 % of
    them are in. ``p_value``: how often chance alone would make a difference at least as great as
    that from the baseline; None for the baseline."""

    score: Score
    mean: float
    half_width: float
    p_value: float | None = None


def metrics(lowercase: bool = False) -> dict[str, Metric]:
    """sacreBLEU's BLEU and chrF as they are by default, under our names for them."""
    from sacrebleu.metrics.bleu import BLEU
    from sacrebleu.metrics.chrf import CHRF

    # force: text with spaces before its periods is measured without a warning at every validation
    return {"bleu": BLEU(lowercase=lowercase, force=True), "chrf": CHRF(lowercase=lowercase)}


def resampled(
    systems: Sequence[Sequence[str]], references: Sequence[str], *, lowercase: bool = False
) -> list[tuple[Estimate, Estimate]]:
    """BLEU and chrF of each system's translations. The first system is the baseline, and every
    other one is tested against it on the same resamples.

    By a metric that gives it what it gives the baseline a system has a p-value of 1. (sacreBLEU's
    rule counts the resamples with a greater difference than the systems have; where none differs it
    finds none, and the smallest p-value there is.)
    """
    from sacrebleu.significance import PairedTest

    named: list[tuple[str, Sequence[str]]] = [
        (str(number), list(lines)) for number, lines in enumerate(systems)
    ]
    ours = metrics(lowercase)
    test = PairedTest(named, ours, [list(references)], test_type="bs", n_samples=RESAMPLES)
    signatures, found = test()
    columns = [
        [_estimate(name, cast("Result", one), str(signatures[theirs])) for one in found[theirs]]
        for name, theirs in zip(ours, signatures, strict=True)
    ]
    estimates = list(zip(columns[0], columns[1], strict=True))
    baseline = estimates[0]
    return [
        baseline,
        *(
            (_as_equal(bleu, baseline[0]), _as_equal(chrf, baseline[1]))
            for bleu, chrf in estimates[1:]
        ),
    ]


def _as_equal(one: Estimate, baseline: Estimate) -> Estimate:
    """``one``, whose p is 1 where it is worth just as much."""
    equal = one.score.value == baseline.score.value
    return replace(one, p_value=1.0) if equal else one


def _estimate(name: str, result: Result, signature: str) -> Estimate:
    assert result.mean is not None
    assert result.ci is not None
    score = Score(name, float(result.score), "percent", signature)
    return Estimate(score, float(result.mean), float(result.ci), result.p_value)

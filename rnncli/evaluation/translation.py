"""What translations are worth, as sacreBLEU measures it."""

from __future__ import annotations

from collections.abc import Sequence

from rnncli.metrics import Score


def bleu_and_chrf(translations: Sequence[str], references: Sequence[str]) -> tuple[Score, Score]:
    """Corpus BLEU and chrF of detokenised text, one reference each, with sacreBLEU's signatures."""
    from sacrebleu.metrics.bleu import BLEU
    from sacrebleu.metrics.chrf import CHRF

    scores = []
    for name, metric in (("bleu", BLEU()), ("chrf", CHRF())):
        value = metric.corpus_score(list(translations), [list(references)]).score
        scores.append(Score(name, float(value), "percent", str(metric.get_signature())))
    return scores[0], scores[1]


def exact_match(translations: Sequence[str], references: Sequence[str]) -> float:
    """The share of lines that are their reference."""
    pairs = zip(translations, references, strict=True)
    return sum(a == b for a, b in pairs) / max(1, len(references))

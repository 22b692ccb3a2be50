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
    row = list(range(len(b) + 1))
    for i, left in enumerate(a, 1):
        diagonal, row[0] = row[0], i
        for j, right in enumerate(b, 1):
            best = min(row[j] + 1, row[j - 1] + 1, diagonal + (left != right))
            diagonal, row[j] = row[j], best
    return row[-1]

"""What translations are worth: against sacreBLEU's own command and by brute force."""

from __future__ import annotations

from functools import cache

import pytest
import sacrebleu
from hypothesis import given, settings
from hypothesis import strategies as st

import rnncli.evaluation.translation
from rnncli.evaluation.translation import (
    bleu_and_chrf,
    edit_distance,
    exact_match,
    token_error_rate,
)

FOUND = ["the cat sat on the mat .", "A dog, ran!"]
EXPECTED = ["the cat sat on a mat .", "A dog ran!"]
words = st.lists(st.sampled_from("abc"), max_size=6)


def test_bleu_and_chrf_are_sacrebleus() -> None:
    bleu, chrf = bleu_and_chrf(FOUND, EXPECTED)
    assert bleu.value == sacrebleu.corpus_bleu(FOUND, [EXPECTED]).score
    assert chrf.value == sacrebleu.corpus_chrf(FOUND, [EXPECTED]).score
    assert "case:mixed" in bleu.signature and "tok:13a" in bleu.signature


@settings(deadline=None)
@given(words, words)
def test_edit_distance_of_long_lines_is_the_same(a: list[str], b: list[str]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rnncli.evaluation.translation, "_LONG", -1)
        found = edit_distance(a, b)
    assert found == edit_distance(a, b)


@settings(deadline=None)
@given(words, words)
def test_edit_distance_is_the_best_of_all_ways(a: list[str], b: list[str]) -> None:
    @cache
    def least(i: int, j: int) -> int:
        if i == 0 or j == 0:
            return i + j
        same = least(i - 1, j - 1) + (a[i - 1] != b[j - 1])
        return min(same, least(i - 1, j) + 1, least(i, j - 1) + 1)

    assert edit_distance(a, b) == least(len(a), len(b))


def test_rates_are_summed_before_they_are_divided() -> None:
    assert token_error_rate(["a b", "x"], ["a c", ""]) == 2 / 2
    assert token_error_rate(["a b c d", "x"], ["a b c d", "y"]) == 1 / 5
    assert exact_match(["a", "b"], ["a", "c"]) == 0.5

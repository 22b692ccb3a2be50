"""Alignments and coverage from weights that are written out."""

from __future__ import annotations

import math

import pytest
import torch

from rnncli.decoding.alignment import align, coverage, pharaoh, source_words_of

WEIGHTS = torch.tensor([[0.1, 0.5, 0.4], [0.6, 0.1, 0.3], [0.3, 0.3, 0.4]])


def test_a_word_goes_to_where_most_of_its_mass_is() -> None:
    # Source words: the first piece, the two others. Target words: two pieces, one piece.
    assert source_words_of(WEIGHTS, [0, 0, 1], [0, 1, 1]) == [1, 1]
    assert source_words_of(WEIGHTS, [0, 1, 2], [0, 1, 2]) == [1, 0, 2]
    assert source_words_of(WEIGHTS, [0, 1, 1], [0, 0, 1]) == [0, 0]
    assert source_words_of(WEIGHTS[:0], [], [0, 0, 1]) == []


def test_pharaoh() -> None:
    found = align(WEIGHTS, [0, 1, 2], [0, 1, 2])
    assert found == ((1, 0), (0, 1), (2, 2))
    assert pharaoh(found) == "1-0 0-1 2-2" and pharaoh(()) == ""


def test_coverage_is_equation_14() -> None:
    assert coverage(WEIGHTS) == pytest.approx(math.log(0.9))  # columns: 1.0, 0.9, 1.1
    assert coverage(torch.tensor([[1.0, 0.0]])) < -50
    assert math.isfinite(coverage(torch.tensor([[1.0, 0.0]])))

"""The filters against what their definitions say, one token at a time."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from rnncli.decoding.filters import (
    Filters,
    divide_by_temperature,
    forbid,
    keep_min_p,
    keep_top_k,
    keep_top_p,
)
from rnncli.errors import UsageError

LOGITS = st.lists(st.floats(-8, 8, width=32), min_size=1, max_size=12)


def probabilities(logits: list[float]) -> list[float]:
    top = max(logits)
    weights = [math.exp(x - top) for x in logits]
    return [w / sum(weights) for w in weights]


def kept(filtered: torch.Tensor) -> set[int]:
    return set((filtered > -math.inf).nonzero().flatten().tolist())


@settings(deadline=None)
@given(LOGITS, st.integers(1, 14))
def test_top_k_keeps_what_fewer_than_k_tokens_beat(logits: list[float], k: int) -> None:
    expected = {i for i, x in enumerate(logits) if sum(y > x for y in logits) < k}
    assert kept(keep_top_k(torch.tensor(logits), k)) == expected


@settings(deadline=None)
@given(LOGITS, st.floats(0.01, 0.99))
def test_top_p_keeps_the_fewest_whose_mass_reaches_p(logits: list[float], p: float) -> None:
    q = probabilities(logits)
    # A token stays when those more probable than it do not reach the mass yet.
    before = [sum(b for b, y in zip(q, logits, strict=True) if y > x) for x in logits]
    result = kept(keep_top_p(torch.tensor(logits, dtype=torch.float64), p))
    for i, mass in enumerate(before):
        if abs(mass - p) > 1e-9:
            assert (i in result) == (mass < p)


def test_top_p_looks_past_the_head_of_a_large_vocabulary() -> None:
    logits = torch.zeros(2, 1000, dtype=torch.float64)
    logits[:, 500:] = -1.0
    logits[1, 7] = 20.0  # this row is decided by its first token, the other by hundreds
    result = keep_top_p(logits, 0.9)
    assert kept(result[1]) == {7}
    assert kept(result[0]) == set(range(1000))  # equal tokens stay together
    assert kept(keep_top_p(logits, 0.5)[0]) == set(range(500))


@settings(deadline=None)
@given(LOGITS, st.floats(0.01, 1.0))
def test_min_p_compares_with_the_most_probable(logits: list[float], p: float) -> None:
    q = probabilities(logits)
    result = kept(keep_min_p(torch.tensor(logits, dtype=torch.float64), p))
    for i, share in enumerate(q):
        if abs(share - p * max(q)) > 1e-9:
            assert (i in result) == (share >= p * max(q))


@settings(deadline=None)
@given(LOGITS, st.floats(0.1, 10))
def test_temperature_raises_probabilities_to_its_inverse(logits: list[float], t: float) -> None:
    scaled = torch.softmax(divide_by_temperature(torch.tensor(logits, dtype=torch.float64), t), 0)
    powers = [x ** (1 / t) for x in probabilities(logits)]
    expected = torch.tensor([x / sum(powers) for x in powers], dtype=torch.float64)
    torch.testing.assert_close(scaled, expected, rtol=1e-6, atol=1e-9)


def test_forbidden_tokens_are_left_out_and_nothing_else_changes() -> None:
    logits = torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])
    result = forbid(logits, torch.tensor([2]))
    assert result[:, 2].tolist() == [-math.inf] * 2
    assert torch.equal(result[:, :2], logits[:, :2])


@settings(max_examples=50, deadline=None)
@example([[0.0, 0.0, 0.0, 1.0]], 1.0, 0, 1.0, 0.0)
@given(
    st.lists(LOGITS.filter(lambda x: len(x) > 3).map(lambda x: x[:4]), min_size=1, max_size=4),
    st.floats(0.2, 3),
    st.integers(0, 4),
    st.floats(0.1, 1.0),
    st.floats(0.0, 1.0),
)
def test_all_together_are_one_after_the_other_and_row_by_row(
    rows: list[list[float]], temperature: float, k: int, p: float, least: float
) -> None:
    logits = torch.tensor(rows, dtype=torch.float64)
    together = Filters(temperature, k, p, least, forbidden=(1,))(logits)
    for row, result in zip(logits, together, strict=True):
        expected = forbid(row, torch.tensor([1]))
        expected = divide_by_temperature(expected, temperature) if temperature != 1 else expected
        expected = keep_top_k(expected, k) if k else expected
        expected = keep_top_p(expected, p) if p < 1 else expected
        expected = keep_min_p(expected, least) if least else expected
        assert torch.equal(result, expected)
        assert 1 not in kept(result)
        assert kept(result)


def test_no_filter_is_the_identity() -> None:
    logits = torch.randn(3, 5)
    assert Filters()(logits) is logits


@pytest.mark.parametrize(
    "wrong",
    [{"temperature": 0.0}, {"temperature": math.nan}, {"temperature": math.inf}, {"top_k": -1},
     {"top_p": 0.0}, {"top_p": 1.1}, {"min_p": -0.1}, {"min_p": 2.0}, {"top_p": math.nan}],
)  # fmt: skip
def test_a_value_out_of_range_is_named(wrong: dict[str, float]) -> None:
    with pytest.raises(UsageError, match=next(iter(wrong))):
        Filters(**wrong)  # type: ignore[arg-type]


def test_a_tiny_temperature_is_greedy() -> None:
    logits = divide_by_temperature(torch.tensor([[1.0, 3.0, 2.0]]), 1e-40)
    assert torch.softmax(logits, 1).tolist() == [[0.0, 1.0, 0.0]]

"""Sampling from a chain whose probabilities are known."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

import pytest
import torch

from rnncli.decoding.filters import Filters
from rnncli.decoding.sampling import Limits, Piece, Sample, Uniform, draw, sample
from rnncli.errors import DataError, UsageError
from tests.decoding.chains import Chain, Letters


def run(
    chain: Chain, rows: int, limits: Limits, letters: Any = None, **options: Any
) -> tuple[list[Sample], list[Piece]]:
    """The samples by row, and all pieces."""
    tokens = torch.zeros(rows, dtype=torch.int64)
    decoders = [Letters(letters) if letters else Letters() for _ in range(rows)]
    options = {"filters": Filters(), **options}
    events = list(
        sample(chain, tokens, chain.start(None, rows), decoders=decoders, limits=limits, **options)
    )
    samples = sorted((e for e in events if isinstance(e, Sample)), key=lambda s: s.row)
    return samples, [e for e in events if isinstance(e, Piece)]


def test_frequencies_are_the_probabilities() -> None:
    logits = torch.tensor([0.0, 1.0, -math.inf, 2.0, -3.0])
    count = 20000
    numbers = torch.rand(count, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    drawn = Counter(draw(logits.expand(count, -1), numbers).flatten().tolist())
    for token, p in enumerate(torch.softmax(logits, 0).tolist()):
        assert abs(drawn[token] / count - p) <= 4 * math.sqrt(p * (1 - p) / count)


def test_the_ends_of_the_unit_interval_draw_possible_tokens() -> None:
    logits = torch.tensor([[-math.inf, 0.0, 0.0, -math.inf]])
    for number, token in ((0.0, 1), (1 - 2**-32, 2)):
        assert draw(logits, torch.tensor([[number]], dtype=torch.float64)).item() == token


def test_uniform_numbers_depend_on_seed_and_row_alone() -> None:
    few, many, other = Uniform(5, 2), Uniform(5, 4), Uniform(6, 4)
    for _ in range(300):  # more than are drawn ahead
        a, b, c = few.next([0, 1]), many.next([0, 1, 2, 3]), other.next([2, 3])
        assert torch.equal(a, b[:2])
        assert not set(b.flatten().tolist()) & set(c.flatten().tolist())
        assert len(set(b.flatten().tolist())) == 4
        assert float(b.min()) >= 0 and float(b.max()) < 1


def test_a_row_is_the_same_among_few_or_many_whatever_ends_before_it() -> None:
    limits = Limits(40, stop=("aa",))
    many, _ = run(Chain(4), 8, limits, seed=3)
    few, _ = run(Chain(4), 3, limits, seed=3)
    again, _ = run(Chain(4), 8, limits, seed=3)
    assert many[:3] == few and again == many
    assert len({s.text for s in many}) > 4
    assert len({len(s.tokens) for s in many}) > 2  # they did end at different times


def test_rows_that_have_ended_leave_the_batch() -> None:
    chain = Chain(4)
    samples, _ = run(chain, 8, Limits(40, stop=("aa",)), seed=3)
    expected = [sum(len(s.tokens) > t for s in samples) for t in range(len(chain.batches))]
    assert chain.batches == expected and expected[-1] < 8


def test_greedy_takes_the_most_probable_allowed_token() -> None:
    chain = Chain(5)
    (found,), _ = run(chain, 1, Limits(12), greedy=True, filters=Filters(forbidden=(2,)))
    before, last, expected = 0, 0, []
    for _ in range(12):
        order = chain.table[0, before, last].argsort(descending=True).tolist()
        before, last = last, next(t for t in order if t != 2)
        expected.append(last)
    assert list(found.tokens) == expected


def test_logprob_is_the_models_own_whatever_the_filters() -> None:
    chain = Chain(5)
    filters = Filters(temperature=0.5, top_k=3, top_p=0.9)
    samples, _ = run(chain, 4, Limits(15), filters=filters, seed=1)
    for s in samples:
        assert s.logprob == pytest.approx(chain.logprob(s.tokens), abs=1e-4)


def test_filters_hold_at_every_step() -> None:
    chain = Chain(5)
    samples, _ = run(chain, 6, Limits(30), filters=Filters(top_k=1), seed=1)
    (greedy,), _ = run(chain, 1, Limits(30), greedy=True)
    assert {s.tokens for s in samples} == {greedy.tokens}


def test_the_pieces_of_a_row_are_its_text() -> None:
    samples, pieces = run(Chain(4), 5, Limits(30, stop=("ab", "dcd")), seed=2)
    for s in samples:
        assert "".join(p.text for p in pieces if p.row == s.row) == s.text
        assert "ab" not in s.text and "dcd" not in s.text
        spelled = "".join("abcd"[t] for t in s.tokens)
        assert spelled.endswith(("ab", "dcd")) == (s.finish_reason == "stop")
        assert s.finish_reason == "stop" or s.text == spelled


def test_a_stop_that_straddles_tokens_is_never_shown() -> None:
    letters = ["xEN", "Dy", "z"]
    chain = Chain(3, scale=0.0)
    samples, pieces = run(chain, 20, Limits(50, stop=("END",)), letters, seed=4)
    stopped = [s for s in samples if s.finish_reason == "stop"]
    assert stopped
    for s in stopped:
        assert s.text.endswith("x") and "END" not in s.text
        assert "".join(["xEN", "Dy", "z"][t] for t in s.tokens) == s.text + "ENDy"
    assert not any("EN" in p.text and p.text.endswith("N") for p in pieces if p.row in
                   {s.row for s in stopped})  # fmt: skip


def test_what_is_held_back_comes_at_the_end() -> None:
    (found,), _ = run(Chain(1), 1, Limits(3, stop=("aaaaa",)))
    assert (found.text, found.finish_reason) == ("aaa", "length")


def test_an_end_token_is_no_text_and_is_not_drawn_too_early() -> None:
    limits = Limits(50, min_new_tokens=6, end_ids=(0,))
    samples, _ = run(Chain(3, scale=0.0), 20, limits, seed=1)
    for s in samples:
        assert s.finish_reason == "stop" and s.tokens[-1] == 0 and 0 not in s.tokens[:-1]
        assert len(s.tokens) > 6 and len(s.text) == len(s.tokens) - 1
    assert min(len(s.tokens) for s in samples) == 7


def test_stop_strings_before_the_least_length_pass() -> None:
    (found,), _ = run(Chain(1), 1, Limits(10, min_new_tokens=5, stop=("a",)))
    assert found.text == "aaaa" and len(found.tokens) == 5


def test_nothing_to_generate() -> None:
    samples, pieces = run(Chain(3), 2, Limits(0))
    assert [(s.row, s.text, s.finish_reason) for s in samples] == [
        (0, "", "length"),
        (1, "", "length"),
    ]
    assert not pieces


@pytest.mark.parametrize(
    ("wrong", "named"),
    [((-1, 0, ()), "max_new_tokens"), ((3, 4, ()), "min_new_tokens"), ((3, 0, ("",)), "stop")],
)
def test_limits_out_of_range_are_named(wrong: tuple[Any, ...], named: str) -> None:
    with pytest.raises(UsageError, match=named):
        Limits(*wrong)


def test_probabilities_that_are_not_numbers_are_an_error() -> None:
    chain = Chain(3)
    chain.table[:] = math.nan
    with pytest.raises(DataError, match="damaged"):
        run(chain, 2, Limits(5))

"""What a search must keep to, against the same said plainly."""

from __future__ import annotations

import math

import pytest
import torch

from rnncli.decoding.constraints import allow_where_stuck, forbid_repeats, read_prefix
from rnncli.decoding.filters import Filters
from rnncli.decoding.sampling import Limits, Sample, sample
from tests.decoding.chains import Chain, Letters


@pytest.mark.parametrize("n", [1, 2, 3, 4])
@pytest.mark.parametrize("length", [0, 1, 3, 12])
def test_a_token_is_left_out_when_it_repeats_an_ngram(n: int, length: int) -> None:
    V, rows = 3, 6
    history = torch.randint(V, (rows, length), generator=torch.Generator().manual_seed(n))
    logits = torch.zeros(rows, V)
    found = forbid_repeats(logits, history, n)
    for row in range(rows):
        tokens = history[row].tolist()
        grams = {tuple(tokens[k : k + n]) for k in range(length - n + 1)}
        for token in range(V):
            repeats = tuple([*tokens, token][-n:]) in grams
            assert (float(found[row, token]) == -math.inf) == repeats
    assert not logits.any(), "the logits given stay as they are"


def test_rows_without_a_token_get_the_end_back() -> None:
    before = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    left = torch.tensor([[-math.inf, -math.inf], [-math.inf, 4.0]])
    found = allow_where_stuck(left, torch.tensor([0]), before)
    assert found.tolist() == [[1.0, -math.inf], [-math.inf, 4.0]]


def test_a_prefix_is_gone_along() -> None:
    chain = Chain(4, sources=2, seed=1)
    numbers, prefix = torch.arange(2), torch.tensor([[1, 3, 2], [0, 2, 2]])
    tokens, state, found = read_prefix(
        chain, torch.zeros(2, dtype=torch.int64), chain.start(numbers, 2), prefix
    )
    assert tokens.tolist() == [2, 2] and state.before.tolist() == [3, 2]  # type: ignore[attr-defined]
    for source in range(2):
        total = chain.logprob(prefix[source].tolist(), source)
        assert float(found[source].sum()) == pytest.approx(total, abs=1e-5)


@pytest.mark.parametrize("n", [1, 2, 3])
def test_samples_repeat_no_ngram(n: int) -> None:
    chain, rows = Chain(5, scale=0.5), 8
    history = torch.tensor([[1, 2, 1]]).expand(rows, -1)
    limits = Limits(30, min_new_tokens=20, end_ids=(0,))
    events = sample(
        chain, torch.ones(rows, dtype=torch.int64), chain.start(None, rows),
        decoders=[Letters() for _ in range(rows)], limits=limits, filters=Filters(), seed=1,
        no_repeat_ngram=n, history=history,
    )  # fmt: skip
    samples = [event for event in events if isinstance(event, Sample)]
    assert len(samples) == rows
    for one in samples:
        tokens = [1, 2, 1, *(t for t in one.tokens if t)]
        grams = [tuple(tokens[k : k + n]) for k in range(len(tokens) - n + 1)]
        beyond = grams[max(0, 3 - n + 1) :]
        assert len(set(beyond)) == len(beyond)
        assert not set(beyond) & set(grams[: max(0, 3 - n + 1)])


def test_random_numbers_go_by_name() -> None:
    chain = Chain(5, scale=0.5)

    def run(*names: object) -> list[tuple[int, ...]]:
        first = torch.zeros(len(names), dtype=torch.int64)
        events = sample(
            chain, first, chain.start(None, len(names)), decoders=[Letters() for _ in names],
            limits=Limits(12), filters=Filters(), seed=3, names=names,
        )  # fmt: skip
        return [event.tokens for event in events if isinstance(event, Sample)]

    a, b, c = run("a", "b", "c")
    assert run("c", "a") == [c, a] and len({a, b, c}) == 3

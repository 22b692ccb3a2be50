"""Beam search against the enumeration of everything."""

from __future__ import annotations

import itertools

import pytest
import torch

from rnncli.decoding.beam import BeamOptions, Hypothesis, beam_search
from rnncli.decoding.ensemble import Ensemble
from rnncli.decoding.filters import Filters
from rnncli.decoding.sampling import Limits, sample
from rnncli.errors import UsageError
from tests.decoding.chains import Chain, Letters


def search(chain: Chain, options: BeamOptions, sources: int = 1) -> list[list[Hypothesis]]:
    numbers = torch.arange(sources)
    return beam_search(chain, torch.zeros_like(numbers), chain.start(numbers, sources), options)


def everything(
    chain: Chain, options: BeamOptions, vocab_size: int, source: int = 0
) -> list[Hypothesis]:
    """All that a search may return, best first."""
    found = []
    words = [t for t in range(vocab_size) if t != options.end_id and t not in options.forbidden]
    for length in range(options.max_new_tokens + 1):
        for tokens in itertools.product(words, repeat=length):
            if length == options.max_new_tokens:
                logprob = chain.logprob(tokens, source)
                found.append(Hypothesis(tokens, logprob, options.score(logprob, length), False))
            elif options.end_id is not None and length >= options.min_new_tokens:
                logprob = chain.logprob((*tokens, options.end_id), source)
                score = options.score(logprob, length + 1)
                found.append(Hypothesis(tokens, logprob, score, True))
    return sorted(found, key=lambda h: -h.score)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(
    "more",
    [{}, {"end_id": 1}, {"end_id": 1, "length_penalty": 1.0}, {"end_id": 0, "min_new_tokens": 2},
     {"end_id": 2, "forbidden": (1,), "length_penalty": 3.0}],
)  # fmt: skip
def test_a_beam_as_wide_as_the_space_finds_the_best(seed: int, more: dict[str, object]) -> None:
    options = BeamOptions(64, 4, **more)  # type: ignore[arg-type]
    chain = Chain(3, sources=2, seed=seed)
    for source, found in enumerate(search(chain, options, 2)):
        expected = everything(chain, options, 3, source)
        n = 5
        assert [h.tokens for h in found[:n]] == [h.tokens for h in expected[:n]]
        assert [h.finished for h in found[:n]] == [h.finished for h in expected[:n]]
        for mine, true in zip(found[:n], expected[:n], strict=True):
            assert mine.logprob == pytest.approx(true.logprob, abs=1e-4)
            assert mine.score == pytest.approx(true.score, abs=1e-4)


@pytest.mark.parametrize("length_penalty", [0.0, 1.0, 5.0])
@pytest.mark.parametrize("seed", range(6))
def test_a_beam_of_one_is_greedy(seed: int, length_penalty: float) -> None:
    chain = Chain(5, seed=seed, scale=1.0)
    options = BeamOptions(1, 20, end_id=3, length_penalty=length_penalty)
    (found,) = search(chain, options)[0]
    first = torch.zeros(1, dtype=torch.int64)
    *_, greedy = sample(
        chain, first, chain.start(None, 1), decoders=[Letters()], filters=Filters(), greedy=True,
        limits=Limits(20, end_ids=(3,)),
    )  # fmt: skip
    ended = greedy.finish_reason == "stop"
    assert (found.tokens, found.finished) == (greedy.tokens[: -1 if ended else None], ended)
    assert found.logprob == pytest.approx(greedy.logprob, abs=1e-4)


def test_a_wider_beam_finds_what_a_narrow_one_misses() -> None:
    chain = Chain(6, sources=10, seed=1)
    narrow, wide = (search(chain, BeamOptions(k, 6), 10) for k in (1, 200))
    gains = [w[0].logprob - n[0].logprob for w, n in zip(wide, narrow, strict=True)]
    assert min(gains) > -1e-4 and max(gains) > 0.1


@pytest.mark.parametrize("beam_size", [1, 2, 5])
def test_sources_do_not_disturb_each_other(beam_size: int) -> None:
    """Sources end at different times; together they find what each finds alone."""
    options = BeamOptions(beam_size, 12, end_id=1, length_penalty=0.6)
    chain = Chain(4, sources=5, seed=2)
    together = search(chain, options, 5)
    assert chain.batches[0] == 5 * beam_size and chain.batches[-1] < 5 * beam_size
    for source, found in enumerate(together):
        number = torch.tensor([source])
        start = torch.zeros_like(number)
        (alone,) = beam_search(chain, start, chain.start(number, 1), options)
        assert [h.tokens for h in alone] == [h.tokens for h in found]
        for h in found:
            ending = (1,) if h.finished else ()
            expected = chain.logprob((*h.tokens, *ending), source)
            assert h.logprob == pytest.approx(expected, abs=1e-4)


def test_hypotheses_are_distinct_and_in_order() -> None:
    (found,) = search(Chain(3, seed=5), BeamOptions(6, 7, end_id=2))
    assert len({(h.tokens, h.finished) for h in found}) == len(found) == 6
    assert [h.score for h in found] == sorted((h.score for h in found), reverse=True)


def test_a_space_smaller_than_the_beam() -> None:
    (found,) = search(Chain(2), BeamOptions(10, 2, end_id=0))
    assert {h.tokens for h in found} == {(), (1,), (1, 1)}
    assert search(Chain(2), BeamOptions(3, 0))[0] == [Hypothesis((), 0.0, 0.0, False)]


def test_length_penalty_prefers_longer_hypotheses() -> None:
    def mean_length(alpha: float) -> float:
        options = BeamOptions(4, 10, end_id=1, length_penalty=alpha)
        found = search(Chain(4, sources=8, seed=3, scale=1.0), options, 8)
        return sum(len(hypotheses[0].tokens) for hypotheses in found) / 8

    assert mean_length(0.0) < mean_length(2.0)


def test_an_ensemble_is_searched_as_one_model() -> None:
    chains = Chain(3, seed=1), Chain(3, seed=2)
    both = Ensemble(chains)
    mean = Chain(3)
    mean.table = torch.stack([torch.log_softmax(c.table, -1) for c in chains]).mean(0)
    first = torch.zeros(1, dtype=torch.int64)
    options = BeamOptions(4, 5, end_id=1)
    (found,) = beam_search(both, first, both.start(None, 1), options)
    (expected,) = search(mean, options)
    assert [h.tokens for h in found] == [h.tokens for h in expected]
    assert found[0].logprob == pytest.approx(expected[0].logprob, abs=1e-4)


@pytest.mark.parametrize(
    "wrong", [{"beam_size": 0}, {"max_new_tokens": -1}, {"length_penalty": -1.0}]
)
def test_an_option_out_of_range_is_named(wrong: dict[str, int]) -> None:
    with pytest.raises(UsageError, match=next(iter(wrong))):
        BeamOptions(**{"beam_size": 2, "max_new_tokens": 3, **wrong})

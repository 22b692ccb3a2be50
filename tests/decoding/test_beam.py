"""Beam search against the enumeration of everything."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
import torch

from rnncli.decoding import beam
from rnncli.decoding.beam import BeamOptions, Hypothesis, beam_search
from rnncli.decoding.ensemble import Ensemble
from rnncli.decoding.filters import Filters
from rnncli.decoding.sampling import Limits, sample
from rnncli.errors import DataError, UsageError
from tests.decoding.chains import Chain, Letters


def search(chain: Chain, options: BeamOptions, sources: int = 1) -> list[list[Hypothesis]]:
    numbers = torch.arange(sources)
    return beam_search(chain, torch.zeros_like(numbers), chain.start(numbers, sources), options)


def all_that_ended(chain: Chain, options: BeamOptions) -> list[list[Hypothesis]]:
    return beam.search(chain, torch.zeros(1, dtype=torch.int64), chain.start(None, 1), options)


def everything(
    chain: Chain, options: BeamOptions, vocab_size: int, source: int = 0
) -> list[Hypothesis]:
    """All that a search may return, best first."""
    found = []
    words = [t for t in range(vocab_size) if t != options.end_id and t not in options.forbidden]
    n = options.no_repeat_ngram
    for length in range(options.max_new_tokens + 1):
        for tokens in itertools.product(words, repeat=length):
            grams = [tokens[k : k + n] for k in range(length - n + 1)]
            if n and len(set(grams)) < len(grams):
                continue
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
     {"end_id": 2, "forbidden": (1,), "length_penalty": 3.0},
     {"end_id": 1, "length_penalty": 1.0, "length_normalization": "avg"},
     {"end_id": 1, "length_penalty": 0.5, "length_normalization": "avg", "min_new_tokens": 1},
     {"end_id": 1, "no_repeat_ngram": 1}, {"end_id": 0, "no_repeat_ngram": 2},
     {"end_id": 2, "no_repeat_ngram": 2, "min_new_tokens": 3, "length_penalty": 1.0},
     {"no_repeat_ngram": 2, "forbidden": (0,)}],
)  # fmt: skip
def test_a_beam_as_wide_as_the_space_finds_the_best(seed: int, more: dict[str, object]) -> None:
    options = BeamOptions(64, 4, **more)  # type: ignore[arg-type]
    chain = Chain(3, sources=2, seed=seed)
    for source, found in enumerate(search(chain, options, 2)):
        expected = everything(chain, options, 3, source)
        n = min(5, len(expected))
        for mine, true in zip(found[:n], expected[:n], strict=True):
            assert mine.score == pytest.approx(true.score, abs=1e-4)
            same = next(h for h in expected if h.tokens == mine.tokens)
            assert mine.finished == same.finished  # another one may be worth the same
            assert mine.logprob == pytest.approx(same.logprob, abs=1e-4)
            assert mine.score == pytest.approx(same.score, abs=1e-4)


@pytest.mark.parametrize(
    "more",
    [{}, {"length_penalty": 1.0}, {"length_penalty": 5.0}, {"length_normalization": "avg"},
     {"length_penalty": 2.0, "min_new_tokens": 4}, {"no_repeat_ngram": 2}],
)  # fmt: skip
@pytest.mark.parametrize("seed", range(6))
def test_a_beam_of_one_is_greedy(seed: int, more: dict[str, Any]) -> None:
    chain = Chain(5, seed=seed, scale=1.0)
    (found,) = search(chain, BeamOptions(1, 20, end_id=3, **more))[0]
    first = torch.zeros(1, dtype=torch.int64)
    *_, greedy = sample(
        chain, first, chain.start(None, 1), decoders=[Letters()], filters=Filters(), greedy=True,
        limits=Limits(20, more.get("min_new_tokens", 0), end_ids=(3,)),
        no_repeat_ngram=more.get("no_repeat_ngram", 0),
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
    assert max(chain.batches) <= 5 * beam_size and chain.batches[-1] < max(chain.batches)
    for source, found in enumerate(together):
        number = torch.tensor([source])
        start = torch.zeros_like(number)
        (alone,) = beam_search(chain, start, chain.start(number, 1), options)
        assert [h.tokens for h in alone] == [h.tokens for h in found]
        for h in found:
            ending = (1,) if h.finished else ()
            expected = chain.logprob((*h.tokens, *ending), source)
            assert h.logprob == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("seed", range(4))
def test_patience_ends_a_search_after_so_many_ends(seed: int) -> None:
    """What has ended by then is what a patient search has of the same lengths."""
    steps, before = [], set()
    for patience in (0.25, 1.0, 2.0, math.inf):
        chain = Chain(6, seed=seed, scale=1.0)
        options = BeamOptions(4, 12, end_id=1, length_penalty=1.0, patience=patience)
        (found,) = all_that_ended(chain, options)
        steps.append(len(chain.batches))
        assert before <= {h.tokens for h in found}
        before = {h.tokens for h in found}
        if steps[-1] < options.max_new_tokens:
            assert len(found) < 4 * patience + 4
    assert steps == sorted(steps) and steps[0] < steps[-1]


def test_hypotheses_are_distinct_and_in_order() -> None:
    (found,) = search(Chain(3, seed=5), BeamOptions(6, 7, end_id=2))
    assert len({(h.tokens, h.finished) for h in found}) == len(found) == 6
    assert [h.score for h in found] == sorted((h.score for h in found), reverse=True)


def test_a_space_smaller_than_the_beam() -> None:
    (found,) = search(Chain(2), BeamOptions(10, 2, end_id=0))
    assert {h.tokens for h in found} == {(), (1,), (1, 1)}
    assert search(Chain(2), BeamOptions(3, 0))[0] == [Hypothesis((), 0.0, 0.0, False)]


def test_scores_are_those_of_the_papers() -> None:
    wu = BeamOptions(1, 1, length_penalty=0.7)
    assert wu.score(-6.0, 13) == pytest.approx(-6.0 / 3.0**0.7)
    average = BeamOptions(1, 1, length_penalty=1.0, length_normalization="avg")
    assert average.score(-6.0, 12) == pytest.approx(-0.5)
    with pytest.raises(UsageError, match="length_normalization: unknown value 'mean'"):
        BeamOptions(1, 1, length_normalization="mean")


@pytest.mark.parametrize("beam_size", [1, 3])
def test_each_token_has_its_logprob(beam_size: int) -> None:
    chain = Chain(4, sources=3, seed=7)
    for source, found in enumerate(search(chain, BeamOptions(beam_size, 6, end_id=2), 3)):
        for h in found:
            tokens = (*h.tokens, 2) if h.finished else h.tokens
            sums = [chain.logprob(tokens[:k], source) for k in range(len(tokens) + 1)]
            expected = [b - a for a, b in itertools.pairwise(sums)]
            assert h.logprobs == pytest.approx(expected, abs=1e-5)
            assert sum(h.logprobs) == pytest.approx(h.logprob)


@pytest.mark.parametrize("beam_size", [1, 4, 64])
def test_a_prefix_begins_every_hypothesis(beam_size: int) -> None:
    """What follows is what is found after it, and its log-probability counts."""
    chain = Chain(3, sources=2, seed=4)
    numbers, prefix = torch.arange(2), torch.tensor([[2, 0], [0, 2]])
    options = BeamOptions(beam_size, 3, end_id=1, length_penalty=1.0, no_repeat_ngram=3)
    first = torch.zeros_like(numbers)
    both = beam_search(chain, first, chain.start(numbers, 2), options, prefix)
    for source, found in enumerate(both):
        begin = tuple(prefix[source].tolist())
        assert found and all(h.tokens[:2] == begin for h in found)
        for h in found:
            tokens = (*h.tokens, 1) if h.finished else h.tokens
            logprob = chain.logprob(tokens, source)
            assert h.logprob == pytest.approx(logprob, abs=1e-4)
            assert h.score == pytest.approx(logprob / ((5 + len(tokens)) / 6), abs=1e-4)
        if beam_size == 64:
            longer = BeamOptions(64, 5, end_id=1, length_penalty=1.0, no_repeat_ngram=3)
            expected = [
                h for h in everything(chain, longer, 3, source)
                if h.tokens[:2] == begin and (h.finished or len(h.tokens) == 5)
            ]  # fmt: skip
            assert [h.tokens for h in found[:4]] == [h.tokens for h in expected[:4]]


def test_what_can_only_end_ends() -> None:
    """All words used up, the end comes however many tokens there should be."""
    options = BeamOptions(5, 9, min_new_tokens=8, end_id=0, no_repeat_ngram=1)
    (found,) = search(Chain(3), options)
    assert {h.tokens for h in found} == {(1, 2), (2, 1)}
    assert all(h.finished for h in found)


def test_probabilities_that_are_none_are_an_error() -> None:
    chain = Chain(3)
    chain.table[:] = float("nan")
    for beam_size in (1, 2):
        for end_id in (0, 1):
            with pytest.raises(DataError, match="weights are damaged"):
                search(chain, BeamOptions(beam_size, 4, end_id=end_id))


def test_length_penalty_prefers_longer_hypotheses() -> None:
    def mean_length(alpha: float) -> float:
        options = BeamOptions(4, 10, end_id=1, length_penalty=alpha)
        found = search(Chain(4, sources=8, seed=3, scale=1.0), options, 8)
        return sum(len(hypotheses[0].tokens) for hypotheses in found) / 8

    assert mean_length(0.0) < mean_length(2.0)


@pytest.mark.parametrize("mixed", [False, True])
def test_an_ensemble_is_searched_as_one_model(mixed: bool) -> None:
    chains = Chain(3, seed=1), Chain(3, seed=2)
    both = Ensemble(chains, mixed=mixed)
    mean = Chain(3)
    log_p = torch.stack([torch.log_softmax(chain.table, -1) for chain in chains])
    mean.table = log_p.exp().mean(0).log() if mixed else log_p.mean(0)
    first = torch.zeros(1, dtype=torch.int64)
    options = BeamOptions(4, 5, end_id=1)
    (found,) = beam_search(both, first, both.start(None, 1), options)
    (expected,) = search(mean, options)
    assert [h.tokens for h in found] == [h.tokens for h in expected]
    assert found[0].logprob == pytest.approx(expected[0].logprob, abs=1e-4)


@pytest.mark.parametrize(
    "wrong",
    [{"beam_size": 0}, {"max_new_tokens": -1}, {"length_penalty": -1.0}, {"patience": 0.0}],
)
def test_an_option_out_of_range_is_named(wrong: dict[str, int]) -> None:
    with pytest.raises(UsageError, match=next(iter(wrong))):
        BeamOptions(**{"beam_size": 2, "max_new_tokens": 3, **wrong})

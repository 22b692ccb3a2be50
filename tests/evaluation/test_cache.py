"""The continuous cache against its definition, one token at a time."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rnncli.errors import UsageError
from rnncli.evaluation.cache import CacheConfig, add_cache
from rnncli.evaluation.language_model import Totals, evaluating, predict
from rnncli.evaluation.pieces import Array, column_pieces
from rnncli.models.language_model import LanguageModel
from tests.evaluation.truth import DOUBLE, TorchTwin, random_ids, small_model

END = 3


def cached(
    model: LanguageModel, ids: Array, config: CacheConfig, columns: int = 1, piece: int = 256
) -> tuple[float, float]:
    with evaluating(model):
        run = predict(model, column_pieces(ids, END, columns, piece), DOUBLE)
        return Totals(1).read(add_cache(run, config))


def by_definition(
    model: LanguageModel, before: int, ids: Sequence[int], config: CacheConfig
) -> list[float]:
    """Grave et al. 2017, equations 2 and 3, word for word."""
    with torch.no_grad():
        log_p, h, _ = TorchTwin(model)(torch.tensor([before, *ids[:-1]]))
    nats = []
    for t, word in enumerate(ids):
        p = math.exp(log_p[t, word])
        pairs = [(h[i], ids[i]) for i in range(max(0, t - config.window), t)]
        if pairs:
            mass = [math.exp(config.theta * float(h[t] @ h_i)) for h_i, _ in pairs]
            same = sum(m for m, (_, x) in zip(mass, pairs, strict=True) if x == word)
            p = (1 - config.weight) * p + config.weight * same / sum(mass)
        nats.append(-math.log(p))
    return nats


@settings(max_examples=25, deadline=None)
@given(
    count=st.integers(1, 40),
    window=st.integers(1, 45),
    piece=st.integers(1, 20),
    columns=st.integers(1, 4),
)
def test_the_cache_is_what_the_paper_says(count: int, window: int, piece: int, columns: int):
    model, ids = small_model(hidden_size=6), random_ids(count)
    config = CacheConfig(window, theta=1.7, weight=0.3)
    columns = min(columns, count)
    truth, place = np.empty(count), 0
    for part in np.array_split(ids.astype(np.int64), columns):
        before = int(ids[place - 1]) if place else END
        truth[place : place + len(part)] = by_definition(model, before, part.tolist(), config)
        place += len(part)
    nats, oov_nats = cached(model, ids, config, columns, piece)
    assert nats == pytest.approx(truth.sum(), rel=1e-10)
    assert oov_nats == pytest.approx(truth[ids == 1].sum(), rel=1e-10)


def test_without_weight_it_is_the_model():
    model, ids = small_model(), random_ids(50)
    with evaluating(model):
        static = Totals(1).read(predict(model, column_pieces(ids, END, 1, 9), DOUBLE))
    assert cached(model, ids, CacheConfig(10, weight=0.0)) == pytest.approx(static, rel=1e-14)


def test_a_text_that_repeats_itself_gets_cheaper():
    model, ids = small_model(50), np.tile(random_ids(25, 50), 8)
    nothing = cached(model, ids, CacheConfig(100, weight=0.0))[0]
    assert cached(model, ids, CacheConfig(100, theta=5.0, weight=0.3))[0] < 0.95 * nothing
    assert cached(model, ids, CacheConfig(3, theta=1.0, weight=0.3))[0] > 1.05 * nothing


@pytest.mark.parametrize(
    ("values", "option"),
    [
        ({"window": 0}, "--cache-window 0"),
        ({"window": 5, "theta": -1.0}, "--cache-theta -1"),
        ({"window": 5, "theta": math.nan}, "--cache-theta nan"),
        ({"window": 5, "weight": 1.0}, "--cache-lambda 1"),
    ],
)
def test_values_out_of_range_name_their_option(values: dict[str, float], option: str):
    with pytest.raises(UsageError, match=option):
        CacheConfig(**values)  # type: ignore[arg-type]

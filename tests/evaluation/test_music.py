"""Figures of music against plain loops over frames and keys."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from rnncli.errors import DataError
from rnncli.evaluation.cache import CacheConfig
from rnncli.evaluation.music import add_cache, measure, measure_both, predict
from rnncli.models.music import MusicModel
from rnncli.nn.stack import Run
from rnncli.sections import ModelConfig
from rnncli.text.music import KEYS, Frames

K = KEYS
RUN = Run("reference", torch.float64)


@pytest.fixture(scope="module")
def model() -> MusicModel:
    torch.manual_seed(0)
    config = ModelConfig(layers=1, hidden_size=5, input="one-hot", init="uniform", init_scale=0.9)
    return MusicModel(config, K).double()


@pytest.fixture(scope="module")
def pieces() -> list[Frames]:
    rng = np.random.default_rng(4)
    return [rng.random((length, K)) < 0.3 for length in (5, 0, 2, 1, 9)]


def by_hand(model: MusicModel, piece: Frames) -> tuple[list[float], int, int, int]:
    """nats of each frame, true and false positives, false negatives; one frame at a time."""
    state, before = model.start(None, 1), np.zeros(K)
    nats, counts = [], [0, 0, 0]
    for frame in piece:
        logits, state = model.step(torch.from_numpy(before[None].astype(float)), state)
        p = [1 / (1 + math.exp(-z)) for z in logits[0].tolist()]
        nats.append(-sum(math.log(q if y else 1 - q) for q, y in zip(p, frame, strict=True)))
        for q, y in zip(p, frame, strict=True):
            counts[0] += q > 0.5 and bool(y)
            counts[1] += q > 0.5 and not y
            counts[2] += q < 0.5 and bool(y)
        before = frame
    return nats, *counts


def test_every_figure(model: MusicModel, pieces: list[Frames]) -> None:
    scores = measure(model, pieces, RUN)
    each = [by_hand(model, piece) for piece in pieces if len(piece)]
    nats = [n for n, *_ in each]
    assert (scores.frames, scores.pieces) == (17, 4)
    assert scores.nats == pytest.approx(sum(map(sum, nats)), rel=1e-12)
    assert scores.nats_per_frame == pytest.approx(sum(map(sum, nats)) / 17, rel=1e-12)
    means = [sum(n) / len(n) for n in nats]
    assert scores.nats_per_frame_by_piece == pytest.approx(sum(means) / 4, rel=1e-12)
    rest = sum(sum(n[1:]) for n in nats)
    assert scores.nats_per_frame_without_first == pytest.approx(rest / 13, rel=1e-12)
    hits, false_alarms, misses = (sum(one[k] for one in each) for k in (1, 2, 3))  # type: ignore[misc]
    assert (scores.hits, scores.false_alarms, scores.misses) == (hits, false_alarms, misses)
    assert min(hits, false_alarms, misses) > 0
    assert scores.accuracy == pytest.approx(hits / (hits + false_alarms + misses))


def test_neither_batches_nor_parts_change_it(model: MusicModel, pieces: list[Frames]) -> None:
    def total(order: list[Frames], at_once: int, steps: int) -> float:
        parts = predict(model, order, RUN, pieces_at_once=at_once, steps_at_once=steps)
        return float(sum(part.nats.detach().sum() for part in parts))

    whole = measure(model, pieces, RUN).nats
    for at_once, steps in ((1, 256), (2, 2), (9, 1), (9, 4)):
        assert total(pieces, at_once, steps) == pytest.approx(whole, rel=1e-12)
        assert total(pieces[::-1], at_once, steps) == pytest.approx(whole, rel=1e-12)


def with_cache_by_hand(model: MusicModel, piece: Frames, config: CacheConfig) -> list[float]:
    """Grave et al. 2017, equations 2 and 3, with frames for words."""
    state, before = model.start(None, 1), torch.zeros(1, K, dtype=torch.float64)
    vectors: list[torch.Tensor] = []
    nats = []
    for t, frame in enumerate(piece):
        h, state = model.stack.step(before, state)
        before = torch.from_numpy(frame[None].astype(float))
        z = model.output.read(h, None, torch.float64)
        p = math.exp(-float(torch.nn.functional.softplus(torch.where(before > 0, -z, z)).sum()))
        kept = range(max(0, t - config.window), t)
        if kept:
            mass = {i: math.exp(config.theta * float(h[0] @ vectors[i])) for i in kept}
            same = sum(m for i, m in mass.items() if (piece[i] == frame).all())
            p = (1 - config.weight) * p + config.weight * same / sum(mass.values())
        vectors.append(h[0])
        nats.append(-math.log(p))
    return nats


@pytest.mark.parametrize("window", [1, 3, 50])
def test_a_cache_is_what_the_paper_says(model: MusicModel, window: int) -> None:
    rng = np.random.default_rng(5)
    frames = rng.random((3, K)) < 0.3
    pieces = [frames[rng.integers(0, 3, length)] for length in (6, 0, 1, 11)]
    config = CacheConfig(window, theta=1.5, weight=0.3)
    with torch.no_grad():
        each = [with_cache_by_hand(model, piece, config) for piece in pieces]
    static, cached = measure_both(model, pieces, RUN, config)
    assert cached is not None and static == measure(model, pieces, RUN)
    assert cached.nats == pytest.approx(sum(map(sum, each)), rel=1e-12)
    first = sum(nats[0] for nats in each if nats)
    assert cached.first_nats == pytest.approx(first, rel=1e-12)
    assert static.first_nats == pytest.approx(first, rel=1e-12)
    for at_once, steps in ((1, 256), (2, 2), (3, 1), (4, 4)):
        parts = predict(model, pieces, RUN, pieces_at_once=at_once, steps_at_once=steps)
        with torch.no_grad():
            total = sum(float(part.nats.sum()) for part in add_cache(parts, config))
        assert total == pytest.approx(cached.nats, rel=1e-12)


def test_what_is_printed_says_what_was_counted(model: MusicModel, pieces: list[Frames]) -> None:
    scores = measure(model, pieces, RUN)
    values = scores.to_dict()
    assert list(values) == [
        "nats", "frames", "pieces", "nats_per_frame", "nats_per_frame_by_piece",
        "nats_per_frame_without_first", "accuracy", "signature",
    ]  # fmt: skip
    assert "first-frame:counted|average:frames" in values["signature"]
    assert values["signature"].endswith("products:float64")
    signatures = {score.name: score.signature for score in scores.scores()}
    assert "average:pieces" in signatures["nats_per_frame_by_piece"]
    assert "first-frame:left-out" in signatures["nats_per_frame_without_first"]


def test_no_frames(model: MusicModel) -> None:
    with pytest.raises(DataError, match="no music"):
        measure(model, [np.zeros((0, K), np.bool_)], RUN)
    silent = measure(model, [np.zeros((1, K), np.bool_)], RUN)
    assert math.isnan(silent.nats_per_frame_without_first)


def test_the_mode_of_the_model_is_left_as_it_was(model: MusicModel, pieces: list[Frames]) -> None:
    model.train()
    measure(model, pieces, RUN)
    assert model.training
    model.eval()

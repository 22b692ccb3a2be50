"""Sampled music: what a seed fixes, what was written and how probable it was."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import Tensor

from rnncli.decoding.frames import FrameLimits, sample_frames
from rnncli.errors import DataError, UsageError
from rnncli.models.music import MusicModel
from rnncli.nn.keys import NadeOutput, frame_nats
from rnncli.nn.stack import Run
from rnncli.sections import ModelConfig

K = 5


@pytest.fixture(scope="module", params=["softmax", "nade"])
def model(request: pytest.FixtureRequest) -> MusicModel:
    torch.manual_seed(3)
    config = ModelConfig(
        layers=1, hidden_size=8, input="one-hot", init="uniform", init_scale=1.0,
        output=request.param, nade_size=4,
    )  # fmt: skip
    model = MusicModel(config, K).double()
    if isinstance(model.output, NadeOutput):
        with torch.no_grad():
            model.output.W.mul_(20)
            model.output.V.mul_(20)
    return model


OPENING = torch.tensor([[1, 0, 0, 1, 0], [0, 1, 0, 0, 0]], dtype=torch.float64)


def pieces(model: MusicModel, rows: int, seed: int = 1, **limits: float) -> list[Tensor]:
    found = sample_frames(
        model,
        OPENING,
        rows=rows,
        limits=FrameLimits(30, **limits),
        seed=seed,  # type: ignore[arg-type]
    )
    assert [piece.row for piece in found] == list(range(rows))
    return [piece.frames for piece in found]


def test_the_seed_and_the_number_of_a_piece_fix_it(model: MusicModel) -> None:
    several, again, other = pieces(model, 4), pieces(model, 4), pieces(model, 4, seed=2)
    assert all(map(torch.equal, several, again))
    assert not any(map(torch.equal, several, other))
    assert torch.equal(pieces(model, 1)[0], several[0])
    assert len({tuple(piece.flatten().tolist()) for piece in several}) == 4


def test_the_log_probability_is_the_model_s(model: MusicModel) -> None:
    (piece,) = sample_frames(model, OPENING, rows=1, limits=FrameLimits(9, 0.7), seed=5)
    line = torch.cat([torch.zeros(1, K), OPENING, piece.frames]).double().unsqueeze(1)
    logits, _ = model.logits(
        line[:-1], line[1:], model.start(None, 1), Run("reference", torch.float64)
    )
    nats = frame_nats(logits, line[1:]).detach()
    assert piece.logprob == pytest.approx(-float(nats[len(OPENING) :].sum()), rel=1e-9)


def test_greedy_and_temperature(model: MusicModel) -> None:
    greedy = pieces(model, 2, greedy=True)
    assert torch.equal(greedy[0], greedy[1])
    assert torch.equal(greedy[0], pieces(model, 1, temperature=1e-6)[0])
    wild = torch.stack(pieces(model, 40, temperature=1e6)).double().mean()
    assert float(wild) == pytest.approx(0.5, abs=0.03)


def test_frames_come_as_often_as_the_model_says(model: MusicModel) -> None:
    opening = torch.empty(0, K, dtype=torch.float64)
    found = sample_frames(model, opening, rows=800, limits=FrameLimits(1), seed=1)
    drawn = torch.stack([piece.frames[0] for piece in found]).double()
    every = torch.tensor(list(itertools.product([0.0, 1.0], repeat=K)), dtype=torch.float64)
    silence = torch.zeros(1, len(every), K, dtype=torch.float64)
    start = model.start(None, len(every))
    logits, _ = model.logits(silence, every.unsqueeze(0), start, Run("reference", torch.float64))
    p = torch.exp(-frame_nats(logits[0], every)).detach()
    assert float(p.sum()) == pytest.approx(1.0)
    often = torch.stack([(drawn == frame).all(1).double().mean() for frame in every])
    torch.testing.assert_close(often, p, atol=0.04, rtol=0)
    torch.testing.assert_close(drawn.mean(0), p @ every, atol=0.06, rtol=0)


def test_no_frames_and_values_out_of_range(model: MusicModel) -> None:
    (piece,) = sample_frames(model, OPENING, rows=1, limits=FrameLimits(0), seed=1)
    assert piece.frames.shape == (0, K) and piece.logprob == 0.0
    for values, name in (((-1,), "max_new_tokens"), ((1, 0.0), "temperature")):
        with pytest.raises(UsageError, match=name):
            FrameLimits(*values)


@pytest.mark.parametrize(("output", "name"), [("softmax", "b"), ("nade", "b"), ("nade", "V")])
def test_damaged_weights(output: str, name: str) -> None:
    config = ModelConfig(layers=1, hidden_size=4, input="one-hot", output=output)
    broken = MusicModel(config, K).double()
    with torch.no_grad():
        getattr(broken.output, name).fill_(math.nan)
    with pytest.raises(DataError, match="not numbers"):
        sample_frames(broken, OPENING, rows=1, limits=FrameLimits(2), seed=1)

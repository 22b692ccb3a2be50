"""What tokens cost, against torch's own LSTM and against one step at a time."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rnncli.evaluation.language_model import line_nats, nats_of_lines, stream_nats
from rnncli.evaluation.pieces import column_pieces, group_lines
from tests.evaluation.truth import DOUBLE, TorchTwin, random_ids, small_model, stepped

END = 3


def test_a_stream_costs_what_torch_lstm_says():
    model, ids = small_model(), random_ids(200)
    log_p, _, _ = TorchTwin(model)(torch.tensor([END, *ids[:-1].tolist()]))
    truth = -log_p[torch.arange(200), torch.tensor(ids.astype(np.int64))]
    found = stream_nats(model, ids, END, piece=33, run_as=DOUBLE, unk_id=1)
    assert found.nats == pytest.approx(truth.sum().item(), rel=1e-12)
    assert found.oov_nats == pytest.approx(truth[torch.tensor(ids == 1)].sum().item(), rel=1e-12)
    assert (found.tokens, found.columns) == (200, 1)


@pytest.mark.parametrize("cell", ["elman", "gru", "gru-cho2014"])
def test_one_column_equals_stepping(cell: str):
    model, ids = small_model(cell=cell), random_ids(60)
    found = stream_nats(model, ids, END, piece=7, run_as=DOUBLE)
    assert found.nats == pytest.approx(sum(stepped(model, END, ids)), rel=1e-12)


@settings(max_examples=40, deadline=None)
@given(count=st.integers(1, 60), columns=st.integers(1, 70), piece=st.integers(1, 9))
def test_columns_are_contiguous_and_lose_nothing(count: int, columns: int, piece: int):
    model, ids = small_model(layers=1), random_ids(count)
    found = stream_nats(model, ids, END, columns=columns, piece=piece, run_as=DOUBLE)
    truth, place = 0.0, 0
    for part in np.array_split(ids, min(columns, count)):
        truth += sum(stepped(model, int(ids[place - 1]) if place else END, part))
        place += len(part)
    assert found.nats == pytest.approx(truth, rel=1e-11)
    assert (found.tokens, found.columns) == (count, min(columns, count))


@settings(max_examples=60, deadline=None)
@given(count=st.integers(1, 200), columns=st.integers(1, 12), piece=st.integers(1, 50))
def test_every_token_is_a_target_once(count: int, columns: int, piece: int):
    ids = np.arange(count)
    columns = min(columns, count)
    seen = []
    for part in column_pieces(ids, -1, columns, piece):
        keep = np.ones_like(part.targets, bool) if part.mask is None else part.mask
        seen += part.targets[keep].tolist()
        assert (part.inputs[keep] == part.targets[keep] - 1).all()
    assert sorted(seen) == list(range(count))


def test_lines_begin_anew():
    model = small_model()
    lines = [[1, 2], [], [5, 5, 5, 0, 1], [2], [6] * 90]
    ids = np.concatenate([[*line, END] for line in lines]).astype(np.uint16)
    truth = [stepped(model, END, [*line, END]) for line in lines]
    found = line_nats(model, ids, END, piece=4, run_as=DOUBLE, unk_id=5)
    assert found.nats == pytest.approx(sum(map(sum, truth)), rel=1e-12)
    assert found.oov_nats == pytest.approx(sum(truth[2][:3]), rel=1e-12)
    assert (found.tokens, found.columns) == (len(ids), 0)
    for mine, right in zip(nats_of_lines(model, lines, END, run_as=DOUBLE), truth, strict=True):
        assert mine == pytest.approx(right, rel=1e-12)


def test_lines_cost_the_same_whatever_they_are_run_with():
    model = small_model(hidden_size=40)
    rng = np.random.default_rng(0)
    lines = [rng.integers(0, 7, int(n)).tolist() for n in rng.integers(0, 70, 50)]
    alone, some, many = (
        [nats.sum() for nats in nats_of_lines(model, lines, END, lines_at_once=n, run_as=DOUBLE)]
        for n in (1, 7, 32)
    )
    assert alone == pytest.approx(some, abs=1e-10)
    assert alone == pytest.approx(many, abs=1e-10)


def test_a_line_of_ten_thousand_tokens():
    model, line = small_model(layers=1), random_ids(10_000).tolist()
    (found,) = nats_of_lines(model, [line], END, run_as=DOUBLE)
    whole = stream_nats(model, np.array([*line, END]), END, piece=10**6, run_as=DOUBLE)
    assert len(found) == 10_001
    assert found.sum() == pytest.approx(whole.nats, rel=1e-12)


def test_a_long_line_is_not_padded_onto_short_ones():
    groups = list(group_lines(np.array([3, 900_000, 1, 900_000, 2]), 32))
    assert groups == [[2, 4, 0], [1], [3]]


@pytest.mark.parametrize("vocab_size", [2, 7, 1000])
def test_a_uniform_model_has_perplexity_v(vocab_size: int):
    model = small_model(vocab_size)
    model.output.W_hy.zero_()
    model.output.b.fill_(0.7)
    ids = random_ids(500, vocab_size)
    for found in (
        stream_nats(model, ids, 0, run_as=DOUBLE),
        stream_nats(model, ids, 0, columns=9, run_as=DOUBLE),
        line_nats(model, np.append(ids, 0), 0, run_as=DOUBLE),
    ):
        assert math.exp(found.nats / found.tokens) == pytest.approx(vocab_size, rel=1e-12)


def test_tied_one_hot_and_adaptive_outputs():
    ids = random_ids(80, 30)
    adaptive = {"output": "adaptive", "adaptive_cutoffs": (5, 12), "hidden_size": 20}
    for config in ({"tied": True}, {"input": "one-hot"}, adaptive):
        model = small_model(30, **config)
        found = stream_nats(model, ids, END, columns=1, run_as=DOUBLE)
        assert found.nats == pytest.approx(sum(stepped(model, END, ids)), rel=1e-12), config


def test_the_mode_and_the_gradients_are_as_before():
    model = small_model().requires_grad_(True).train()
    stream_nats(model, random_ids(20), END, run_as=DOUBLE)
    assert model.training
    assert torch.is_grad_enabled()
    assert all(p.grad is None and p.requires_grad for p in model.parameters())
    with pytest.raises(IndexError):
        stream_nats(model.eval(), np.array([99]), END, run_as=DOUBLE)
    assert not model.training


def test_nothing_costs_nothing():
    found = stream_nats(small_model(), random_ids(0), END, run_as=DOUBLE)
    assert (found.nats, found.tokens) == (0.0, 0)
    assert nats_of_lines(small_model(), [], END, run_as=DOUBLE) == []

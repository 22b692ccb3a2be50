"""What ``rnncli gradients`` measures, against products written out and numbers known in advance."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from rnncli.config import Config
from rnncli.errors import DataError, FileError, ModelError, UsageError
from rnncli.evaluation.gradients import (
    Curve,
    TrainingNorms,
    gradient_norms,
    look_into,
    matrices,
    read_training_norms,
    saturation,
    spread_lags,
)
from rnncli.evaluation.subjects import Reading, _windows, open_subject
from rnncli.models.language_model import LanguageModel
from rnncli.models.music import MusicModel
from rnncli.nn.cells import Cell, make_cell
from rnncli.nn.recurrence.trace import Trace, run_traced
from rnncli.nn.stack import Run
from rnncli.nn.state import State
from rnncli.runtime import prepare
from rnncli.sections import ModelConfig
from rnncli.training.language_modelling import open_task
from tests.helpers import tiny_model
from tests.nn.cases import KINDS, make, random_input, randomize

V, H, T = 5, 4, 8
SLOPES = {
    "tanh": lambda h: 1 - h**2,
    "sigmoid": lambda h: h * (1 - h),
    "relu": lambda h: (h > 0).double(),
}
FUNCTIONS = {"tanh": torch.tanh, "sigmoid": torch.sigmoid, "relu": torch.relu}
WITHOUT_ENDS = {
    "lstm-projection", "lstm-peephole-all", "dt-rnn-maxout", "dot-rnn-lp", "rhn-uncoupled",
    "mingru", "minlstm", "qrnn-fo", "qrnn-ifo", "sru", "sru-vectors", "rg-lru",
    "rhn-layer-norm", "qrnn-layer-norm", "sru-layer-norm", "rg-lru-layer-norm",
    "mingru-layer-norm", "minlstm-layer-norm", "mingru-positive", "minlstm-positive",
}  # fmt: skip
"""Cells whose h may be anything, or the first part of whose state is no h."""

READING = Reading(steps=12, windows=5, seed=1)


@pytest.mark.parametrize("nonlinearity", FUNCTIONS)
def test_gradients_of_an_elman_network_are_the_textbooks_products(nonlinearity: str) -> None:
    """dL(T)/dh(k) = W_hh^T diag f'(k+1) ... W_hh^T diag f'(T) W_hy^T (y(T) - d(T))."""
    config = ModelConfig(
        cell="elman", nonlinearity=nonlinearity, layers=1, hidden_size=H, input="one-hot"
    )
    model = LanguageModel(config, V).double()
    randomize(model)
    cell = model.stack.layers[0]
    words = torch.tensor([[0, 3, 1, 4, 4, 2, 0, 1, 3], [2, 2, 1, 0, 3, 4, 1, 1, 0]]).T
    traces: list[Trace] = []
    state = model.start(None, 2)
    h, _ = model.hidden(words[:-1], state, Run("reference", torch.float64, traces))
    loss = model.output.nats(h[-1], words[-1], None).sum()
    (found,) = gradient_norms(loss, traces)
    assert found.shape == (T, 2)
    for row in range(2):
        states = [torch.zeros(H, dtype=torch.float64)]
        for word in words[:-1, row]:
            pre = cell.W_xh[:, word] + cell.W_hh @ states[-1] + cell.a
            states.append(FUNCTIONS[nonlinearity](pre))
        y = torch.softmax(model.output.W_hy @ states[T] + model.output.b, 0)
        d = torch.eye(V, dtype=torch.float64)[words[-1, row]]
        error = (model.output.W_hy.T @ (y - d)).detach()
        for k in range(T, 0, -1):
            assert float(found[k - 1, row]) == pytest.approx(float(error.norm()), rel=1e-9)
            error = (cell.W_hh.T @ (SLOPES[nonlinearity](states[k]) * error)).detach()


def test_gradients_of_two_layers_of_lstm() -> None:
    """By small additions to the state that a step hands on, each with a gradient of its own."""
    model = LanguageModel(ModelConfig(cell="lstm", layers=2, hidden_size=3, embedding_size=2), V)
    model.double()
    randomize(model)
    words = torch.tensor([[0, 3, 1, 4, 4, 2], [2, 2, 1, 0, 3, 4]]).T
    traces: list[Trace] = []
    h, _ = model.hidden(words[:-1], model.start(None, 2), Run("reference", torch.float64, traces))
    norms = gradient_norms(model.output.nats(h[-1], words[-1], None).sum(), traces)

    zeros = [[[torch.zeros(2, 3, dtype=torch.float64, requires_grad=True) for _ in range(2)]
              for _ in range(5)] for _ in range(2)]  # fmt: skip
    states = [tuple(torch.zeros(2, 3, dtype=torch.float64) for _ in range(2)) for _ in range(2)]
    for t in range(5):
        x = model.embedding(words[t])
        for layer, cell in enumerate(model.stack.layers):
            after = cell.step(
                F.linear(x, cell.W_xh, cell.a), states[layer], lambda n, v, c=cell: v @ c.W_hh.T
            )
            states[layer] = tuple(s + z for s, z in zip(after, zeros[layer][t], strict=True))
            x = states[layer][0]
    model.output.nats(x, words[-1], None).sum().backward()
    for layer in range(2):
        for t in range(5):
            both = torch.cat([z.grad for z in zeros[layer][t] if z.grad is not None], 1)
            torch.testing.assert_close(norms[layer][t], both.norm(dim=1))


def test_what_reads_backward_has_seen_the_last_step_first() -> None:
    values = {"task": "synthetic:order", "synthetic.lag": 20, "model.direction": "bidirectional",
              "model.layers": 1, "model.hidden_size": 4}  # fmt: skip
    report = look_into(_fresh(Config().with_values(values)))
    there, back = report.layers
    assert (there.direction, back.direction) == ("forward", "backward")
    assert (there.layer, back.layer) == (1, 1)
    assert all(value > 0 for value in there.gradient.median)
    assert back.gradient.median[0] > 0
    assert not any(back.gradient.high[1:])
    assert math.isnan(back.gradient_factor)
    assert there.jacobians is not None
    assert back.jacobians is None


def _fresh(config: Config):
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.toml"
        path.write_text(config.to_toml())
        return open_subject(str(path), None, Reading(None, READING.windows, READING.seed))


def test_the_factor_of_a_curve() -> None:
    def curve(values: list[float]) -> Curve:
        return Curve(list(range(len(values))), values, values, values)

    assert curve([9.0, *(3 * 0.8**lag for lag in range(20))]).factor == pytest.approx(0.8)
    assert curve([1.0, *(1e-5 * 1.3**lag for lag in range(9))]).factor == pytest.approx(1.3)
    assert curve([1.0, 0.5, 0.25, 0.0, 0.0]).factor == pytest.approx(0.5)
    assert math.isnan(curve([1.0, 0.5, 0.0]).factor)


def test_recurrent_matrices() -> None:
    cell = make("gru-cho2014", hidden=3)
    with torch.no_grad():
        cell.U.copy_(torch.tensor([[0.0, -2.0, 0.0], [2.0, 0.0, 0.0], [0.0, 0.0, 0.5]]))
        cell.W_hh[:3] = torch.diag(torch.tensor([3.0, 1.0, -4.0]))
    found = {matrix.name: matrix for matrix in matrices(cell)}
    assert list(found) == ["W_hh reset", "W_hh update", "U"]
    assert found["U"].spectral_radius == pytest.approx(2.0)  # a rotation
    assert found["U"].singular_values == pytest.approx([2.0, 2.0, 0.5])
    assert found["W_hh reset"].spectral_radius == pytest.approx(4.0)
    assert found["W_hh reset"].singular_values == pytest.approx([4.0, 3.0, 1.0])
    assert (found["U"].rows, found["U"].columns) == (3, 3)
    named = [matrix.name for matrix in matrices(make("lstm"))]
    assert named == ["W_hh input", "W_hh forget", "W_hh candidate", "W_hh output"]
    assert matrices(make("mingru")) == []


@pytest.mark.parametrize(
    ("cell", "options", "named"),
    [
        ("lstm", {"coupled_gates": True}, ["W_hh forget", "W_hh candidate", "W_hh output"]),
        ("slstm", {}, ["W_hh input", "W_hh forget", "W_hh candidate", "W_hh output"]),
        ("rhn", {"transition_depth": 2}, [
            "W_hh candidate", "W_hh transform", "R_2 candidate", "R_2 transform",
        ]),
        ("fs-rnn", {"fast_layers": 2}, [
            f"{name} {gate}" for name in ("W_hh", "W_S", "W_2")
            for gate in ("input", "forget", "candidate", "output")
        ]),
    ],
)  # fmt: skip
def test_recurrent_matrices_are_told_by_their_gates(
    cell: str, options: dict[str, Any], named: list[str]
) -> None:
    config = ModelConfig(cell=cell, **options)
    assert [matrix.name for matrix in matrices(make_cell(config, 3, 4))] == named


def test_the_steps_of_a_deep_transition_name_their_gates() -> None:
    config = ModelConfig(cell="gru-cho2014", transition_depth=2)
    names = [matrix.name for matrix in matrices(make_cell(config, 3, 4))]
    assert [name.split(" ")[-1] for name in names[:2]] == ["reset", "update"]
    assert len(names) == 6 and not any("/" in name for name in names)


@pytest.mark.parametrize("depth", [1, 2])
def test_zoneout_leaves_the_names_of_gates(depth: int) -> None:
    for cell in ("gru-cho2014", "lstm"):
        plain = ModelConfig(cell=cell, transition_depth=depth)
        names = [
            [matrix.name for matrix in matrices(make_cell(config, 3, 4))]
            for config in (plain, replace(plain, zoneout=0.1))
        ]
        assert names[1] == [f"cell.{name}" for name in names[0]]
        assert not any("/" in name for name in names[0])


def test_saturation() -> None:
    """A forget gate that is wide open for half of the units, an output gate that is shut, and a
    candidate that happens to be above 0: far from its lower end, which is -1."""
    cell = make("lstm")
    with torch.no_grad():
        for weight in cell.parameters():
            weight.mul_(0.005)
        cell.a[4:6] = 20.0
        cell.a[8:12] = 0.04
        cell.a[12:] = -20.0
    found = {s.name: (s.low, s.high) for s in saturation(_traced(cell, 6, 3))}
    assert list(found) == ["h", "input", "forget", "candidate", "output"]
    assert found["forget"] == (0.0, 0.5)
    assert found["output"] == (1.0, 0.0)
    assert found["input"] == found["candidate"] == found["h"] == (0.0, 0.0)


def test_saturation_of_the_layers_of_a_transition() -> None:
    cell = make("dts-rnn")
    with torch.no_grad():
        for weight in cell.parameters():
            weight.mul_(3.0)
    trace = _traced(cell, 20, 16)
    rows = {s.name: s for s in saturation(trace)}
    assert list(rows) == ["h", "layer_1", "layer_2"]
    weights, h = dict(cell.named_parameters()), torch.stack([s[0] for s in trace.states[:-1]])
    to_1, to_2, _ = (h @ weights["W_hh"].t()).split(H, dim=2)
    z_1 = torch.tanh(to_1 + trace.projected)
    z_2 = torch.tanh(z_1 @ weights["W_2"].t() + weights["a_2"] + to_2)
    for name, z in (("layer_1", z_1), ("layer_2", z_2)):
        assert rows[name].low == pytest.approx(float((z < -0.95).double().mean()))
        assert rows[name].high == pytest.approx(float((z > 0.95).double().mean()))
        assert rows[name].low and rows[name].high


def _traced(cell: Cell, steps: int, rows: int) -> Trace:
    """From a zero state."""
    x, _ = random_input(cell, steps, rows)
    state, weights = cell.zero_state(rows), cell.step_weights()
    return run_traced(cell, x, state, weights, engine="reference", dtype=torch.float64)[2]


@pytest.mark.parametrize("kind", KINDS)
def test_saturation_of_h_where_it_has_ends(kind: str) -> None:
    """With large weights h is in both halves of the range that its cell names, never outside."""
    cell = make(kind)
    with torch.no_grad():
        for weight in cell.parameters():
            weight.mul_(4.0)
    trace = _traced(cell, 20, 16)
    h = torch.stack([state[0] for state in trace.states[1:]]).detach()
    ends = cell.h_range
    rows = {s.name: s for s in saturation(trace)}
    assert (ends is None) == (kind in WITHOUT_ENDS) == ("h" not in rows)
    if ends is not None:
        low, high = ends
        least, most = float(h.min()), float(h.max())
        if math.isinf(high):
            assert low <= least < 1 < most
            assert rows["h"].low == pytest.approx(float((h == 0).double().mean()))
            assert rows["h"].high is None
        else:
            assert low <= least < (low + high) / 2 < most <= high
            assert rows["h"].low == pytest.approx(float((h < low + 0.05).double().mean()))
            assert rows["h"].high == pytest.approx(float((h > 0.95).double().mean()))


def test_what_is_carried_has_its_name(tmp_path: Path) -> None:
    for cell, more, parts in (
        ("lstm", {}, "h, c"), ("qrnn", {}, "c, input"), ("qrnn", {"pooling": "f"}, "h, input"),
        ("sru", {"zoneout": 0.1}, "c"), ("mingru", {}, "h"), ("do-rnn", {}, "h"),
    ):  # fmt: skip
        path = tiny_model(tmp_path / "run", cell=cell, layers=1, hidden_size=3, **more)
        (layer,) = look_into(open_subject(str(path), None, Reading(4, 1, 1))).layers
        assert layer.state == parts, cell


def test_windows_are_spread_over_the_text() -> None:
    ids = np.arange(100, dtype=np.uint16)
    found = _windows(ids, Reading(steps=10, windows=4, seed=1), "text")
    assert found.shape == (11, 4)
    assert found[0].tolist() == [0, 29, 59, 89]
    assert found[:, 3].tolist() == list(range(89, 100))
    assert _windows(ids, Reading(10, 50, 1), "text").shape == (11, 9)
    assert _windows(ids[:6], Reading(10, 4, 1), "text")[:, 0].tolist() == [0, 1, 2, 3, 4, 5]
    with pytest.raises(DataError, match="text: 2 tokens are too few"):
        _windows(ids[:2], Reading(10, 4, 1), "text")


def test_a_trained_language_model(tmp_path: Path) -> None:
    text = tmp_path / "text.txt"
    text.write_text("the cat sat on the mat\n" * 20)
    path = tiny_model(tmp_path / "run", cell="elman", layers=2, hidden_size=6, embedding_size=5)
    report = look_into(open_subject(str(path), str(text), READING))
    assert report.trained
    assert report.steps == 12
    assert report.source == f"5 windows of 12 tokens of {text}"
    assert [layer.units for layer in report.layers] == [6, 6]
    for layer in report.layers:
        assert layer.gradient.lags == list(range(12))
        j = layer.jacobians
        assert j.exact
        assert j.windows == 4
        pairs = zip(j.norm.median, j.bound_of_steps.median, j.bound_of_weights, strict=True)
        assert all(
            norm <= steps * 1.0000001 <= weights * 1.000001 for norm, steps, weights in pairs
        )
        for low, median, high in zip(
            layer.gradient.low, layer.gradient.median, layer.gradient.high, strict=True
        ):
            assert 0 < low <= median <= high
    # In float64, whatever the weights are kept in.
    assert json.loads(json.dumps(report.to_dict()))["layers"][1]["layer"] == 2


def test_fresh_models_of_a_file_and_of_the_zoo(tmp_path: Path) -> None:
    config = Config().with_values({"model.hidden_size": 5, "model.embedding_size": 4})
    path = tmp_path / "own.toml"
    path.write_text(config.to_toml())
    text = tmp_path / "text.txt"
    text.write_text("some words and some more of them\n" * 3)
    subject = open_subject(str(path), str(text), READING)
    assert not subject.trained
    assert subject.model.vocab_size < 25
    drawn, again = (look_into(open_subject(str(path), None, READING)) for _ in range(2))
    assert drawn.source == "5 windows of 12 tokens drawn at random"
    assert drawn == again
    assert open_subject("pascanu2013-rnn", None, READING).config.model.cell == "elman"


def test_music(tmp_path: Path) -> None:
    config = tmp_path / "music.toml"
    config.write_text(
        'task = "music"\n[training]\nstate = "reset"\n'
        '[model]\ncell = "elman"\nhidden_size = 6\nembedding_size = 5\nlayers = 1\n'
    )
    drawn = look_into(open_subject(str(config), None, READING))
    assert (drawn.steps, drawn.source) == (12, "5 windows of 12 frames drawn at random")
    assert drawn.layers[0].gradient.median[11] > 0
    text = tmp_path / "music.txt"
    text.write_text("60,64 - 62\n60 60 62 64 65\n60\n72,76 72 71 70\n")
    found = look_into(open_subject(str(config), str(text), Reading(9, 3, 1)))
    assert (found.steps, found.source) == (4, f"2 windows of 4 frames of {text}")
    fresh = open_subject(str(config), str(text), READING).model
    assert isinstance(fresh, MusicModel)
    sounding = torch.sigmoid(fresh.output.b.detach())  # what a run on it begins with
    assert sounding[60 - 21] > 5 * sounding[0]
    text.write_text("60\n\n62 64\n\n")
    assert look_into(open_subject(str(config), str(text), READING)).steps == 2
    text.write_text("60\n\n")
    with pytest.raises(DataError, match="no piece has two frames"):
        open_subject(str(config), str(text), READING)


def test_a_run_that_begins_with_other_weights_is_not_shown_with_fresh_ones(tmp_path: Path) -> None:
    config = tmp_path / "config.toml"
    config.write_text('[training]\nstart_from = "run"\n')
    with pytest.raises(UsageError, match=r"begins with the weights of run .* give that model"):
        open_subject(str(config), None, READING)


def test_gradients_that_overflow(tmp_path: Path) -> None:
    """They have no slope, and are not taken for gradients that vanish."""
    config = tmp_path / "config.toml"
    config.write_text(
        '[model]\ncell = "elman"\nlayers = 1\nhidden_size = 40\nembedding_size = 5\n'
        'nonlinearity = "relu"\nrecurrent_init = "normal"\nrecurrent_scale = 10.0\n'
    )
    found = look_into(open_subject(str(config), None, Reading(300, 2, 1))).layers[0]
    assert found.gradient_factor == math.inf
    assert found.jacobians is not None and found.jacobians.norm.median[-1] == math.inf


def test_the_gates_of_a_projected_lstm_have_as_many_rows_as_cells() -> None:
    cell = make("lstm-projection", hidden=6)
    found = matrices(cell)
    assert [m.name for m in found] == [
        f"W_hh {g}" for g in ("input", "forget", "candidate", "output")
    ]
    assert {(m.rows, m.columns, m.spectral_radius) for m in found} == {(6, 3, None)}


def test_a_state_too_large_for_whole_jacobians(tmp_path: Path, monkeypatch) -> None:
    path = tiny_model(tmp_path / "run", cell="lstm", layers=1, hidden_size=6, embedding_size=5)
    reading = Reading(30, 1, 1)  # one window, the same for both
    exact = look_into(open_subject(str(path), None, reading)).layers[0].jacobians
    monkeypatch.setattr("rnncli.evaluation.jacobians.EXACT_SIZE", 4)
    found = look_into(open_subject(str(path), None, reading)).layers[0].jacobians
    assert not found.exact
    assert found.norm.lags == spread_lags(30) == [0, 1, 2, 3, 5, 7, 10, 15, 20, 29]
    assert found.norm.median[1] == pytest.approx(exact.norm.median[1], rel=1e-2)
    assert found.bound_of_weights is None


def test_what_is_no_subject(tmp_path: Path) -> None:
    other = tmp_path / "text.txt"
    other.write_text("some text\n")
    config = tmp_path / "order.toml"
    config.write_text('task = "synthetic:order"\n')
    pairs = tmp_path / "pairs.toml"
    pairs.write_text('task = "translate"\n[training]\nstate = "reset"\n')
    for name, text, error, message in (
        ("char-rn", None, FileError, "did you mean 'char-rnn'"),
        (other, None, ModelError, r"is a text file; expected a file that rnncli wrote"),
        (config, other, UsageError, "reads no text; leave it out"),
        (pairs, None, UsageError, "gradients are shown of language models"),
        (tmp_path, None, FileError, "holds no model"),
    ):
        with pytest.raises(error, match=message):
            open_subject(str(name), None if text is None else str(text), READING)
    model = tiny_model(tmp_path / "run").rename(tmp_path / "best.model")
    assert open_subject(str(model), None, READING).trained


def test_norms_of_a_run(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    assert read_training_norms(path, 1.0) is None
    events = [
        {"event": "StepReport", "step": 10, "gradient_norm": 0.5},
        {"event": "EvalReport", "step": 10, "score": 1.0},
        {"event": "StepReport", "step": 20, "gradient_norm": None},
        {"event": "StepReport", "step": 30, "gradient_norm": 2.5},
    ]
    path.write_text("".join(json.dumps(e) + "\n" for e in events) + '{"event": "Step')
    found = read_training_norms(path, 1.0)
    assert found == TrainingNorms([10, 30], [0.5, 2.5], [0.5, 2.5], 2, 1, 1.0)
    assert read_training_norms(path, 0.0).clipped_steps == 0
    # A version that counts every step has gone on with the run.
    more = {"steps": 15, "largest_gradient_norm": 7.0, "clipped_steps": 4}
    with path.open("a") as file:
        file.write("\n" + json.dumps({**events[0], "step": 45, **more}) + "\n")
    found = read_training_norms(path, 1.0)
    assert found == TrainingNorms([10, 30, 45], [0.5, 2.5, 0.5], [0.5, 2.5, 7.0], 17, 5, 1.0)
    # And one that records each of them.
    more |= {"steps": 3, "gradient_norms": [3.0, 0.25, 0.5]}
    with path.open("a") as file:
        file.write(json.dumps({**events[0], "step": 48, **more}) + "\n")
    found = read_training_norms(path, 1.0)
    assert found is not None and found.steps[-4:] == [45, 46, 47, 48]
    assert found.norms[-3:] == found.largest[-3:] == [3.0, 0.25, 0.5]
    # A step that was left out (its number counts from 0) is none of them.
    with path.open("a") as file:
        file.write(json.dumps({"event": "Skipped", "step": 49}) + "\n")
        file.write(json.dumps({**events[0], "step": 52, **more}) + "\n")
    found = read_training_norms(path, 1.0)
    assert found is not None and found.steps[-4:] == [48, 49, 51, 52]


def test_the_state_is_left_as_it_was_for_the_model() -> None:
    """A trace gives the outputs and the last state of the plain run."""
    model = LanguageModel(ModelConfig(cell="lstm", layers=2, hidden_size=3, embedding_size=2), V)
    words = torch.tensor([[0, 3], [1, 4], [4, 2]])
    plain = model.hidden(words, model.start(None, 2), Run("reference"))
    traces: list[Trace] = []
    found = model.hidden(words, model.start(None, 2), Run("reference", torch.float32, traces))
    assert torch.equal(plain[0], found[0])
    assert isinstance(found[1], State)
    assert all(map(torch.equal, plain[1].tensors(), found[1].tensors()))
    assert [len(trace.states) for trace in traces] == [4, 4]


def test_a_runs_configuration_gives_the_model_that_the_run_began_with(tmp_path: Path) -> None:
    train, text = tmp_path / "train.txt", tmp_path / "text.txt"
    train.write_text("  the cat sat on the mat\n" * 60 + "xyz\n" * 10)
    text.write_text("the cat sat on the mat\n" * 60)
    config = Config().with_values(
        {
            "data.train": [str(train)], "data.strip_lines": True, "model.layers": 1,
            "model.hidden_size": 6, "model.embedding_size": 5, "training.threads": 1,
        }
    )  # fmt: skip
    saved = tmp_path / "config.toml"
    saved.write_text(config.to_toml())
    task = open_task(config, (), prepare(threads=1), None)
    subject = open_subject(str(saved), str(text), READING)
    weights, found = task.model.state_dict(), subject.model.state_dict()
    assert weights.keys() == found.keys()
    for name, weight in weights.items():
        torch.testing.assert_close(found[name], weight.double())

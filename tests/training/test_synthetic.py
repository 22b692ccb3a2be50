"""Runs on problems that make their own data: learned, solved, resumed, refused."""

import signal

import numpy as np
import pytest

from rnncli.checkpoint import read_header, read_model
from rnncli.config import Config
from rnncli.errors import Terminated, UsageError
from rnncli.runtime import prepare
from rnncli.sections import DataConfig
from rnncli.training.events import EvalReport, Finished, Started
from rnncli.training.plan import plan
from rnncli.training.synthetic import DEFAULTS, Synthetic, choose, open_task
from tests.training.runs import Killed, assert_same_state, at_step, kill, metrics, run, send


def config(name: str, **more) -> Config:
    values = {
        "task": f"synthetic:{name}",
        "synthetic.lag": 10,
        "synthetic.valid_sequences": 150,
        "model.hidden_size": 16,
        "training.batch_size": 10,
        "training.max_steps": 12,
        "training.threads": 1,
        **{name.replace("__", "."): value for name, value in more.items()},
    }
    return Config().with_values({**DEFAULTS, **values})


@pytest.mark.parametrize(
    ("name", "more"),
    [
        ("adding", {"model__cell": "lstm", "optimizer__lr": 0.01, "model__hidden_size": 24}),
        ("copy", {"model__cell": "gru", "synthetic__symbols": 1, "synthetic__categories": 2}),
        ("order", {"model__cell": "elman", "training__valid_every_steps": 4}),
        ("parity", {"model__cell": "elman"}),
        ("recall", {"model__cell": "mingru", "synthetic__categories": 3}),
    ],
)
def test_a_short_lag_is_learned_and_the_run_ends(name, more, tmp_path):
    long = {
        "training__max_steps": 3000, "training__batch_size": 32, "optimizer__lr": 0.01,
        "model__hidden_size": 32, "training__valid_every_steps": 20,
    }  # fmt: skip
    events = run(config(name, **{**long, **more}), tmp_path / "run")
    finished, reports = events[-1], [e for e in events if isinstance(e, EvalReport)]
    assert isinstance(finished, Finished)
    assert finished.solved_step == finished.step < 3000
    assert finished.reason == f"solved at step {finished.step:,}"
    assert reports[-1].scores["success"] >= 0.99 > max(e.scores["success"] for e in reports[:-1])
    recorded = [e for e in metrics(tmp_path / "run") if e["event"] == "EvalReport"]
    assert recorded[-1]["scores"] == reports[-1].scores
    assert metrics(tmp_path / "run")[-1]["solved_step"] == finished.step
    scores = read_header(tmp_path / "run").scores
    assert scores["valid_success"] == reports[-1].scores["success"]
    unit = "squared_error" if name == "adding" else "nats"
    assert scores[f"valid_{unit}"] == pytest.approx(reports[-1].score)
    # It stays solved, whoever asks to go on.
    again = run(config(name, **{**long, **more}), tmp_path / "run", resume=True)
    assert [type(e).__name__ for e in again] == ["Started", "Finished"]
    assert again[-1].solved_step == finished.step


def test_the_kept_model_is_the_one_that_solved_it(tmp_path):
    settings = {"training__max_steps": 2000, "model__hidden_size": 32, "optimizer__lr": 0.01}
    found = config("order", model__cell="gru", training__valid_every_steps=20, **settings)
    events = run(found, tmp_path / "run")
    saved = read_model(tmp_path / "run")
    task = Synthetic(found, prepare(threads=1, precision="float32"))
    task.model.load_state_dict(saved.weights)
    validation = task.validate()
    assert validation.solved
    assert validation.scores["success"] == saved.header.scores["valid_success"]
    assert saved.header.provenance["step"] == events[-1].solved_step
    assert saved.tokenizer is None
    wanted, answered = task.sample().removeprefix("wanted ").split(", answered ")
    assert wanted == answered


@pytest.mark.parametrize(
    ("name", "more"),
    [
        ("adding", {"model__cell": "lstm", "regularization__dropout": 0.2}),
        ("order", {"model__cell": "elman", "regularization__omega": 0.5, "model__layers": 2}),
        ("copy", {"model__cell": "gru", "regularization__weight_noise": 0.05}),
        ("permutations", {"model__cell": "gru", "model__direction": "bidirectional"}),
        ("recall", {"model__direction": "bidirectional", "regularization__weight_drop": 0.2}),
    ],
)
def test_stopped_and_resumed_is_never_stopped(name, more, tmp_path, monkeypatch):
    """Three times, once at the end of an epoch of five steps."""
    monkeypatch.setattr("rnncli.training.synthetic.STEPS_AN_EPOCH", 5)
    found = config(name, **more)
    whole = run(found, tmp_path / "whole")
    assert whole[-1].step == 12
    folder = tmp_path / "stopped"
    for step, action, error in (
        (3, send(signal.SIGTERM), Terminated),
        (5, send(signal.SIGTERM), Terminated),
        (8, kill, Killed),
        (11, send(signal.SIGTERM), Terminated),
    ):
        with monkeypatch.context() as patch:
            at_step(patch, step, action)
            with pytest.raises(error):
                run(found, folder, resume=folder.exists())
    again = run(found, folder, resume=True)
    assert again[0].resumed_step == 11
    assert_same_state(tmp_path / "whole", folder)
    assert again[-1].weights_sha256 == whole[-1].weights_sha256


def test_every_batch_is_new_and_depends_on_seed_and_number_alone():
    runtime = prepare(threads=1, precision="float32")
    tasks = [Synthetic(config("adding", seed=seed), runtime) for seed in (1, 1, 2)]
    batches = [[task._batch(0, n, 10).x.numpy().tobytes() for n in range(30)] for task in tasks]
    assert len(set(batches[0])) == 30
    assert batches[0] == batches[1]
    assert not set(batches[0]) & set(batches[2])
    valid = [b.x.numpy() for b in tasks[0]._valid_batches()]
    assert [b.shape[1] for b in valid] == [100, 50]
    train = {tuple(row) for n in range(30) for row in tasks[0]._batch(0, n, 10).x[0, :, :1].numpy()}
    assert not {tuple(row) for row in np.concatenate([b[0, :, :1] for b in valid])} & train
    assert tasks[0].train_sha256 == tasks[1].train_sha256 != tasks[2].train_sha256
    tasks[0].begin_epoch(3)
    assert tasks[0].describe(4).startswith("batch 304 of 10 sequences of up to 11 steps")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"training.bptt": 20}, "run whole; use training.state = 'reset' and training.bptt = 0"),
        ({"training.state": "carried", "training.bptt": 64}, "run whole"),
        ({"data.train": ["book.txt"]}, "data.train: synthetic:order makes its own data"),
        ({"tokenizer.kind": "word"}, "tokenizer.kind: synthetic:order makes its own data"),
        ({"model.tied": True}, "model.tied"),
        ({"regularization.activation_penalty": 1.0}, "regularization.activation_penalty"),
        ({"training.engine": "scan", "model.cell": "gru"}, "'scan' does not run GRU"),
    ],
)
def test_settings_without_a_meaning_are_refused(values, message):
    with pytest.raises(UsageError, match=message):
        open_task(config("order").with_values(values), (), prepare(threads=1), None)


def test_defaults_give_way_to_what_is_set():
    fixed = {"task": "synthetic:copy", "model.hidden_size": 9, "model.cell": "gru"}
    values, reasons = choose(DataConfig(), fixed)
    assert "model.hidden_size" not in values
    assert values["training.max_steps"] > 0
    assert len(reasons) == 1
    assert "model.forget_bias" not in values
    fixed = {"task": "synthetic:copy", "training.max_seconds": 5.0, "synthetic.lag": 148}
    values, reasons = choose(DataConfig(), fixed)
    assert "training.max_steps" not in values
    assert values["model.forget_bias"] == 5.0
    assert len(reasons) == 1
    assert choose(DataConfig(), {**fixed, "model.forget_bias": 1.0})[1] == []
    assert Config().with_values({"task": "synthetic:copy", **values}).training.bptt == 0


def test_a_plan_and_a_start(tmp_path, monkeypatch):
    monkeypatch.setattr("rnncli.training.plan.TIMED_STEPS", 2)
    found = config("order", model__cell="gru", training__max_steps=2)
    rows = dict(plan(found))
    assert rows["model"] == "gru, 1 layer of 16, 4 outputs"
    assert rows["batch"] == "10 sequences of up to 11 steps"
    assert rows["training symbols"] == "1,000"
    started = run(found, tmp_path / "run")[0]
    assert isinstance(started, Started)
    assert started.valid_tokens == 150
    assert "costs 1.3863 nats a symbol" in started.notes[0]

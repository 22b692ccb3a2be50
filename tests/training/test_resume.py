"""A run that was stopped and resumed is the run that was never stopped, bit for bit."""

import os
import signal
from collections import Counter
from pathlib import Path

import pytest
import torch

from rnncli.checkpoint import read_header, read_model, read_training_state
from rnncli.errors import DataError, FileError, Interrupted, ModelError, Terminated, UsageError
from rnncli.training.events import Finished, Started
from tests.training.runs import (
    Killed,
    assert_same_state,
    at_step,
    kill,
    metrics,
    run,
    saved,
    send,
    tiny_config,
    write_text,
)

SETTINGS = {
    "adamw": {},
    "sgd with momentum, newbob": {
        "optimizer__name": "sgd", "optimizer__momentum": 0.9, "optimizer__lr": 3.0,
        "schedule__name": "newbob", "training__valid_every_steps": 3,
    },
    "plain sgd, averaged once validation stalls": {
        "optimizer__name": "sgd", "optimizer__lr": 20.0, "optimizer__averaging": "nt",
        "optimizer__averaging_window": 1, "training__valid_every_steps": 3,
    },
    "moving average": {"optimizer__averaging": "ema", "optimizer__ema_decay": 0.8},
    "rmsprop, reset": {
        "optimizer__name": "rmsprop", "optimizer__momentum": 0.5, "training__state": "reset",
        "training__bptt": 5,
    },
    "adagrad, whole lines": {
        "optimizer__name": "adagrad", "training__state": "reset", "training__bptt": 0,
    },
    "adam, variable lengths, cosine": {
        "optimizer__name": "adam", "training__bptt_variable": True, "schedule__name": "cosine",
        "schedule__warmup_steps": 5,
    },
    "sampled softmax": {
        "training__sampled_softmax": 3, "training__sampled_fraction": 0.6,
    },
    "every noise": {
        "regularization__dropout": 0.3, "regularization__dropout_embedding": 0.2,
        "regularization__weight_drop": 0.3, "regularization__weight_noise": 0.05,
        "regularization__dropout_state": 0.2,
        "regularization__activation_penalty": 1.0, "regularization__locked": True,
        "model__layers": 2,
    },
    "two passes that are to agree": {
        "regularization__dropout": 0.3, "regularization__r_drop": 2.0,
        "regularization__weight_drop": 0.2,
    },
    "gru, learned start, weighted text": {
        "model__cell": "gru", "model__initial_state": "learned", "data__weights": [1.5],
        "regularization__dropout": 0.2,
    },
}  # fmt: skip


@pytest.mark.parametrize("name", SETTINGS)
def test_stopped_and_resumed_is_never_stopped(name, text, tmp_path, monkeypatch):
    """Stopped three times, in three ways, once at the end of an epoch."""
    config = tiny_config(text, **SETTINGS[name])
    events = run(config, tmp_path / "whole")
    assert isinstance(events[0], Started)
    epoch, last = events[0].steps_an_epoch, events[-1].step
    assert epoch >= 4
    assert last >= 3 * epoch - 3
    if name.startswith("plain sgd"):
        assert any(e.get("averaged") for e in metrics(tmp_path / "whole")), "never averaged"
    if "newbob" in name:
        assert saved(tmp_path / "whole")[1]["decays"] > 0
    folder = tmp_path / "stopped"
    for step, action, error in (
        (epoch - 2, send(signal.SIGTERM), Terminated),
        (epoch, send(signal.SIGINT), Interrupted),
        (epoch + 3, kill, Killed),
        (2 * epoch + 1, send(signal.SIGTERM), Terminated),
    ):
        with monkeypatch.context() as patch:
            at_step(patch, step, action)
            with pytest.raises(error):
                run(config, folder, resume=folder.exists())
    again = run(config, folder, resume=True)
    assert again[0].resumed_step == 2 * epoch + 1
    assert_same_state(tmp_path / "whole", folder)
    sha = [read_header(tmp_path / where).weights_sha256 for where in ("whole", "stopped")]
    assert sha[0] == sha[1] == events[-1].weights_sha256 == again[-1].weights_sha256
    untimed = [
        [(e["event"], e["step"], e.get("score")) for e in metrics(where) if "nats" not in e]
        for where in (tmp_path / "whole", folder)
    ]
    assert untimed[0] == untimed[1]


def test_stopped_at_every_step(text, tmp_path, monkeypatch):
    """The last included: the validation that is due then is made up for."""
    config = tiny_config(text, training__epochs=1, regularization__dropout=0.2)
    last = run(config, tmp_path / "whole")[-1]
    for step in range(1, last.step + 1):
        folder = tmp_path / f"{step}"
        with monkeypatch.context() as patch:
            at_step(patch, step, send(signal.SIGTERM))
            with pytest.raises(Terminated, match=f"after step {step}; the state is saved"):
                run(config, folder)
        assert run(config, folder, resume=True)[-1].weights_sha256 == last.weights_sha256
        assert_same_state(tmp_path / "whole", folder)
        assert metrics(folder)[-1]["event"] == "Finished"


def test_stopped_at_the_last_step_without_a_validation(text, tmp_path, monkeypatch):
    config = tiny_config(text, training__max_steps=7)
    whole = run(config, tmp_path / "whole")
    with monkeypatch.context() as patch:
        at_step(patch, 7, send(signal.SIGTERM))
        with pytest.raises(Terminated):
            run(config, tmp_path / "run")
    model = read_model(tmp_path / "run")
    assert model.header.provenance["step"] == 7 and not model.header.scores
    weights, _ = read_training_state(tmp_path / "run" / "training.safetensors")
    assert all(torch.equal(w, weights[f"model.{name}"]) for name, w in model.weights.items())
    assert run(config, tmp_path / "run", resume=True)[-1].weights_sha256 == whole[-1].weights_sha256
    assert read_header(tmp_path / "run").provenance["step"] == 7


def test_killed_between_the_first_model_and_the_first_state(text, tmp_path, monkeypatch):
    config = tiny_config(text)
    whole = run(config, tmp_path / "whole")[-1]
    with monkeypatch.context() as patch:
        patch.setattr("rnncli.training.run_folder.write_training_state", lambda *a, **k: kill())
        with pytest.raises(Killed):
            run(config, tmp_path / "run")
    assert not (tmp_path / "run/training.safetensors").exists()
    read_header(tmp_path / "run")
    assert run(config, tmp_path / "run", resume=True)[-1].weights_sha256 == whole.weights_sha256


def test_validations_and_saves_do_not_change_what_is_learnt(text, tmp_path):
    """With a schedule and an optimiser that do not look at validation."""
    weights = []
    for number, settings in enumerate(
        (
            {"training__valid_every_steps": 2},
            {"training__valid_every_steps": 7, "training__save_every_seconds": 1e-9},
            {"data__valid": str(text)},
        )
    ):
        more = {"regularization__dropout": 0.3, "training__sampled_softmax": 3, **settings}
        run(tiny_config(text, data__valid_fraction=0.0, **more), tmp_path / f"{number}")
        tensors, _ = saved(tmp_path / f"{number}")
        weights.append({name: t for name, t in tensors.items() if name.startswith("model.")})
    for other in weights[1:]:
        assert all(weights[0][name].equal(tensor) for name, tensor in other.items())


def test_steps_are_recorded_once(text, tmp_path, monkeypatch):
    """Also those that were done, recorded, and lost by a kill."""
    monkeypatch.setattr("rnncli.training.loop.REPORT_SECONDS", 0.0)
    config = tiny_config(text)
    run(config, tmp_path / "whole")
    for step in (5, 17, 18):
        with monkeypatch.context() as patch:
            at_step(patch, step, kill)
            with pytest.raises(Killed):
                run(config, tmp_path / "run", resume=step > 5)
        with (tmp_path / "run/metrics.jsonl").open("ab") as file:
            file.write(b'{"half a li')  # what the kill cut
    run(config, tmp_path / "run", resume=True)
    steps = [
        [(e["step"], e["event"], e.get("nats"), e.get("lr")) for e in metrics(tmp_path / where)]
        for where in ("whole", "run")
    ]
    assert steps[0] == steps[1]
    assert max(Counter(steps[1]).values()) == 1
    assert len(steps[1]) > 30


def test_more_epochs_or_steps(text, tmp_path):
    short = tiny_config(text, training__epochs=1)
    run(short, tmp_path / "run")
    first = run(short, tmp_path / "run", resume=True)
    assert [type(e).__name__ for e in first] == ["Started", "Finished"]
    run(tiny_config(text, training__epochs=3), tmp_path / "run", resume=True)
    run(tiny_config(text, training__epochs=3), tmp_path / "whole")
    assert_same_state(tmp_path / "whole", tmp_path / "run")
    more = tiny_config(text, training__epochs=9, training__max_steps=50)
    finished = run(more, tmp_path / "run", resume=True)[-1]
    assert isinstance(finished, Finished)
    assert (finished.step, finished.reason) == (50, "50 steps are done")


def test_another_text(text, tmp_path):
    valid = write_text(tmp_path / "valid.txt", seed=2)
    config = tiny_config(text, data__valid=str(valid), training__epochs=1)
    run(config, tmp_path / "run")
    moved = text.rename(tmp_path / "moved.txt")
    more = tiny_config(moved, data__valid=str(valid), training__epochs=2)
    assert (
        run(more, tmp_path / "run", resume=True)[-1].step
        == 2
        * run(tiny_config(moved, data__valid=str(valid), training__epochs=1), tmp_path / "other")[
            -1
        ].step
    )
    before = sorted((p.name, p.read_bytes()) for p in (tmp_path / "run").iterdir())
    write_text(valid, seed=3)
    with pytest.raises(DataError, match="the validation text has changed"):
        run(more, tmp_path / "run", resume=True)
    write_text(moved, seed=3)
    with pytest.raises(DataError, match=r"the training text has changed.*another --out"):
        run(more, tmp_path / "run", resume=True)
    after = sorted((p.name, p.read_bytes()) for p in (tmp_path / "run").iterdir())
    assert [a for a in before if a[0] != ".lock"] == [a for a in after if a[0] != ".lock"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model__hidden_size": 9}, r"--resume cannot change model.hidden_size \(8 in .*, 9 given"),
        ({"optimizer__lr": 0.5}, r"optimizer.lr \(0.01 in"),
        ({"seed": 2}, r"seed \(1 in"),
        ({"regularization__dropout_input": 0.5}, r"dropout_input \(none in .*, 0.5 given\)"),
    ],
)
def test_other_settings(change, message, text, tmp_path):
    run(tiny_config(text, training__epochs=1), tmp_path / "run")
    with pytest.raises(UsageError, match=message):
        run(tiny_config(text, training__epochs=2, **change), tmp_path / "run", resume=True)


def damage_state(folder: Path, place: int) -> None:
    path = folder / "training.safetensors"
    data = bytearray(path.read_bytes())
    data[place] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("place", [0, 40, -1, -300])
def test_a_damaged_state(place, text, tmp_path):
    config = tiny_config(text, training__epochs=1)
    run(config, tmp_path / "run")
    damage_state(tmp_path / "run", place)
    with pytest.raises(ModelError, match=r"training\.safetensors"):
        run(config, tmp_path / "run", resume=True)
    read_header(tmp_path / "run")  # the model is still there
    run(config, tmp_path / "run", overwrite=True)


def test_a_state_cut_short_or_gone(text, tmp_path):
    config = tiny_config(text, training__epochs=1)
    run(config, tmp_path / "run")
    path = tmp_path / "run/training.safetensors"
    os.truncate(path, path.stat().st_size // 2)
    with pytest.raises(ModelError, match="ends too early"):
        run(config, tmp_path / "run", resume=True)
    path.unlink()
    with pytest.raises(FileError, match=r"training\.safetensors is missing"):
        run(config, tmp_path / "run", resume=True)
    read_header(tmp_path / "run")

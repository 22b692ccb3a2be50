"""What the loop promises: its folder, its limits, steps that are not finite, its end."""

import math
import os
import signal
import threading
import time
from pathlib import Path

import pytest
import torch

from rnncli.checkpoint import read_header, read_model
from rnncli.config import load_toml
from rnncli.errors import UsageError
from rnncli.files import lock_run
from rnncli.loading import load_language_model
from rnncli.training.events import EvalReport, Finished, Sample, Saved, Skipped, Started, StepReport
from rnncli.training.language_modelling import LanguageModelling
from rnncli.training.loop import Diverged, Loop
from rnncli.training.run import train
from rnncli.training.run_folder import read_run_config
from tests.training.runs import metrics, run, saved, tiny_config, write_text


def test_events_and_files_of_a_run(text, tmp_path):
    config = tiny_config(text)
    events = run(config, tmp_path / "run", notes=("a note",))
    started, finished = events[0], events[-1]
    assert isinstance(started, Started)
    assert isinstance(finished, Finished)
    assert started.notes[0] == "a note"
    assert "held out for validation" in started.notes[1]
    assert started.total_steps == 3 * started.steps_an_epoch == finished.step
    assert started.steps_an_epoch == math.ceil((started.train_tokens // 4) / 10)
    scores = [e for e in events if isinstance(e, EvalReport)]
    assert [e.epoch for e in scores] == [1.0, 2.0, 3.0]
    assert sum(isinstance(e, Sample) for e in events) == 3
    assert sum(isinstance(e, Saved) for e in events) == 4
    assert any(isinstance(e, StepReport) and e.step == finished.step for e in events)
    assert finished.best_score == min(e.score for e in scores)
    assert finished.reason == "3 epochs are done"
    header = read_header(tmp_path / "run")
    assert header.scores["valid_nats"] == finished.best_score
    assert header.weights_sha256 == finished.weights_sha256
    assert header.parameters == started.parameters
    assert read_run_config(tmp_path / "run") == config
    names = sorted(path.name for path in (tmp_path / "run").iterdir())
    assert names == [".lock", "config.toml", "metrics.jsonl", "model.safetensors",
                     "training.safetensors"]  # fmt: skip
    assert [e["event"] for e in metrics(tmp_path / "run")][-1] == "Finished"


def test_a_report_tells_of_all_of_its_steps(text, tmp_path, monkeypatch):
    """The largest norm and what was clipped, as the same run gives them step by step."""
    config = tiny_config(text, optimizer__clip_norm=0.15)

    def reports(seconds, name):
        monkeypatch.setattr("rnncli.training.loop.REPORT_SECONDS", seconds)
        return [e for e in run(config, tmp_path / name) if isinstance(e, StepReport)]

    alone, together = reports(0.0, "alone"), reports(math.inf, "together")
    norms = [report.gradient_norm for report in alone]
    assert [report.step for report in alone] == list(range(1, len(alone) + 1))
    assert all((e.steps, e.largest_gradient_norm) == (1, e.gradient_norm) for e in alone)
    assert [report.clipped_steps for report in alone] == [int(norm > 0.15) for norm in norms]
    assert 0 < sum(norm > 0.15 for norm in norms) < len(norms)
    assert len(together) == 3
    assert any(e.largest_gradient_norm > e.gradient_norm for e in together)
    for report in together:
        assert report.steps == len(alone) // 3
        its = norms[report.step - report.steps : report.step]
        assert report.gradient_norm == its[-1]
        assert report.largest_gradient_norm == max(its)
        assert report.gradient_norms == pytest.approx(its, rel=1e-3)
        assert report.clipped_steps == sum(norm > 0.15 for norm in its)
    last = metrics(tmp_path / "together")[-4:]
    (recorded,) = (e for e in last if e["event"] == "StepReport")
    assert recorded["largest_gradient_norm"] == together[-1].largest_gradient_norm
    assert (recorded["steps"], recorded["clipped_steps"]) == (
        together[-1].steps,
        together[-1].clipped_steps,
    )


def test_nothing_is_clipped_without_a_limit(text, tmp_path):
    config = tiny_config(text, optimizer__clip_norm=0.0, training__epochs=1)
    found = [e for e in run(config, tmp_path / "run") if isinstance(e, StepReport)]
    assert sum(e.clipped_steps for e in found) == 0
    assert max(e.largest_gradient_norm for e in found) > 0


def test_the_configuration_repeats_the_run(text, tmp_path):
    first = run(tiny_config(text), tmp_path / "run")[-1]
    config = tiny_config(text).from_dict(load_toml(tmp_path / "run/config.toml"))
    assert run(config, tmp_path / "again")[-1].weights_sha256 == first.weights_sha256
    other = run(tiny_config(text, seed=2), tmp_path / "other")[-1]
    assert other.weights_sha256 != first.weights_sha256


def test_two_runs_into_one_folder(text, tmp_path):
    config = tiny_config(text)
    first = train(config, tmp_path / "run")
    next(first)
    for options in ({}, {"resume": True}, {"overwrite": True}):
        with pytest.raises(UsageError, match="is being trained by another process"):
            next(train(config, tmp_path / "run", **options))
    assert isinstance(list(first)[-1], Finished)


def test_a_finished_run_is_not_overwritten_unasked(text, tmp_path):
    config = tiny_config(text, training__epochs=1)
    run(config, tmp_path / "run")
    before = (tmp_path / "run/model.safetensors").read_bytes()
    with pytest.raises(UsageError, match=r"already holds a run.*--resume.*--overwrite"):
        run(config, tmp_path / "run")
    assert (tmp_path / "run/model.safetensors").read_bytes() == before
    run(tiny_config(text, training__epochs=1, seed=5), tmp_path / "run", overwrite=True)
    assert (tmp_path / "run/model.safetensors").read_bytes() != before
    assert sum(e["event"] == "Finished" for e in metrics(tmp_path / "run")) == 1


def test_overwriting_with_a_text_that_cannot_be_read_keeps_the_run(text, tmp_path):
    run(tiny_config(text, training__epochs=1), tmp_path / "run")
    names = ("model.safetensors", "training.safetensors", "config.toml", "metrics.jsonl")
    before = [(tmp_path / "run" / name).read_bytes() for name in names]
    with pytest.raises(Exception, match=r"missing\.txt"):
        run(tiny_config(tmp_path / "missing.txt"), tmp_path / "run", overwrite=True)
    assert [(tmp_path / "run" / name).read_bytes() for name in names] == before


# -- a generator that is not taken to its end ------------------------------------------------


def test_closed_early(text, tmp_path):
    handlers = [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)]
    events = train(tiny_config(text), tmp_path / "run")
    for event in events:
        if isinstance(event, Saved):
            break
    assert [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)] != handlers
    events.close()
    assert [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)] == handlers
    with lock_run(tmp_path / "run"):
        pass
    assert isinstance(run(tiny_config(text), tmp_path / "run", resume=True)[-1], Finished)


def test_never_begun(text, tmp_path):
    train(tiny_config(text), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_in_another_thread(text, tmp_path):
    """Where signals cannot be noted."""
    whole = run(tiny_config(text), tmp_path / "whole")[-1]
    found: list[object] = []
    thread = threading.Thread(target=lambda: found.extend(run(tiny_config(text), tmp_path / "run")))
    thread.start()
    thread.join()
    assert found[-1].weights_sha256 == whole.weights_sha256


def test_a_signal_while_the_text_is_read_ends_at_once(text, tmp_path):
    events = train(
        tiny_config(text),
        tmp_path / "run",
        progress=lambda done, total: signal.raise_signal(signal.SIGINT),
    )
    with pytest.raises(KeyboardInterrupt):
        next(events)
    with lock_run(tmp_path / "run"):
        pass


# -- limits ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("limits", "steps", "reason"),
    [
        ({"training__max_steps": 7}, 7, "7 steps are done"),
        ({"training__max_steps": 25, "training__epochs": 0}, 25, "25 steps are done"),
        ({"training__max_steps": 1000, "training__epochs": 2}, None, "2 epochs are done"),
    ],
)
def test_the_nearest_limit_ends_the_run(limits, steps, reason, text, tmp_path):
    events = run(tiny_config(text, **limits), tmp_path / "run")
    finished = events[-1]
    assert finished.reason == reason
    assert finished.step == (steps or 2 * events[0].steps_an_epoch)
    assert math.isfinite(finished.best_score)
    assert events[0].total_steps == finished.step


def test_time_ends_the_run(text, tmp_path):
    began = time.monotonic()
    config = tiny_config(text, training__epochs=0, training__max_seconds=1.5)
    finished = run(config, tmp_path / "run")[-1]
    took = time.monotonic() - began
    assert finished.reason == "1.5 seconds are over"
    assert 0.8 < finished.seconds <= took < 60
    more = tiny_config(text, training__epochs=0, training__max_seconds=2.5)
    resumed = run(more, tmp_path / "run", resume=True)[-1]
    assert resumed.step > finished.step and resumed.seconds > finished.seconds


def test_time_is_kept_for_a_validation_longer_than_training(text, tmp_path):
    """Though none was timed before."""
    write_text(tmp_path / "valid.txt", lines=60_000)
    config = tiny_config(
        text,
        data__valid=str(tmp_path / "valid.txt"),
        training__epochs=0,
        training__max_seconds=4.0,
        training__valid_every_steps=10**9,
    )
    loop: list[Loop] = []
    events = train(config, tmp_path / "run")
    for event in events:
        if isinstance(event, Saved):
            loop.append(events.gi_yieldfrom.gi_frame.f_locals["self"])
            break
    saving = 1.2 * loop[0]._save_seconds
    assert loop[0]._reserve() == pytest.approx(0.5 + saving)  # nothing else is known yet
    loop[0]._trained_tokens, loop[0]._trained_seconds = 1000, 0.001
    validating = 1.2 * 0.6e-6 * loop[0].task.valid_tokens
    assert loop[0]._reserve() == pytest.approx(0.5 + saving + validating)
    loop[0]._trained_seconds = 1.0
    assert loop[0]._reserve() == 1.2  # three tenths of the time at most
    loop[0].sampled = True
    loop[0].config = config.with_values({"training.sampled_softmax": 3})
    layer, outputs = 4 * 8 * (6 + 8 + 1), loop[0].task.outputs
    cost = 0.6 * (layer + 8 * outputs) / (layer + 8 * 3)
    assert loop[0]._validation_cost() == pytest.approx(cost), "it is over the whole vocabulary"
    events.close()


def test_patience(text, tmp_path, monkeypatch):
    """Validation worsens from the second on: two more are waited for, and the best is kept."""
    real, count = LanguageModelling.validate, []

    def validate(task):
        count.append(1)
        found = real(task)
        return type(found)(found.nats * len(count), found.tokens)

    monkeypatch.setattr(LanguageModelling, "validate", validate)
    config = tiny_config(text, training__patience=2, training__epochs=0, training__max_steps=500,
                         training__valid_every_steps=5, optimizer__lr=1e-4)  # fmt: skip
    events = run(config, tmp_path / "run")
    assert events[-1].reason == "no better validation in 2 in a row"
    assert [e.best for e in events if isinstance(e, EvalReport)] == [True, False, False]
    assert events[-1].step == 15
    assert read_header(tmp_path / "run").provenance["step"] == 5


# -- what is not finite ----------------------------------------------------------------------


def spoil(monkeypatch, steps, how):
    """Make the loss (or the gradient) of some steps not finite."""
    real = LanguageModelling.loss
    count = []

    def loss(task, piece, sampled):
        found = real(task, piece, sampled)
        count.append(piece)
        if len(count) not in steps:
            return found
        if how == "loss":
            return type(found)(found.objective * math.nan, math.nan, found.tokens, 1.0)
        return type(found)(found.objective * math.inf, found.nats, found.tokens, 1.0)

    monkeypatch.setattr(LanguageModelling, "loss", loss)


@pytest.mark.parametrize(
    ("how", "reason"), [("loss", "the loss is nan"), ("gradient", "the gradient's norm is")]
)
def test_steps_that_are_not_finite_are_skipped_and_counted(
    how, reason, text, tmp_path, monkeypatch
):
    spoil(monkeypatch, {3, 4, 9}, how)
    config = tiny_config(text, training__epochs=1, regularization__weight_noise=0.1)
    events = run(config, tmp_path / "run")
    skipped = [e for e in events if isinstance(e, Skipped)]
    assert [e.step for e in skipped] == [2, 3, 8]
    assert all(reason in e.reason for e in skipped)
    assert skipped[0].batch == "tokens 20 to 30 of 4 streams"
    assert [e["step"] for e in metrics(tmp_path / "run") if e["event"] == "Skipped"] == [2, 3, 8]
    assert saved(tmp_path / "run")[1]["skipped"] == 3
    weights = read_model(tmp_path / "run").weights
    assert all(bool(torch.isfinite(w).all()) for w in weights.values())


def test_a_skipped_step_leaves_the_weights_alone(text, tmp_path, monkeypatch):
    spoil(monkeypatch, {3}, "loss")  # the first run does one step, the second two
    for steps in (1, 2):
        more = {"data__valid_fraction": 0.0, "regularization__weight_noise": 0.1}
        run(tiny_config(text, training__max_steps=steps, **more), tmp_path / f"{steps}")
    one, two = (read_model(tmp_path / f"{steps}").weights for steps in (1, 2))
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_three_in_a_row_stop_the_run(text, tmp_path, monkeypatch):
    config = tiny_config(text, training__epochs=1)
    good = run(config, tmp_path / "good")[-1]
    spoil(monkeypatch, set(range(good.step + 5, 1000)), "loss")
    message = r"3 steps in a row were not finite, .*epoch 2, tokens \d+ to \d+ of 4 streams: the"
    with pytest.raises(Diverged, match=message) as error:
        run(tiny_config(text, training__epochs=3), tmp_path / "run")
    assert error.value.exit_code == 1
    assert load_language_model(tmp_path / "run").header.weights_sha256 == good.weights_sha256
    assert len([e for e in metrics(tmp_path / "run") if e["event"] == "Skipped"]) == 3


@pytest.mark.parametrize("fraction", [0.1, 0.0])
def test_weights_that_went_astray_are_never_the_model(fraction, text, tmp_path):
    """A learning rate without measure, without clipping: with and without validation."""
    config = tiny_config(
        text,
        data__valid_fraction=fraction,
        optimizer__name="sgd",
        optimizer__lr=1e38,
        optimizer__clip_norm=0.0,
        training__valid_every_steps=1,
    )
    with pytest.raises(Diverged):
        run(config, tmp_path / "run")
    weights = load_language_model(tmp_path / "run").model.state_dict()
    assert all(bool(torch.isfinite(w).all()) for w in weights.values())
    assert metrics(tmp_path / "run")


# -- what is trained on ----------------------------------------------------------------------


def test_without_validation_the_last_model_is_kept(text, tmp_path):
    events = run(tiny_config(text, data__valid_fraction=0.0), tmp_path / "run")
    assert not any(isinstance(e, EvalReport) for e in events)
    assert math.isnan(events[-1].best_score)
    assert metrics(tmp_path / "run")[-1]["best_score"] is None
    tensors, values = saved(tmp_path / "run")
    weights = read_model(tmp_path / "run").weights
    assert all(torch.equal(tensors[f"model.{name}"], w) for name, w in weights.items())
    assert values["step"] == events[-1].step


def test_weights_of_files(text, tmp_path):
    other = write_text(tmp_path / "other.txt", lines=20, seed=7)
    base = {"data__train": [str(text), str(other)], "data__valid_fraction": 0.0}

    def steps(**more: object) -> int:
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        return run(tiny_config(text, training__epochs=1, **base, **more), folder)[0].steps_an_epoch

    alone = [len(Path(path).read_bytes()) // 40 for path in (text, other)]
    assert steps() == pytest.approx(sum(alone), abs=1)
    assert steps(data__weights=[2.0, 0.0]) == pytest.approx(2 * alone[0], abs=1)
    assert steps(data__weights=[0.5, 3.0]) == pytest.approx(alone[0] / 2 + 3 * alone[1], abs=2)


def test_surrogates_in_a_sample_are_recorded_as_json(text, tmp_path, monkeypatch):
    monkeypatch.setattr(LanguageModelling, "sample", lambda task: "a\udc80b\n")
    run(tiny_config(text, training__epochs=1), tmp_path / "run")
    assert "a\udc80b\n" in [e.get("text") for e in metrics(tmp_path / "run")]


@pytest.mark.parametrize(
    ("name", "content"), [("config.toml", "# mine\n"), ("metrics.jsonl", "{}\n")]
)
def test_files_of_others_are_not_replaced(text, tmp_path, name, content):
    """Not even those that are called as a run's are, unless it is asked for."""
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / name).write_text(content)
    with pytest.raises(UsageError, match=rf"already holds a run \({name}\)"):
        run(tiny_config(text), folder)
    assert (folder / name).read_text() == content
    run(tiny_config(text, training__max_steps=1), folder, overwrite=True)


def test_a_run_killed_before_its_first_model_may_be_begun_again(text, tmp_path):
    config, folder = tiny_config(text, training__max_steps=1), tmp_path / "run"
    run(config, folder)
    for path in folder.iterdir():
        if path.name not in ("config.toml", "metrics.jsonl"):
            path.unlink()
    run(config, folder)
    for path in folder.iterdir():
        if path.name != "config.toml":
            path.unlink()
    run(config, folder)


def test_a_path_that_toml_cannot_hold_is_refused_before_anything_is_lost(text, tmp_path):
    folder = tmp_path / "run"
    run(tiny_config(text, training__max_steps=1), folder)
    before = (folder / "model.safetensors").read_bytes()
    bad = tmp_path / os.fsdecode(b"b\xe9.txt")
    bad.write_bytes(text.read_bytes())
    with pytest.raises(UsageError, match="a path is not UTF-8"):
        run(tiny_config(bad), folder, overwrite=True)
    assert (folder / "model.safetensors").read_bytes() == before

"""The models of the last validations, beside the best one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from rnncli.averaging import average_models
from rnncli.checkpoint import read_header, read_model
from rnncli.errors import UsageError
from rnncli.training.events import EvalReport
from rnncli.training.loop import Diverged
from tests.training.runs import (
    Killed,
    assert_same_state,
    at_step,
    kill,
    metrics,
    run,
    saved,
    tiny_config,
)

EVERY_7: dict[str, Any] = {"training__valid_every_steps": 7, "training__keep_models": 2}
"""Of 30 steps: validations after 7, 14, 21, 28 and 30."""


def kept(folder: Path) -> list[Path]:
    return sorted(folder.glob("model-*.safetensors"))


def steps(folder: Path) -> list[int]:
    return [int(path.stem.removeprefix("model-")) for path in kept(folder)]


def test_the_last_ones_stay_with_the_scores_of_their_validations(
    text: Path, tmp_path: Path
) -> None:
    events = run(tiny_config(text, **EVERY_7), tmp_path / "run")
    assert [path.name for path in kept(tmp_path / "run")] == [
        "model-00000028.safetensors",
        "model-00000030.safetensors",
    ]
    scores = {event.step: event.score for event in events if isinstance(event, EvalReport)}
    assert list(scores) == [7, 14, 21, 28, 30]
    models = [read_model(path) for path in kept(tmp_path / "run")]
    for step, model in zip((28, 30), models, strict=True):
        assert model.header.provenance["step"] == step
        assert model.header.scores["valid_nats"] == scores[step]
    tensors, _ = saved(tmp_path / "run")
    for name, weight in models[1].weights.items():
        assert torch.equal(weight, tensors[f"model.{name}"])
        assert not torch.equal(weight, models[0].weights[name])
    mean = read_model(average_models(kept(tmp_path / "run"), tmp_path / "mean.safetensors"))
    for name, weight in mean.weights.items():
        torch.testing.assert_close(weight, (models[0].weights[name] + models[1].weights[name]) / 2)


def test_averaged_weights_are_kept_where_they_were_validated(text: Path, tmp_path: Path) -> None:
    config = tiny_config(text, optimizer__averaging="ema", training__epochs=1, **EVERY_7)
    run(config, tmp_path / "run")
    assert all(event["averaged"] for event in metrics(tmp_path / "run") if "averaged" in event)
    tensors, _ = saved(tmp_path / "run")
    shadow = [t for name, t in tensors.items() if name.startswith("average.")]
    for name, weight in read_model(kept(tmp_path / "run")[-1]).weights.items():
        assert any(torch.equal(weight, one) for one in shadow), name
        assert not torch.equal(weight, tensors[f"model.{name}"])


@pytest.mark.parametrize("write", [3, 4, 5])
def test_a_killed_run_ends_with_the_same_files(
    write: int, text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed between a model and its state, and once more between two validations."""
    import rnncli.training.run_folder as run_folder

    config = tiny_config(text, **EVERY_7)
    run(config, tmp_path / "whole")
    real, calls = run_folder.write_training_state, 0

    def write_training_state(*args: Any, **values: Any) -> None:
        nonlocal calls
        calls += 1
        if calls == write:
            kill()
        real(*args, **values)

    with monkeypatch.context() as patch:
        patch.setattr(run_folder, "write_training_state", write_training_state)
        with pytest.raises(Killed):
            run(config, tmp_path / "run")
    assert steps(tmp_path / "run") == [7, 14, 21, 28][max(0, write - 4) : write - 1]
    with monkeypatch.context() as patch:
        at_step(patch, 29, kill)
        with pytest.raises(Killed):
            run(config, tmp_path / "run", resume=True)
    run(config, tmp_path / "run", resume=True)
    assert_same_state(tmp_path / "whole", tmp_path / "run")
    for one, other in zip(kept(tmp_path / "whole"), kept(tmp_path / "run"), strict=True):
        assert (one.name, one.read_bytes()) == (other.name, other.read_bytes())


def test_steps_that_a_resumed_run_does_not_do_again_leave_no_model(
    text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The clock, or another limit, may end it earlier."""
    run(tiny_config(text, training__max_steps=14, **EVERY_7), tmp_path / "run")
    with monkeypatch.context() as patch:
        patch.setattr("rnncli.training.run_folder.write_training_state", lambda *a, **k: kill())
        with pytest.raises(Killed):
            run(tiny_config(text, **EVERY_7), tmp_path / "run", resume=True)
    assert steps(tmp_path / "run") == [7, 14, 21]
    run(tiny_config(text, training__max_steps=16, **EVERY_7), tmp_path / "run", resume=True)
    assert steps(tmp_path / "run") == [14, 16]


def test_the_number_may_change(text: Path, tmp_path: Path) -> None:
    """With 0 what is there is left alone."""
    for last, keep, expected in (
        (14, 2, [7, 14]),
        (14, 1, [14]),
        (21, 3, [14, 21]),
        (28, 0, [14, 21]),
    ):
        more = {**EVERY_7, "training__keep_models": keep, "training__max_steps": last}
        run(tiny_config(text, **more), tmp_path / "run", resume=(tmp_path / "run").exists())
        assert steps(tmp_path / "run") == expected


def test_a_run_that_begins_anew_has_none_of_the_run_before(text: Path, tmp_path: Path) -> None:
    run(tiny_config(text, **EVERY_7), tmp_path / "run")
    (tmp_path / "run/model-last.safetensors").touch()  # not ours
    again = tiny_config(text, training__max_steps=3, **EVERY_7)
    run(again, tmp_path / "run", overwrite=True)
    names = [path.name for path in kept(tmp_path / "run")]
    assert names == ["model-00000003.safetensors", "model-last.safetensors"]
    for name in ("model", "training"):
        (tmp_path / f"run/{name}.safetensors").unlink()
    with pytest.raises(UsageError, match=r"already holds a run \(model-00000003\.safetensors\)"):
        run(again, tmp_path / "run")
    assert read_header(tmp_path / "run/model-00000003.safetensors").provenance["step"] == 3


def test_weights_that_went_astray_are_not_kept(text: Path, tmp_path: Path) -> None:
    config = tiny_config(
        text,
        optimizer__name="sgd",
        optimizer__lr=1e38,
        optimizer__clip_norm=0.0,
        training__valid_every_steps=1,
        training__keep_models=9,
    )
    with pytest.raises(Diverged):
        run(config, tmp_path / "run")
    for path in kept(tmp_path / "run"):
        assert all(bool(torch.isfinite(w).all()) for w in read_model(path).weights.values())


def test_without_validation_text_there_is_one_for_every_epoch(text: Path, tmp_path: Path) -> None:
    config = tiny_config(text, data__valid_fraction=0.0, training__keep_models=2)
    epoch = run(config, tmp_path / "run")[0].steps_an_epoch
    assert steps(tmp_path / "run") == [2 * epoch, 3 * epoch]
    assert all(read_header(path).scores == {} for path in kept(tmp_path / "run"))

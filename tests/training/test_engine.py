"""The engine by measurement: which are tried, what is chosen, and that nothing else changes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from rnncli.training import engine as module
from rnncli.training.events import Event, Started
from rnncli.training.plan import plan
from rnncli.training.task import Task
from tests.training.runs import (
    Killed,
    assert_same_state,
    at_step,
    kill,
    run,
    tiny_config,
    write_text,
)
from tests.training.test_music import MUSIC, write_music
from tests.training.test_synthetic import config as synthetic
from tests.training.test_translation import config as of_pairs
from tests.training.test_translation import write_pairs

MEASURED = {"training__engine": "measured"}


@pytest.fixture
def tried(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The engines that were measured; the last of them is made the fastest."""
    names: list[str] = []
    measure = module._take_turns

    def take_turns(task: Task, candidates: list[str], limit: float) -> dict[str, float]:
        seconds = measure(task, candidates, limit)
        assert list(seconds) == candidates and all(value > 0 for value in seconds.values())
        names[:] = candidates
        return {**seconds, candidates[-1]: 0.0}

    monkeypatch.setattr(module, "_take_turns", take_turns)
    return names


def engine_of(events: list[Event]) -> str:
    assert isinstance(events[0], Started)
    return events[0].engine


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ({"model__cell": "lstm"}, ["auto", "deferred", "closed", "vendor"]),
        ({"model__cell": "mingru"}, ["auto", "deferred", "scan"]),
        ({"model__cell": "lstm,rhn", "model__layers": 2}, ["auto", "deferred", "closed"]),
        ({"regularization__dropout_state": 0.2}, ["auto", "deferred"]),
        ({"regularization__omega": 0.1}, ["auto", "deferred"]),
    ],
)
def test_what_all_layers_have_is_tried(
    more: dict[str, Any], expected: list[str], tried: list[str], tmp_path: Path
) -> None:
    text = write_text(tmp_path / "text.txt")
    run(tiny_config(text, training__max_steps=1, **MEASURED, **more), tmp_path / "run")
    assert tried == expected


def test_a_run_is_as_if_its_engine_had_been_named(tried: list[str], tmp_path: Path) -> None:
    text = write_text(tmp_path / "text.txt")
    more = {
        "model__cell": "gru",
        "regularization__dropout": 0.3,
        "regularization__weight_drop": 0.2,
    }
    events = run(tiny_config(text, **MEASURED, **more), tmp_path / "measured")
    assert engine_of(events) == tried[-1] == "vendor"
    assert events[0].notes[-1].startswith("engine: vendor, measured on batches of this run (auto ")
    run(tiny_config(text, training__engine="vendor", **more), tmp_path / "named")
    assert_same_state(tmp_path / "measured", tmp_path / "named")


def test_a_run_keeps_what_was_measured(
    tried: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    more = {"model__cell": "gru", "training__save_every_seconds": 1e-9, **MEASURED}
    config = tiny_config(write_text(tmp_path / "text.txt"), **more)
    run(config, tmp_path / "whole")
    with monkeypatch.context() as patch, pytest.raises(Killed):
        at_step(patch, 7, kill)
        run(config, tmp_path / "killed")
    tried.clear()
    assert engine_of(run(config, tmp_path / "killed", resume=True)) == "vendor"
    assert not tried, "measured again"
    assert_same_state(tmp_path / "whole", tmp_path / "killed")


def test_noise_does_not_choose(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """``auto`` stays where another engine is hardly faster, and where there is memory for no
    other."""
    text = write_text(tmp_path / "text.txt")
    config = tiny_config(text, training__max_steps=1, model__cell="gru", **MEASURED)
    for number, (closed, expected) in enumerate(((0.99, "auto"), (0.9, "closed"))):
        seconds = {"auto": 1.0, "deferred": 2.0, "closed": closed}
        monkeypatch.setattr(module, "_take_turns", lambda *_, found=seconds: found)
        assert engine_of(run(config, tmp_path / f"run{number}")) == expected
    monkeypatch.undo()
    time_one = module._time

    def full(task: Task, engine: str, piece: int) -> float:
        if engine != "auto":
            raise torch.OutOfMemoryError("CUDA out of memory")
        return time_one(task, engine, piece)

    monkeypatch.setattr(module, "_time", full)
    assert engine_of(run(config, tmp_path / "full")) == "auto"


def test_every_task(tried: list[str], tmp_path: Path) -> None:
    tunes, pairs = write_music(tmp_path / "tunes.txt"), write_pairs(tmp_path / "pairs.tsv", 60)
    two_steps = {"training__max_steps": 2, "model__cell": "lstm", **MEASURED}
    configs = {
        "music": tiny_config(tunes, **MUSIC, **two_steps),
        "synthetic": synthetic("adding", **two_steps),
        "pairs": of_pairs(pairs, **two_steps),
    }
    for name, config in configs.items():
        assert engine_of(run(config, tmp_path / name)) == tried[-1]
        assert tried[0] == "auto"


def test_a_plan_says_it(tried: list[str], tmp_path: Path) -> None:
    text = write_text(tmp_path / "text.txt")
    rows = dict(plan(tiny_config(text, model__cell="elman", **MEASURED)))
    assert rows["engine"].startswith("vendor, measured on batches of this run (auto ")
    assert "engine" not in dict(plan(tiny_config(text)))

"""The engine by measurement: which are tried, what is chosen, and that nothing else changes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from rnncli.checkpoint import read_header
from rnncli.training import engine as module
from rnncli.training.events import Started
from rnncli.training.plan import plan
from rnncli.training.task import Task
from tests.training.runs import assert_same_state, run, tiny_config, write_text
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

    def take_turns(task: Task, candidates: list[str]) -> dict[str, float]:
        seconds = measure(task, candidates)
        assert all(value > 0 for value in seconds.values())
        names[:] = candidates
        return {**seconds, candidates[-1]: 0.0}

    monkeypatch.setattr(module, "_take_turns", take_turns)
    return names


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
    started, *_ = run(tiny_config(text, **MEASURED, **more), tmp_path / "measured")
    assert isinstance(started, Started) and started.engine == tried[-1] == "vendor"
    assert started.notes[-1].startswith("engine: vendor, measured on batches of this run (auto ")
    run(tiny_config(text, training__engine="vendor", **more), tmp_path / "named")
    assert_same_state(tmp_path / "measured", tmp_path / "named")
    assert read_header(tmp_path / "measured").config["training"]["engine"] == "vendor"


def test_every_task(tried: list[str], tmp_path: Path) -> None:
    tunes, pairs = write_music(tmp_path / "tunes.txt"), write_pairs(tmp_path / "pairs.tsv", 60)
    two_steps = {"training__max_steps": 2, "model__cell": "lstm", **MEASURED}
    configs = {
        "music": tiny_config(tunes, **MUSIC, **two_steps),
        "synthetic": synthetic("adding", **two_steps),
        "pairs": of_pairs(pairs, **two_steps),
    }
    for name, config in configs.items():
        run(config, tmp_path / name)
        engine = read_header(tmp_path / name).config["training"].get("engine", "auto")
        assert engine == tried[-1] and tried[0] == "auto"


def test_a_plan_says_it(tried: list[str], tmp_path: Path) -> None:
    text = write_text(tmp_path / "text.txt")
    rows = dict(plan(tiny_config(text, model__cell="elman", **MEASURED)))
    assert rows["engine"].startswith("vendor, measured on batches of this run (auto ")
    assert "engine" not in dict(plan(tiny_config(text)))

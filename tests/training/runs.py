"""Tiny runs, in this process: about ten steps an epoch, a few milliseconds each."""

from __future__ import annotations

import json
import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from rnncli.checkpoint import read_training_state
from rnncli.config import Config
from rnncli.training.events import Event, Skipped
from rnncli.training.loop import Loop
from rnncli.training.run import train
from rnncli.training.window import Window

TINY: dict[str, Any] = {
    "model.layers": 1,
    "model.hidden_size": 8,
    "model.embedding_size": 6,
    "optimizer.lr": 0.01,
    "schedule.name": "constant",
    "data.valid_fraction": 0.1,
    "training.epochs": 3,
    "training.batch_size": 4,
    "training.bptt": 10,
    "training.threads": 1,
    "training.save_every_seconds": 0.0,
}


def tiny_config(text: Path, **more: Any) -> Config:
    """A run on ``text``; ``more``: section__field=value."""
    values = {name.replace("__", "."): value for name, value in more.items()}
    return Config().with_values({**TINY, "data.train": [str(text)], **values})


def write_text(path: Path, lines: int = 40, seed: int = 1) -> Path:
    rng = random.Random(seed)
    words = ["ab", "abc", "dd", "e", "cab", "bad"]
    text = "".join(" ".join(rng.choices(words, k=rng.randint(1, 6))) + "\n" for _ in range(lines))
    path.write_text(text)
    return path


def run(config: Config, folder: Path, **options: Any) -> list[Event]:
    """A whole run."""
    return list(train(config, folder, **options))


class Killed(BaseException):
    """Ends a run where it stands, as SIGKILL would: nothing more is written."""


def at_step(patch: pytest.MonkeyPatch, step: int, action: Callable[[], None]) -> None:
    """Do ``action`` when ``step`` steps are done."""
    real = Loop.one_step

    def one_step(loop: Loop, window: Window) -> Skipped | None:
        skipped = real(loop, window)
        if loop.step == step:
            action()
        return skipped

    patch.setattr(Loop, "one_step", one_step)


def kill() -> None:
    raise Killed


def send(number: int) -> Callable[[], None]:
    return lambda: os.kill(os.getpid(), number)


def saved(folder: Path) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """The state to go on from, without what the clock has put there."""
    tensors, values = read_training_state(folder / "training.safetensors")
    for name in ("seconds", "valid_seconds", "metrics_bytes", "config"):
        del values[name]
    return tensors, values


def assert_same_state(a: Path, b: Path) -> None:
    (tensors, values), (others, other_values) = saved(a), saved(b)
    assert values == other_values
    assert tensors.keys() == others.keys()
    for name, tensor in tensors.items():
        assert torch.equal(tensor, others[name]), name


def metrics(folder: Path) -> list[dict[str, Any]]:
    def refuse(constant: str) -> None:
        raise ValueError(f"{constant} is not JSON")

    lines = (folder / "metrics.jsonl").read_bytes().decode().split("\n")[:-1]
    return [json.loads(line, parse_constant=refuse) for line in lines]

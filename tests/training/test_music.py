"""Learning music: a piece by heart, exact resume, what an epoch is made of, what cannot be."""

from __future__ import annotations

import re
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from rnncli.checkpoint import read_header, read_model
from rnncli.config import Config
from rnncli.errors import DataError, Terminated, UsageError
from rnncli.evaluation.music import measure
from rnncli.loading import load_language_model, load_music_model
from rnncli.nn.stack import Run
from rnncli.runtime import prepare
from rnncli.text.music import Frames, format_piece, parse_piece, read_music
from rnncli.training.music import MusicTask, open_task
from rnncli.training.music_defaults import choose
from tests.training.runs import (
    Killed,
    assert_same_state,
    at_step,
    kill,
    metrics,
    run,
    send,
    tiny_config,
)

MUSIC = {"task": "music", "training__state": "reset", "training__bptt": 0}


def write_music(path: Path, pieces: int = 24, seed: int = 1) -> Path:
    rng = np.random.default_rng(seed)
    lines = []
    for _ in range(pieces):
        frames = rng.integers(50, 70, (rng.integers(3, 15), 2))
        lines.append(" ".join(",".join(map(str, frame)) for frame in frames))
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.fixture
def tunes(tmp_path: Path) -> Path:
    return write_music(tmp_path / "tunes.txt")


def opened(config: Config) -> MusicTask:
    task = open_task(config, (), prepare("cpu", "float32", 1), None)
    assert isinstance(task, MusicTask)
    return task


def epoch_of(task: MusicTask, epoch: int) -> list[Frames]:
    task.begin_epoch(epoch)
    return task._epoch


def test_a_piece_that_repeats_itself_is_learnt(tmp_path: Path) -> None:
    path = tmp_path / "tune.txt"
    path.write_text(" ".join(["60,64,67", "60,65,69", "59,62,67", "-"] * 6) + "\n")
    config = tiny_config(
        path, **MUSIC, data__valid=str(path), training__epochs=60, optimizer__lr=0.05,
        model__hidden_size=16, model__input="one-hot", training__valid_every_steps=30,
        training__precision="float32",
    )  # fmt: skip
    scores = [event.score for event in run(config, tmp_path / "run") if hasattr(event, "score")]
    assert scores[-1] < 0.3
    loaded = load_music_model(tmp_path / "run")
    result = measure(loaded.model, read_music(path).pieces, Run())
    assert result.nats_per_frame == pytest.approx(min(scores), rel=1e-4)
    assert result.accuracy > 0.95


SETTINGS: dict[str, dict[str, Any]] = {
    "whole pieces": {},
    "parts, every noise, moved up and down": {
        "training__bptt": 4, "regularization__dropout": 0.3, "regularization__locked": True,
        "regularization__dropout_embedding": 0.2, "regularization__weight_noise": 0.05,
        "model__layers": 2, "data__transpose": 5,
    },
    "parts of variable length, weighted, learned start": {
        "training__bptt": 6, "training__bptt_variable": True, "data__weights": [1.5],
        "model__initial_state": "learned", "model__cell": "gru", "optimizer__averaging": "ema",
        "regularization__dropout": 0.3, "regularization__r_drop": 2.0,
    },
}  # fmt: skip


@pytest.mark.parametrize("name", SETTINGS)
def test_stopped_and_resumed_is_never_stopped(
    name: str, tunes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tiny_config(tunes, **{**MUSIC, **SETTINGS[name], "training__epochs": 2})
    events = run(config, tmp_path / "whole")
    steps = events[0].steps_an_epoch  # type: ignore[union-attr]
    assert steps >= 5
    folder = tmp_path / "stopped"
    for step, action, error in (
        (2, send(signal.SIGTERM), Terminated),
        (4, kill, Killed),
        (steps + 3, send(signal.SIGTERM), Terminated),
    ):
        with monkeypatch.context() as patch:
            at_step(patch, step, action)
            with pytest.raises(error):
                run(config, folder, resume=folder.exists())
    run(config, folder, resume=True)
    assert_same_state(tmp_path / "whole", folder)
    sha = [read_header(tmp_path / where).weights_sha256 for where in ("whole", "stopped")]
    assert sha[0] == sha[1]
    with pytest.raises(DataError, match="the training text has changed"):
        write_music(tunes, seed=2)
        run(config.with_values({"training.epochs": 3}), folder, resume=True)


def test_two_passes_of_one_layer_differ_by_what_it_reads_and_gives(tunes: Path) -> None:
    none = {"regularization__dropout_input": 0.0, "regularization__dropout_output": 0.0}
    config = tiny_config(
        tunes, **MUSIC, **none, regularization__dropout=0.3, regularization__r_drop=1.0
    )
    with pytest.raises(UsageError, match="both passes are the same"):
        opened(config)
    opened(config.with_values({"model.layers": 2}))


def test_losses_are_counted_in_frames(tunes: Path, tmp_path: Path) -> None:
    """The parts of an epoch hold every frame once, and the log says nats a frame."""
    for bptt in (0, 4):
        config = tiny_config(tunes, **{**MUSIC, "training__bptt": bptt, "training__epochs": 1})
        task = opened(config)
        task.begin_epoch(0)
        losses = []
        for piece in range(task.pieces):
            losses.append(task.loss(piece, sampled=False))
            task.accept(carry=True)
        total = sum(loss.nats * loss.tokens for loss in losses)
        assert sum(loss.tokens for loss in losses) == task.train_tokens
        pieces = [piece for music in [read_music(tunes)] for piece in music.pieces][:-2]
        assert total == pytest.approx(measure(task.model, pieces, task.run_as).nats, rel=1e-5)
    events = run(config, tmp_path / "run")
    assert events[0].quantity.unit == "frame"  # type: ignore[union-attr]
    assert events[0].valid_tokens == sum(map(len, read_music(tunes).pieces[-2:]))  # type: ignore[union-attr]
    assert all("perplexity" not in str(line) for line in metrics(tmp_path / "run"))
    sample = next(e["text"] for e in metrics(tmp_path / "run") if e["event"] == "Sample")
    assert len(parse_piece(sample, "")) == 16


def test_a_model_without_a_tokenizer(tunes: Path, tmp_path: Path) -> None:
    config = tiny_config(tunes, **{**MUSIC, "training__epochs": 1})
    run(config, tmp_path / "run")
    saved = read_model(tmp_path / "run")
    assert saved.tokenizer is None and saved.config == config
    assert list(saved.header.scores) == ["valid_nats"]
    loaded = load_music_model(tmp_path / "run")
    assert all(
        torch.equal(saved.weights[name], weight)
        for name, weight in loaded.model.state_dict().items()
    )
    with pytest.raises(UsageError, match=r"run is a model for --task music; this needs a language"):
        load_language_model(tmp_path / "run")


def test_an_epoch_is_the_same_for_a_seed_and_moves_what_it_is_told(tunes: Path) -> None:
    plain, moved = (
        opened(tiny_config(tunes, **MUSIC)),
        opened(tiny_config(tunes, **MUSIC, data__transpose=3)),
    )
    assert epoch_of(plain, 0) == epoch_of(plain, 1)  # only their order differs
    orders = [[b.tolist() for b in (plain.begin_epoch(e), plain._batches)[1]] for e in (0, 1, 0)]
    assert orders[0] == orders[2] != orders[1]
    first, second = epoch_of(moved, 0), epoch_of(moved, 1)
    again = epoch_of(moved, 0)
    assert all(map(np.array_equal, first, again))
    assert not all(map(np.array_equal, first, second))
    moves = set()
    for before, after in zip(epoch_of(plain, 0), first, strict=True):
        steps = {
            int(b) - int(a)
            for x, y in zip(before, after, strict=True)
            for a, b in zip(np.flatnonzero(x), np.flatnonzero(y), strict=True)
        }
        assert len(steps) == 1
        moves |= steps
    assert {-3, 3} < moves <= set(range(-3, 4))


def test_weights_repeat_pieces(tunes: Path, tmp_path: Path) -> None:
    other = write_music(tmp_path / "other.txt", pieces=10, seed=9)
    config = tiny_config(tunes, **MUSIC, data__valid=str(other)).with_values(
        {"data.train": [str(tunes), str(other)], "data.weights": [2.0, 0.5]}
    )
    chosen = [format_piece(piece) for piece in epoch_of(opened(config), 0)]
    lines = [path.read_text().splitlines() for path in (tunes, other)]
    spelled = [[format_piece(parse_piece(line, "")) for line in part] for part in lines]
    assert sorted(chosen[:48]) == sorted(spelled[0] * 2)
    assert len(chosen) == 53 and set(chosen[48:]) < set(spelled[1])
    with pytest.raises(DataError, match="nothing to train on"):
        epoch_of(opened(config.with_values({"data.weights": [0.0, 0.0]})), 0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"training__state": "carried", "training__bptt": 9}, "training.state: 'carried' is for"),
        ({"training__sampled_softmax": 5}, "training.sampled_softmax: music has no vocabulary"),
        ({"model__direction": "bidirectional"}, "model.direction: with 'bidirectional'"),
        ({"training__engine": "scan"}, "training.engine: 'scan' does not run"),
    ],
)
def test_settings_that_music_cannot_have(change: dict[str, Any], message: str, tunes: Path) -> None:
    with pytest.raises(UsageError, match=message):
        opened(tiny_config(tunes, **{**MUSIC, **change}))
    with pytest.raises(UsageError, match=r"data.transpose: only music is moved"):
        tiny_config(tunes, data__transpose=1)


def test_errors_name_the_file_and_the_line(tunes: Path, tmp_path: Path) -> None:
    tunes.write_text("60 62\n60 620\n")
    with pytest.raises(DataError, match=re.escape(f"{tunes}:2: frame 2, '620': 620 is no key")):
        opened(tiny_config(tunes, **MUSIC))


def test_defaults_fit_the_data_and_what_was_given(tunes: Path) -> None:
    data = Config().with_values({"data.train": [str(tunes)]}).data
    values, reasons = choose(data, {"task": "music"})
    config = Config().with_values({**values, "task": "music", "data.train": [str(tunes)]})
    assert opened(config).pieces == 0  # what was chosen can be run
    assert config.training.epochs and config.training.max_seconds and reasons
    fixed = {"task": "music", "model.hidden_size": 7, "training.max_steps": 3}
    values, _ = choose(data, fixed)
    assert not set(values) & set(fixed) and "training.max_seconds" not in values
    with pytest.raises(UsageError, match=r"tokenizer\.kind: music is notes"):
        choose(data, {"task": "music", "tokenizer.kind": "char"})

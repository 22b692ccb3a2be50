"""Kill training with SIGKILL at random moments, many times, and see that nothing is lost.

    python benchmarks/kill.py [--kills 1000] [--seed 1] [--folder DIR]

Each run is a process of its own, forked from one that has torch loaded and never computes; it saves
after every step, so that kills fall into all kinds of writes, and lives for at most half of what a
whole run takes. After each kill the folder must load
as a model and be able to go on; at the end of each run its weights, and its whole state, must be
those of a run that was never killed. Exit code 1 and the folder's name when one is not.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import random
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path

import torch

from rnncli.checkpoint import MODEL_FILE, TRAINING_FILE, read_header, read_training_state
from rnncli.config import Config
from rnncli.loading import load_language_model
from rnncli.training.run import train
from rnncli.training.run_folder import METRICS_FILE

STEPS = 60
WORDS = ("the", "a", "river", "boat", "night", "went", "came", "slowly", "home", "and", "under")
SETTINGS: tuple[dict[str, object], ...] = (
    {"regularization.dropout": 0.2},
    {"optimizer.name": "sgd", "optimizer.momentum": 0.9, "schedule.name": "newbob"},
    {"optimizer.averaging": "ema", "training.state": "reset"},
    {"training.sampled_softmax": 8, "training.bptt_variable": True},
)


def configure(text: Path, seed: int) -> Config:
    return Config().with_values(
        {
            "seed": seed,
            "data.train": [str(text)],
            "model.layers": 1,
            "model.hidden_size": 24,
            "model.embedding_size": 16,
            "training.max_steps": STEPS,
            "training.batch_size": 4,
            "training.bptt": 20,
            "training.threads": 1,
            "training.valid_every_steps": 7,
            "training.save_every_seconds": 1e-9,
            **SETTINGS[seed % len(SETTINGS)],
        }
    )


def in_child(action: Callable[[], object]) -> int:
    """Start ``action`` in a forked process; returns its number."""
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        action()
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


def wait(child: int) -> int:
    """The exit code, or minus the signal."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def whole_run(config: Config, folder: Path, *, resume: bool) -> None:
    for _ in train(config, folder, resume=resume):
        pass


def kill_once(config: Config, folder: Path, seconds: float) -> bool:
    """Run on for at most ``seconds``; whether the run was killed before its end."""
    resume = (folder / MODEL_FILE).exists()
    child = in_child(lambda: whole_run(config, folder, resume=resume))
    limit = time.monotonic() + seconds
    while time.monotonic() < limit:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            if os.waitstatus_to_exitcode(status):
                raise SystemExit(f"{folder}: the run failed by itself")
            return False
        time.sleep(0.001)
    os.kill(child, signal.SIGKILL)
    return wait(child) == -signal.SIGKILL


def check_after_kill(folder: Path) -> str:
    """That the folder can be used; returns where the kill fell."""
    if not (folder / MODEL_FILE).exists():
        return "before the first model"
    load_language_model(folder)
    if not (folder / TRAINING_FILE).exists():
        assert read_header(folder).provenance["step"] == 0
        return "before the first state"
    read_training_state(folder / TRAINING_FILE)
    return "in a write" if list(folder.glob(".rnncli-*.tmp")) else "elsewhere"


def check_end(folder: Path, whole: Path) -> None:
    """That the run ended as the one that was never killed. Raises SystemExit with the folder."""
    try:
        _compare(folder, whole)
    except AssertionError as error:
        raise SystemExit(f"{folder}, beside {whole}: {error}") from None


def _compare(folder: Path, whole: Path) -> None:
    assert read_header(folder).weights_sha256 == read_header(whole).weights_sha256, "weights"
    tensors, values = read_training_state(folder / TRAINING_FILE)
    others, other_values = read_training_state(whole / TRAINING_FILE)
    for name in ("seconds", "valid_seconds", "metrics_bytes"):
        del values[name], other_values[name]
    assert values == other_values, "values"
    assert tensors.keys() == others.keys(), "names of tensors"
    assert all(torch.equal(tensor, others[name]) for name, tensor in tensors.items()), "tensors"
    lines = [json.loads(line) for line in (folder / METRICS_FILE).read_bytes().splitlines()]
    validated = [line["step"] for line in lines if line["event"] == "EvalReport"]
    assert validated == sorted(set(validated)), "validations recorded twice"
    assert not list(folder.glob(".rnncli-*.tmp")), "temporary files"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--kills", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--folder", type=Path, help="where the runs go; else a temporary folder")
    options = parser.parse_args()
    torch.set_num_threads(1)
    rng = random.Random(options.seed)
    with tempfile.TemporaryDirectory() as temporary:
        root = options.folder or Path(temporary)
        root.mkdir(parents=True, exist_ok=True)
        text = root / "text.txt"
        text.write_text("".join(f"{' '.join(rng.choices(WORDS, k=8))}\n" for _ in range(60)))
        places: dict[str, int] = {}
        began, kills, runs = time.monotonic(), 0, 0
        while kills < options.kills:
            runs += 1
            config = configure(text, runs)
            folder, whole = root / f"{runs}", root / f"{runs}-whole"
            started = time.monotonic()
            if wait(in_child(lambda c=config, f=whole: whole_run(c, f, resume=False))):
                raise SystemExit(f"{whole}: failed")
            longest_life = (time.monotonic() - started) / 2
            while kill_once(
                config,
                folder,
                rng.uniform(0, longest_life) if kills < options.kills else math.inf,
            ):
                kills += 1
                where = check_after_kill(folder)
                places[where] = places.get(where, 0) + 1
                if kills % 100 == 0:
                    print(f"{kills} kills, {time.monotonic() - began:.0f} s", file=sys.stderr)
            check_end(folder, whole)
    found = ", ".join(f"{count} {where}" for where, count in sorted(places.items()))
    print(f"{kills} kills in {runs} runs, all resumed to the same weights: {found}")


if __name__ == "__main__":
    main()

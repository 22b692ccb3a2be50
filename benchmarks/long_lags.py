"""At which lag each recurrence and each remedy for vanishing gradients still learns.

    python benchmarks/long_lags.py                 # cells: some 20 minutes on two cores
    python benchmarks/long_lags.py --remedies      # what helps a simple network: as long
    python benchmarks/long_lags.py --tasks recall parity --seeds 1 2 3
    python benchmarks/long_lags.py --quick         # a minute: is everything in order?

Every attempt is a run of ``rnncli train --task synthetic:NAME --lag N`` with the settings printed
first, ended when 99 % of 1,000 new sequences are answered right or after ``--updates``. Lags go up
until one is not learned. Prints a line for each attempt, and in the end a table of the largest lag
that was learned, with the updates it took; of several seeds the largest lag of each. Two processes
with a thread each share the work.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import math
import multiprocessing
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

COMMON: dict[str, Any] = {
    "model.layers": 1,
    "model.hidden_size": 64,
    "optimizer.name": "adam",
    "optimizer.lr": 1e-3,
    "optimizer.beta2": 0.999,
    "optimizer.clip_norm": 1.0,
    "schedule.name": "constant",
    "training.batch_size": 20,
    "training.epochs": 0,
    "training.state": "reset",
    "training.bptt": 0,
    "training.precision": "float32",
    "training.threads": 1,
    "training.save_every_seconds": 0.0,
}

PLAIN: dict[str, Any] = {
    "model.cell": "elman",
    "model.init": "normal",
    "model.init_scale": 0.1,
    "model.recurrent_init": "normal",
    "model.recurrent_scale": 0.1,
}
"""tanh units whose weights start from N(0, 0.1^2): the simple network of Pascanu et al. 2013,
sec. 4.1 ("basic tanh"). Ours starts orthogonal unless told otherwise, which is a remedy."""

ORTHOGONAL = {**PLAIN, "model.recurrent_init": "orthogonal", "model.recurrent_scale": 1.0}

CELLS: dict[str, dict[str, Any]] = {
    "Elman": {**PLAIN, "optimizer.clip_norm": 0.0},
    "Elman + clipping": PLAIN,
    "Elman + clipping + Omega": {**PLAIN, "regularization.omega": 1.0},
    "IRNN": {"model.cell": "irnn"},
    "LSTM": {"model.cell": "lstm", "model.forget_bias": "log(lag)"},
    "LSTM, forget bias 1": {"model.cell": "lstm"},
    "GRU": {"model.cell": "gru"},
    "minGRU": {"model.cell": "mingru"},
    "echo state": {"model.cell": "echo-state", "model.hidden_size": 256},
}

REMEDIES: dict[str, dict[str, Any]] = {
    "none": {**PLAIN, "optimizer.clip_norm": 0.0},
    "norm clipped at 1": PLAIN,
    "components clipped at 0.01": {
        **PLAIN, "optimizer.clip_norm": 0.0, "optimizer.clip_value": 0.01,
    },
    "orthogonal start": ORTHOGONAL,
    "orthogonal start, radius 0.95": {**ORTHOGONAL, "model.spectral_radius": 0.95},
    "identity start": {**PLAIN, "model.recurrent_init": "identity", "model.recurrent_scale": 1.0},
    "sparse start, radius 0.95": {
        **PLAIN, "model.recurrent_init": "sparse", "model.recurrent_connections": 15,
        "model.recurrent_scale": 1.0, "model.spectral_radius": 0.95,
    },
    "small start": {**PLAIN, "model.recurrent_scale": 0.01},
    "L1 1e-4 on W_hh": {**PLAIN, "regularization.recurrent_l1": 1e-4},
    "L2 1e-3 on W_hh": {**PLAIN, "regularization.recurrent_l2": 1e-3},
    "W_hh fixed, orthogonal": {**ORTHOGONAL, "model.frozen": ["W_hh"]},
    "Omega 1": {**PLAIN, "regularization.omega": 1.0},
    "Omega 1, orthogonal start": {**ORTHOGONAL, "regularization.omega": 1.0},
}  # fmt: skip
"""All but the first and the third with the norm clipped at 1, as ``COMMON`` says."""


@dataclass(frozen=True)
class Attempt:
    task: str
    model: str
    seed: int
    lag: int
    solved_step: int | None
    steps: int
    success: float
    seconds: float

    def line(self) -> str:
        outcome = "not learned" if self.solved_step is None else f"solved at {self.solved_step:,}"
        return (
            f"{self.task:7s} {self.model:28s} seed {self.seed} lag {self.lag:5d}  {outcome:16s} "
            f"success {self.success:.3f} after {self.steps:,} updates, {self.seconds:.0f} s"
        )


def attempt(
    task: str, model: str, settings: dict[str, Any], lag: int, updates: int, seed: int
) -> Attempt:
    from rnncli.config import Config
    from rnncli.training.events import EvalReport, Finished
    from rnncli.training.loop import Diverged
    from rnncli.training.run import train

    if settings.get("model.forget_bias") == "log(lag)":  # as the command chooses it
        settings = {**settings, "model.forget_bias": round(math.log(lag), 2)}
    config = Config().with_values(
        {
            **COMMON, **settings, "task": f"synthetic:{task}", "synthetic.lag": lag, "seed": seed,
            "training.max_steps": updates,
        }
    )  # fmt: skip
    began, success, solved, steps = time.perf_counter(), 0.0, None, 0
    with tempfile.TemporaryDirectory() as folder:
        try:
            for event in train(config, Path(folder) / "run"):
                if isinstance(event, EvalReport):
                    success, steps = max(success, event.scores["success"]), event.step
                elif isinstance(event, Finished):
                    solved, steps = event.solved_step, event.step
        except Diverged as error:
            print(f"{task} {model} seed {seed} lag {lag}: {error}", file=sys.stderr, flush=True)
    seconds = time.perf_counter() - began
    return Attempt(task, model, seed, lag, solved, steps, success, seconds)


def climb(
    task: str, model: str, settings: dict[str, Any], lags: list[int], updates: int, seed: int
) -> list[Attempt]:
    """One lag after the other, as long as they are learned."""
    found: list[Attempt] = []
    for lag in lags:
        found.append(attempt(task, model, settings, lag, updates, seed))
        print(found[-1].line(), flush=True)
        if found[-1].solved_step is None:
            break
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tasks", nargs="+", default=["order", "adding"])
    parser.add_argument("--lags", nargs="+", type=int, default=[10, 20, 50, 100, 200])
    parser.add_argument("--updates", type=int, default=5000)
    parser.add_argument("--seeds", nargs="+", type=int, default=[1])
    parser.add_argument("--only", nargs="+", help="rows of the table")
    parser.add_argument("--remedies", action="store_true", help="remedies, on the order task")
    parser.add_argument("--quick", action="store_true", help="short lags, few updates")
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    models = REMEDIES if options.remedies else CELLS
    tasks = ["order"] if options.remedies else options.tasks
    lags, updates = options.lags, options.updates
    if options.quick:
        lags, updates = [10, 20], 300
    chosen = {name: models[name] for name in options.only or models}
    print("settings: " + ", ".join(f"{name}={value}" for name, value in COMMON.items()))
    for name, settings in chosen.items():
        print(f"  {name}: " + ", ".join(f"{key}={value}" for key, value in settings.items()))
    print(f"lags {lags}, at most {updates:,} updates, seeds {options.seeds}", flush=True)
    began = time.perf_counter()
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(options.workers, mp_context=context) as pool:
        jobs = {
            (task, name, seed): pool.submit(climb, task, name, settings, lags, updates, seed)
            for seed in options.seeds
            for name, settings in chosen.items()
            for task in tasks
        }
        results = {key: job.result() for key, job in jobs.items()}
    print(f"\n{(time.perf_counter() - began) / 60:.1f} minutes\n")
    of_each = "largest lag (updates)" if len(options.seeds) == 1 else "largest lag of each seed"
    print("| | " + " | ".join(f"{task}: {of_each}" for task in tasks) + " |")
    print("|---|" + "---|" * len(tasks))
    for name in chosen:
        cells = [
            best([results[task, name, seed] for seed in options.seeds], lags) for task in tasks
        ]
        print(f"| {name} | " + " | ".join(cells) + " |")


def best(climbs: list[list[Attempt]], lags: list[int]) -> str:
    """The largest lag that was learned: ``"100 (1,200)"``, ``">= 200 (900)"``, ``"< 10"``; of
    several seeds without the updates: ``"50, 100, >= 200"``."""
    found = []
    for attempts in climbs:
        learned = [a for a in attempts if a.solved_step is not None]
        if not learned:
            found.append(f"< {lags[0]}")
            continue
        last = learned[-1]
        updates = f" ({last.solved_step:,})" if len(climbs) == 1 else ""
        found.append(f"{'>= ' if last.lag == lags[-1] else ''}{last.lag}{updates}")
    return ", ".join(found)


if __name__ == "__main__":
    main()

"""A good configuration for music that nobody has tuned for."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rnncli.errors import UsageError
from rnncli.sections import DataConfig
from rnncli.text.lines import CHUNK_BYTES, Source
from rnncli.training.defaults import LEARNING_RATES, fixes_weight

DEFAULT_SECONDS = 300.0
STEPS = 8700
"""So many updates leave little to gain, and a model of music that learns longer has overfitted."""

EPOCHS = (40, 300)


@dataclass(frozen=True)
class _Restraint:
    """What holds a model back that sees up to so many frames an epoch."""

    frames: float
    dropout: float
    weight_drop: float
    weight_noise: float
    lr: float


_RESTRAINTS = (
    _Restraint(50_000, 0.55, 0.55, 0.075, 1e-2),  # found on JSB chorales, 14,000 frames
    _Restraint(400_000, 0.3, 0.2, 0.02, 6e-3),  # on Nottingham, 176,000
    _Restraint(math.inf, 0.2, 0.0, 0.0, 6e-3),
)


def choose(data: DataConfig, fixed: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Values for every setting that matters and is not in ``fixed``, and the reasons.

    ``fixed``: dotted names that the user has set. Raises FileError for a file that cannot be read,
    UsageError for a setting that music does not have.
    """
    for name in fixed:
        if name.startswith("tokenizer."):
            raise UsageError(f"{name}: music is notes and needs no tokenizer; leave it out")
    frames, pieces = map(sum, zip(*map(_count, data.train), strict=True))
    batch = int(fixed.get("training.batch_size") or 4)
    optimizer = str(fixed.get("optimizer.name", "adamw"))
    held = next(row for row in _RESTRAINTS if frames <= row.frames)
    rate = float(fixed.get("regularization.dropout", held.dropout))
    share = rate / held.dropout
    fixes = fixes_weight(fixed, "W_hh")  # without connections it is another network
    weight_drop = 0.0 if fixes else held.weight_drop
    values: dict[str, Any] = {
        "model.layers": 1,
        "model.hidden_size": 320,
        "model.input": "one-hot",
        "regularization.dropout": rate,
        "regularization.dropout_input": round(0.4 * rate, 3),
        "regularization.locked": True,
        "regularization.weight_drop": round(min(0.8, weight_drop * share), 3),
        "regularization.weight_noise": held.weight_noise if rate else 0.0,
        "optimizer.lr": LEARNING_RATES.get(optimizer, held.lr),
        "training.state": "reset",
        "training.bptt": 0,
        "training.batch_size": batch,
    }
    reasons = [f"data: about {pieces:,} pieces, {frames:,} frames"]
    if "regularization.dropout" not in fixed:
        reasons.append(f"regularisation: dropout {rate:g}; the fewer frames, the more of it")
    given = ("training.epochs", "training.max_steps", "training.max_seconds")
    if not any(fixed.get(name) for name in given[:2]):
        low, high = EPOCHS
        epochs = min(max(math.ceil(STEPS * batch / max(1, pieces)), low), high)
        values["training.epochs"] = epochs
        limit = ""
        if not fixed.get(given[2]):
            values["training.max_seconds"] = DEFAULT_SECONDS
            limit = f", {DEFAULT_SECONDS / 60:g} minutes at most"
        reasons.append(f"time: {epochs} epochs{limit} (--epochs, --max-time)")
    elif "training.epochs" not in fixed:
        values["training.epochs"] = 0
    return {name: value for name, value in values.items() if name not in fixed}, reasons


def _count(path: str) -> tuple[int, int]:
    """About how many frames a file has, and pieces: its spaces and lines, and its lines."""
    spaces = lines = 0
    with Source.of(path).open() as stream:
        while block := stream.read(CHUNK_BYTES):
            spaces += block.count(b" ")
            lines += block.count(b"\n")
    return spaces + lines, lines

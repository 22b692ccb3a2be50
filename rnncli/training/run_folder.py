"""A run's folder: model.safetensors (the best), training.safetensors (to go on from), config.toml,
metrics.jsonl. Each file is written whole or not at all; metrics.jsonl only grows."""

from __future__ import annotations

import json
import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor

from rnncli.checkpoint import (
    MODEL_FILE,
    TRAINING_FILE,
    read_header,
    read_training_state,
    write_model,
    write_training_state,
)
from rnncli.config import Config, load_toml
from rnncli.errors import DataError, FileError, UsageError
from rnncli.files import write_atomically
from rnncli.text.tokenizers import Tokenizer, tokenizer_from_bytes
from rnncli.training.events import Event, record
from rnncli.training.optimizers import optimizer_tensors, restore_optimizer

if TYPE_CHECKING:
    from rnncli.training.loop import _Loop

CONFIG_FILE = "config.toml"
METRICS_FILE = "metrics.jsonl"
E_ = TypeVar("E_", bound=Event)


def read_run_config(folder: Path) -> Config:
    """The configuration of the run in ``folder``. Raises FileError when there is none."""
    return Config.from_dict(load_toml(folder / CONFIG_FILE))


@dataclass(frozen=True)
class SavedRun:
    """What ``training.safetensors`` holds."""

    path: Path
    tensors: dict[str, Tensor]
    values: dict[str, Any]

    def tokenizer(self) -> Tokenizer:
        data = bytes(self.tensors["text.tokenizer"].numpy())
        return tokenizer_from_bytes(self.values["tokenizer_kind"], data)

    def part(self, prefix: str) -> dict[str, Tensor]:
        """The tensors whose names begin with ``prefix``, without it."""
        start = f"{prefix}."
        return {
            name.removeprefix(start): tensor
            for name, tensor in self.tensors.items()
            if name.startswith(start)
        }

    def restore(self, loop: _Loop) -> None:
        """Put everything back into a fresh loop."""
        values = self.values
        if values["fingerprints"] != loop.place.fingerprints:
            raise DataError(
                "--resume: the training text has changed since the run was saved; "
                "restore it, or start a new run with another --out"
            )
        loop.model.load_state_dict(self.part("model"))
        restore_optimizer(loop.optimizer, self.part("optimizer"))
        shadow = self.part("average")
        loop.averaging.restore(
            [shadow[f"{k}"] for k in range(len(shadow))],
            values["average_steps"],
            values["average_scores"],
        )
        loop.step, loop.epoch, loop.piece = values["step"], values["epoch"], values["piece"]
        loop.skipped, loop.nonfinite_run = values["skipped"], values["nonfinite_run"]
        loop.stale, loop.schedule.decays = values["stale"], values["decays"]
        loop.best = math.inf if values["best"] is None else values["best"]
        loop.seconds_before, loop.valid_seconds = values["seconds"], values["valid_seconds"]
        loop.began = time.monotonic()
        loop.task.begin_epoch(loop.epoch)
        loop.task.restore(self.part("carried"))
        loop.place.cut_metrics(values["metrics_bytes"])
        torch.set_rng_state(self.tensors["rng.cpu"])
        if torch.cuda.is_available() and "rng.cuda" in self.tensors:
            torch.cuda.set_rng_state(self.tensors["rng.cuda"])


class RunFolder:
    """The files of one run; the caller holds its lock."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.fingerprints: list[str] = []
        self._metrics_bytes = 0

    def prepare(self, config: Config, *, resume: bool, overwrite: bool) -> None:
        """Make the folder ready: nothing of another run is overwritten unless that was asked for."""
        there = [n for n in (MODEL_FILE, TRAINING_FILE) if (self.folder / n).exists()]
        if there and not (resume or overwrite):
            raise UsageError(
                f"--out {self.folder} already holds a run ({there[0]}); "
                "--resume goes on with it, --overwrite replaces it, or give another folder"
            )
        if not resume:
            for name in (TRAINING_FILE, MODEL_FILE, METRICS_FILE):
                try:
                    (self.folder / name).unlink(missing_ok=True)
                except OSError as error:
                    raise FileError.of("remove", self.folder / name, error) from None
        write_atomically(self.folder / CONFIG_FILE, [config.to_toml().encode()])

    def read_training_state(self) -> SavedRun | None:
        """What to go on from; None when the run was stopped before it saved anything."""
        path = self.folder / TRAINING_FILE
        if not path.exists():
            return None
        return SavedRun(path, *read_training_state(path))

    def write_model(self, loop: _Loop, scores: dict[str, float]) -> None:
        write_model(
            self.folder / MODEL_FILE,
            config=loop.config,
            tokenizer=loop.task.tokenizer,
            weights=loop.model.state_dict(),
            scores=scores,
            provenance={
                "step": loop.step,
                "epochs": round(loop.epochs_done, 4),
                "train_sha256": self.fingerprints,
                "train_tokens": loop.task.train_tokens,
                "torch": torch.__version__,
            },
        )

    def weights_sha256(self) -> str:
        return read_header(self.folder / MODEL_FILE).weights_sha256

    def write_training_state(self, loop: _Loop) -> None:
        tokenizer = loop.task.tokenizer
        tensors: dict[str, Tensor] = {
            "rng.cpu": torch.get_rng_state(),
            "text.tokenizer": torch.frombuffer(bytearray(tokenizer.to_bytes()), dtype=torch.uint8),
        }
        if torch.cuda.is_available():
            tensors["rng.cuda"] = torch.cuda.get_rng_state()
        for prefix, part in (
            ("model", loop.model.state_dict()),
            ("optimizer", optimizer_tensors(loop.optimizer)),
            ("average", {f"{k}": s for k, s in enumerate(loop.averaging.shadow)}),
            ("carried", loop.task.tensors()),
        ):
            tensors |= {f"{prefix}.{name}": tensor for name, tensor in part.items()}
        values = {
            "tokenizer_kind": tokenizer.kind,
            "fingerprints": self.fingerprints,
            "step": loop.step,
            "epoch": loop.epoch,
            "piece": loop.piece,
            "skipped": loop.skipped,
            "nonfinite_run": loop.nonfinite_run,
            "best": loop.best if math.isfinite(loop.best) else None,
            "stale": loop.stale,
            "decays": loop.schedule.decays,
            "average_steps": loop.averaging.steps,
            "average_scores": loop.averaging.scores,
            "seconds": loop.seconds,
            "valid_seconds": loop.valid_seconds,
            "metrics_bytes": self._metrics_bytes,
        }
        write_training_state(self.folder / TRAINING_FILE, tensors=tensors, values=values)

    # -- metrics -----------------------------------------------------------------------------

    def record(self, event: E_) -> E_:
        """Append ``event`` to metrics.jsonl, and return it."""
        line = json.dumps(record(event), ensure_ascii=False).encode() + b"\n"
        path = self.folder / METRICS_FILE
        try:
            with path.open("ab") as file:
                file.write(line)
        except OSError as error:
            raise FileError.of("write", path, error) from None
        self._metrics_bytes += len(line)
        return event

    def cut_metrics(self, size: int) -> None:
        """Drop what was recorded after the state that the run goes on from."""
        path = self.folder / METRICS_FILE
        try:
            data = path.read_bytes() if path.exists() else b""
            if len(data) > size:
                write_atomically(path, [data[:size]])
        except OSError as error:
            raise FileError.of("write", path, error) from None
        self._metrics_bytes = min(size, len(data))

"""A run's folder: model.safetensors (the best), model-STEP.safetensors (those of the last
validations, if they are kept), training.safetensors (to go on from), config.toml, metrics.jsonl.
Each file is written whole or not at all; metrics.jsonl only grows."""

from __future__ import annotations

import json
import math
import os
import re
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
    unlike_weight,
    write_model,
    write_training_state,
)
from rnncli.config import Config, load_toml
from rnncli.errors import DataError, FileError, ModelError, UsageError
from rnncli.files import append, write_atomically
from rnncli.text.tokenizers import Tokenizer, tokenizer_from_bytes
from rnncli.training.events import Event, record

if TYPE_CHECKING:
    from rnncli.training.loop import Loop
    from rnncli.training.task import Task

CONFIG_FILE = "config.toml"
METRICS_FILE = "metrics.jsonl"
_KEPT_FILE = re.compile(r"model-(\d{8,})\.safetensors")
E_ = TypeVar("E_", bound=Event)

MAY_CHANGE = frozenset(
    {
        "data.train",  # where the text is; that it is the same is seen by its fingerprint
        "data.valid",
        "data.source",
        "data.target",
        "data.valid_source",
        "data.valid_target",
        "training.epochs",
        "training.max_steps",
        "training.max_seconds",
        "training.patience",
        "training.keep_models",
        "training.save_every_seconds",
        "training.threads",
    }
)
"""What a run may be resumed with another value of."""


def read_run_config(folder: Path) -> Config:
    """The configuration of the run in ``folder``. Raises FileError when there is none."""
    if not (folder / CONFIG_FILE).exists():
        raise FileError(
            f"{folder} holds no run to resume: there is no {CONFIG_FILE} in it; "
            "expected the folder of a run (rnncli train --out)"
        )
    return Config.from_dict(load_toml(folder / CONFIG_FILE))


def refuse_changes(before: Config, after: Config, folder: Path) -> None:
    """Raise UsageError when a run in ``folder`` that began with ``before`` cannot go on with
    ``after``."""
    old, new = flat(before.to_dict()), flat(after.to_dict())
    for name in (*new, *old):
        if old.get(name) != new.get(name) and name not in MAY_CHANGE:
            raise UsageError(
                f"--resume cannot change {name} ({_shown(old, name)} in {folder}, "
                f"{_shown(new, name)} given); start a new run with another --out"
            )


def flat(values: dict[str, Any], where: str = "") -> dict[str, Any]:
    """Nested sections as dotted names."""
    found: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, dict):
            found |= flat(value, f"{where}{name}.")
        else:
            found[f"{where}{name}"] = value
    return found


def _shown(values: dict[str, Any], name: str) -> str:
    return repr(values[name]) if name in values else "none"


@dataclass(frozen=True)
class SavedRun:
    """What ``training.safetensors`` holds."""

    path: Path
    tensors: dict[str, Tensor]
    values: dict[str, Any]

    def require_same(self, config: Config) -> None:
        """Raise UsageError when the run cannot go on as ``config`` says."""
        refuse_changes(Config.from_dict(self.values["config"]), config, self.path.parent)

    def precision(self, config: Config) -> str:
        """The one that the run began with: what ``auto`` means is measured, and must not change."""
        return str(self.values.get("precision", config.training.precision))

    @property
    def engine(self) -> str | None:
        """The one that the run began with, for what "measured" was then."""
        found = self.values.get("engine")
        return None if found is None else str(found)

    def tokenizers(self) -> tuple[Tokenizer, ...]:
        """That of the run, and that of a source with a vocabulary of its own; none without text."""
        found = []
        for name in ("tokenizer", "source_tokenizer"):
            if f"text.{name}" in self.tensors:
                data = bytes(self.tensors[f"text.{name}"].numpy())
                found.append(tokenizer_from_bytes(self.values[f"{name}_kind"], data))
        return tuple(found)

    def part(self, prefix: str) -> dict[str, Tensor]:
        """The tensors whose names begin with ``prefix``, without it."""
        start = f"{prefix}."
        return {
            name.removeprefix(start): tensor
            for name, tensor in self.tensors.items()
            if name.startswith(start)
        }

    def restore(self, loop: Loop) -> None:
        """Put everything back into a fresh loop. Raises DataError when its text is another one."""
        values = self.values
        for what in ("train_sha256", "valid_sha256"):
            if values[what] != getattr(loop.place, what):
                name = "training" if what == "train_sha256" else "validation"
                raise DataError(
                    f"--resume: the {name} text has changed since the run in {self.path.parent} "
                    "was saved; restore it, or start a new run with another --out"
                )
        weights = self.part("model")
        if unlike := unlike_weight(loop.model.state_dict(), weights):
            raise ModelError(
                f"{self.path}: its weight {unlike[0]} is not this version's, and another version "
                "of rnncli wrote it; resume with that version, or start a new run with another "
                "--out"
            )
        loop.model.load_state_dict(weights)
        loop.optimizer.restore(self.part("optimizer"))
        shadow = self.part("average")
        loop.averaging.restore(
            [shadow[f"{k}"] for k in range(len(shadow))],
            values["average_steps"],
            values["average_scores"],
        )
        loop.step, loop.epoch, loop.piece = values["step"], values["epoch"], values["piece"]
        loop.resumed_step, loop.validated_step = values["step"], values["validated_step"]
        loop.solved_step = values.get("solved_step")
        loop.skipped, loop.nonfinite_run = values["skipped"], values["nonfinite_run"]
        loop.stale, loop.schedule.decays = values["stale"], values["decays"]
        loop.best = math.inf if values["best"] is None else values["best"]
        loop.best_nats = math.inf if values.get("best_nats") is None else values["best_nats"]
        loop.seconds_before, loop.valid_seconds = values["seconds"], values["valid_seconds"]
        loop.began = time.monotonic()
        loop.task.begin_epoch(loop.epoch)
        loop.task.restore(self.part("carried"))
        loop.place.cut_metrics(values["metrics_bytes"])
        loop.place.drop_models(loop.config.training.keep_models, loop.step)
        torch.set_rng_state(self.tensors["rng.cpu"])
        if torch.cuda.is_available() and "rng.cuda" in self.tensors:
            torch.cuda.set_rng_state(self.tensors["rng.cuda"])


def _toml(config: Config) -> bytes:
    """The bytes of a configuration's file. Raises UsageError for a path that it cannot hold."""
    try:
        return config.to_toml().encode()
    except UnicodeEncodeError as error:
        part = error.object[max(0, error.start - 20) : error.end + 20]
        shown = part.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
        raise UsageError(
            f"a path is not UTF-8 and cannot be kept in {CONFIG_FILE} (near {shown!r}); rename it, "
            "or give a link to it"
        ) from None


_EVENT = b'{"event"'
"""What the lines of a run's metrics begin with."""


class RunFolder:
    """The files of one run; the caller holds its lock."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.train_sha256: list[str] = []
        self.valid_sha256 = ""
        self._metrics_bytes = 0

    def look(self, config: Config, *, resume: bool, overwrite: bool) -> SavedRun | None:
        """What to go on from, or None for a run from its first step. Changes nothing.

        Raises UsageError when the folder holds a run that was not asked for or cannot go on as
        ``config`` says, FileError and ModelError when its state cannot be read.
        """
        model, state = self.folder / MODEL_FILE, self.folder / TRAINING_FILE
        own = _toml(config)
        if not resume:
            kept = self.kept_models().values()
            there = [path.name for path in (model, state, *kept) if path.exists()]
            there += self._foreign(own)
            if there and not overwrite:
                raise UsageError(
                    f"--out {self.folder} already holds a run ({there[0]}); "
                    "--resume goes on with it, --overwrite replaces it, or give another folder"
                )
            return None
        if not state.exists():
            # The first model is written before the first state; a kill may fall between them.
            if model.exists() and read_header(model).provenance.get("step") != 0:
                raise FileError(
                    f"{self.folder} cannot be resumed: {TRAINING_FILE} is missing; restore it, "
                    "or start a new run with another --out"
                )
            return None
        saved = SavedRun(state, *read_training_state(state))
        try:
            saved.require_same(config)
        except KeyError as error:
            raise ModelError(
                f"{state} has no {error}: another version of rnncli wrote it; resume with that "
                "version, or start a new run with another --out"
            ) from None
        return saved

    def _foreign(self, own: bytes) -> list[str]:
        """Files of names that a run would replace and that no run has left. One that was killed
        before its first model has left its configuration, ``own`` if it was the same, and perhaps
        metrics."""
        config, metrics = self.folder / CONFIG_FILE, self.folder / METRICS_FILE
        try:
            if metrics.exists():
                with metrics.open("rb") as file:
                    begins = file.read(len(_EVENT))
                return [] if begins in (_EVENT, b"") else [METRICS_FILE]
            return [CONFIG_FILE] if config.exists() and config.read_bytes() != own else []
        except OSError as error:
            raise FileError.of("read", self.folder, error) from None

    def describe_data(self, task: Task) -> None:
        """Note which data the run is about."""
        self.train_sha256, self.valid_sha256 = task.train_sha256, task.valid_sha256

    def begin(self, config: Config, *, anew: bool) -> None:
        """Write the configuration; with ``anew`` what an earlier run left goes away first."""
        if anew:
            for name in (TRAINING_FILE, MODEL_FILE, METRICS_FILE, CONFIG_FILE):
                _remove(self.folder / name)
            for path in self.kept_models().values():
                _remove(path)
        write_atomically(self.folder / CONFIG_FILE, [_toml(config)])

    def write_model(self, loop: Loop, scores: dict[str, float], name: str = MODEL_FILE) -> None:
        write_model(
            self.folder / name,
            config=loop.config,
            tokenizer=loop.task.tokenizer,
            source_tokenizer=loop.task.source_tokenizer,
            weights=loop.model.state_dict(),
            scores=scores,
            provenance={
                "step": loop.step,
                "epochs": round(loop.epochs_done, 4),
                "train_sha256": self.train_sha256,
                "train_tokens": loop.task.train_tokens,
                **loop.task.provenance,
                "torch": torch.__version__,
            },
        )

    # -- the models of the last validations ------------------------------------------------------

    def keep_model(self, loop: Loop, scores: dict[str, float]) -> None:
        """Write the model of a validation beside the best one, its step in eight digits: names
        sort as steps do."""
        self.write_model(loop, scores, f"model-{loop.step:08d}.safetensors")

    def kept_models(self) -> dict[int, Path]:
        """Those that are there, by step, in order. Raises FileError for a folder that cannot be
        read."""
        try:
            paths = list(self.folder.iterdir())
        except FileNotFoundError:
            return {}
        except OSError as error:
            raise FileError.of("read", self.folder, error) from None
        found = ((_KEPT_FILE.fullmatch(path.name), path) for path in paths)
        return dict(sorted((int(match[1]), path) for match, path in found if match))

    def drop_models(self, keep: int, step: int) -> None:
        """Remove all but the last ``keep`` models of steps up to ``step``, once the state of that
        step is saved: what a kill left of later steps will be done again. With 0 none is kept, and
        what is there is left alone."""
        if not keep:
            return
        models = self.kept_models()
        last = [number for number in models if number <= step][-keep:]
        for number, path in models.items():
            if number not in last:
                _remove(path)

    # -- the state to go on from -----------------------------------------------------------------

    def weights_sha256(self) -> str:
        return read_header(self.folder / MODEL_FILE).weights_sha256

    def write_training_state(self, loop: Loop) -> None:
        tokenizers = {
            "tokenizer": loop.task.tokenizer,
            "source_tokenizer": loop.task.source_tokenizer,
        }
        tensors: dict[str, Tensor] = {"rng.cpu": torch.get_rng_state()}
        for name, tokenizer in tokenizers.items():
            if tokenizer is not None:
                data = bytearray(tokenizer.to_bytes())
                tensors[f"text.{name}"] = torch.frombuffer(data, dtype=torch.uint8)
        if torch.cuda.is_available():
            tensors["rng.cuda"] = torch.cuda.get_rng_state()
        for prefix, part in (
            ("model", loop.model.state_dict()),
            ("optimizer", loop.optimizer.tensors()),
            ("average", {f"{k}": s for k, s in enumerate(loop.averaging.shadow)}),
            ("carried", loop.task.tensors()),
        ):
            tensors |= {f"{prefix}.{name}": tensor for name, tensor in part.items()}
        values = {
            **{f"{name}_kind": one.kind if one else "" for name, one in tokenizers.items()},
            "config": loop.config.to_dict(),
            "precision": str(loop.task.runtime.dtype).removeprefix("torch."),
            "engine": loop.task.run_as.engine,
            "train_sha256": self.train_sha256,
            "valid_sha256": self.valid_sha256,
            "step": loop.step,
            "epoch": loop.epoch,
            "piece": loop.piece,
            "skipped": loop.skipped,
            "nonfinite_run": loop.nonfinite_run,
            "best": loop.best if math.isfinite(loop.best) else None,
            "best_nats": loop.best_nats if math.isfinite(loop.best_nats) else None,
            "stale": loop.stale,
            "validated_step": loop.validated_step,
            "solved_step": loop.solved_step,
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
        text = json.dumps(record(event), ensure_ascii=False, allow_nan=False) + "\n"
        line = text.encode(errors="backslashreplace")  # a lone surrogate is a JSON escape, too
        append(self.folder / METRICS_FILE, line)
        self._metrics_bytes += len(line)
        return event

    def cut_metrics(self, size: int) -> None:
        """Drop what was recorded after the state that the run goes on from."""
        path = self.folder / METRICS_FILE
        try:
            length = path.stat().st_size if path.exists() else 0
            if length > size:
                os.truncate(path, size)
        except OSError as error:
            raise FileError.of("write", path, error) from None
        self._metrics_bytes = min(size, length)


def _remove(path: Path) -> None:
    """Raises FileError for what is there and stays."""
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise FileError.of("remove", path, error) from None

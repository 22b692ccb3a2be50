"""One model with the mean of several models' weights."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rnncli.checkpoint import SavedModel, read_model, write_model
from rnncli.errors import UsageError


def average_models(paths: Sequence[Path], out: Path) -> Path:
    """Write the mean of the models in ``paths`` to the file ``out``; returns it.

    Sums are taken in float64. The longest source, and what else is kept of lengths, is the largest
    of all, if each tells its own. Raises UsageError for models that are not of one kind, FileError
    and ModelError as ``read_model`` does.
    """
    first = read_model(paths[0])
    sums = {name: weight.to(torch.float64) for name, weight in first.weights.items()}
    headers = [first.header]
    for path in paths[1:]:
        other = read_model(path)
        _require_alike(first, other, paths[0], path)
        for name, weight in other.weights.items():
            sums[name] += weight
        headers.append(other.header)
    means: dict[str, Tensor] = {
        name: (total / len(paths)).to(first.weights[name].dtype) for name, total in sums.items()
    }
    provenance: dict[str, Any] = {"average_of": [header.weights_sha256 for header in headers]}
    for name in ("longest_source", "longest_target", "target_ratio"):
        if all(getattr(header, name) for header in headers):
            provenance[name] = max(getattr(header, name) for header in headers)
    write_model(
        out,
        config=first.config,
        tokenizer=first.tokenizer,
        source_tokenizer=first.source_tokenizer,
        weights=means,
        scores={},
        provenance=provenance,
    )
    return out


def _require_alike(first: SavedModel, other: SavedModel, path: Path, other_path: Path) -> None:
    for what, mine, its in (
        ("task", first.config.task, other.config.task),
        ("model configuration", first.config.model, other.config.model),
        ("weights", first.header.tensors, other.header.tensors),
        ("start", _start(first), _start(other)),
        (
            "vocabulary",
            first.tokenizer and first.tokenizer.fingerprint,
            other.tokenizer and other.tokenizer.fingerprint,
        ),
        (
            "source vocabulary",
            first.source_tokenizer and first.source_tokenizer.fingerprint,
            other.source_tokenizer and other.source_tokenizer.fingerprint,
        ),
    ):
        if mine != its:
            raise UsageError(
                f"{path} and {other_path} have not the same {what}; only models of one run, or of "
                "runs that began with the same weights, have a mean"
            )


def _start(model: SavedModel) -> str:
    """What the weights of its run began with."""
    config = model.config
    return config.training.start_from or f"seed {config.seed}"

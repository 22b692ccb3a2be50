"""One model, one file: weights, tokenizer, configuration, scores and provenance together.

The files are safetensors (``rnncli.container`` says how they are laid out and verified) of three
kinds: a model, a tokenizer by itself, and the state that a run needs to go on.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rnncli.config import Config
from rnncli.container import (
    SOURCE_TOKENIZER,
    TOKENIZER,
    TOKENIZERS,
    Blob,
    Container,
    Table,
    write_container,
)
from rnncli.errors import DataError, FileError, ModelError, UsageError

if TYPE_CHECKING:
    from torch import Tensor

    from rnncli.text.tokenizers import Tokenizer

MODEL_FILE = "model.safetensors"
TRAINING_FILE = "training.safetensors"
NO_TOKENIZER = "none"
"""The kind of tokenizer of a model that reads no text."""

_TORCH_NAMES = {"F64": "float64", "I64": "int64", "F32": "float32", "I32": "int32",
                "F16": "float16", "BF16": "bfloat16", "I16": "int16", "I8": "int8",
                "U8": "uint8", "BOOL": "bool"}  # fmt: skip
_HOLDS = {
    "model": "a model",
    "tokenizer": "a tokenizer by itself",
    "training": f"the state of a training run (its model is the {MODEL_FILE} beside it)",
}


@dataclass(frozen=True)
class Header:
    """What a model's file says about itself. ``source_tokenizer_kind`` is "none" where the source
    has no vocabulary of its own. ``tensors``: name -> (dtype, shape) of the weights;
    ``parameters``: their elements, together; ``bytes``: the size of the file."""

    format: int
    rnncli_version: str
    config: dict[str, Any]
    tokenizer_kind: str
    vocab_size: int
    source_tokenizer_kind: str
    source_vocab_size: int
    scores: dict[str, float | int | str]
    provenance: dict[str, Any]
    tensors: dict[str, tuple[str, tuple[int, ...]]]
    parameters: int
    weights_sha256: str
    bytes: int

    @property
    def longest_source(self) -> int:
        """Tokens of the longest source that a model of translation has learned from, 0 where its
        file does not say."""
        return int(self.provenance.get("longest_source", 0))

    @property
    def longest_target(self) -> int:
        """The same of targets, ends counted."""
        return int(self.provenance.get("longest_target", 0))

    @property
    def target_ratio(self) -> float:
        """How many tokens a target had for each of its source, of nearly all training pairs at
        most; 0 where the file does not say."""
        return float(self.provenance.get("target_ratio", 0.0))


@dataclass(frozen=True)
class SavedModel:
    """A verified model. ``weights`` are on the CPU and belong to the caller; ``tokenizer`` is None
    for a task without text, ``source_tokenizer`` where the source has no vocabulary of its own."""

    header: Header
    config: Config
    tokenizer: Tokenizer | None
    weights: dict[str, Tensor]
    source_tokenizer: Tokenizer | None = None


def resolve_model(path: Path) -> Path:
    """The file that ``path`` means: itself, or ``model.safetensors`` in a run's folder."""
    if not path.is_dir():
        return path
    inside = path / MODEL_FILE
    if not inside.exists():
        raise FileError(
            f"{path} holds no model: there is no {MODEL_FILE} in it; "
            "expected the folder of a run (rnncli train --out) or a model's file"
        )
    return inside


def write_model(
    path: Path,
    *,
    config: Config,
    tokenizer: Tokenizer | None,
    weights: Mapping[str, Tensor],
    scores: Mapping[str, float | int | str],
    provenance: Mapping[str, Any],
    source_tokenizer: Tokenizer | None = None,
) -> None:
    """Write a model atomically. ``weights`` may be on any device and in any layout."""
    fields = {
        "config": config.to_dict(),
        "tokenizer_kind": tokenizer.kind if tokenizer else NO_TOKENIZER,
        "vocab_size": tokenizer.vocab_size if tokenizer else 0,
        "source_tokenizer_kind": source_tokenizer.kind if source_tokenizer else NO_TOKENIZER,
        "source_vocab_size": source_tokenizer.vocab_size if source_tokenizer else 0,
        "scores": dict(scores),
        "provenance": dict(provenance),
    }
    blobs = _blobs(weights)
    for name, one in ((TOKENIZER, tokenizer), (SOURCE_TOKENIZER, source_tokenizer)):
        if one is not None:
            blobs.append(_tokenizer_blob(one, name))
    write_container(path, "model", fields, blobs)


def write_tokenizer(path: Path, tokenizer: Tokenizer) -> None:
    """Write a tokenizer by itself, atomically."""
    fields = {"tokenizer_kind": tokenizer.kind, "vocab_size": tokenizer.vocab_size}
    write_container(path, "tokenizer", fields, [_tokenizer_blob(tokenizer, TOKENIZER)])


def write_training_state(
    path: Path, *, tensors: Mapping[str, Tensor], values: Mapping[str, Any]
) -> None:
    """Write what a run needs to go on, atomically: tensors on any device, and JSON values."""
    write_container(path, "training", {"values": dict(values)}, _blobs(tensors))


def read_header(path: Path) -> Header:
    """The header of a model's file or of a run's folder, verified; the tensors are not read.

    Raises FileError when it cannot be read, ModelError when it is not what write_model wrote.
    """
    with Container.open(resolve_model(path)) as container:
        return _header(container)


def read_model(path: Path) -> SavedModel:
    """The model in a file or in a run's folder, every byte of it verified.

    Raises FileError when it cannot be read, ModelError when it is not what write_model wrote.
    """
    with Container.open(resolve_model(path)) as container:
        header = _header(container)
        try:
            config = Config.from_dict(header.config)
        except UsageError as error:
            raise container.damaged(f"its configuration is not valid: {error}") from None
        found = _read_tokenizers(container)
        return SavedModel(
            header,
            config,
            found.get(TOKENIZER),
            _read_tensors(container),
            found.get(SOURCE_TOKENIZER),
        )


def read_tokenizer(path: Path) -> Tokenizer:
    """The tokenizer of a model, of a run's folder or of write_tokenizer's file, without torch.

    Raises FileError and ModelError as read_model does, UsageError for a model that has none.
    """
    with Container.open(resolve_model(path)) as container:
        _expect(container, "model", "tokenizer")
        if container.field("tokenizer_kind", str) == NO_TOKENIZER:
            raise UsageError(f"{path} holds a model without a tokenizer: its task reads no text")
        return _read_tokenizers(container)[TOKENIZER]


def read_training_state(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """What write_training_state wrote, every byte verified; the tensors are on the CPU.

    Raises FileError when it cannot be read, ModelError when it is not what was written.
    """
    with Container.open(path) as container:
        _expect(container, "training")
        return _read_tensors(container), container.field("values", dict)


def unlike_weight(
    own: Mapping[str, Tensor], given: Mapping[str, Tensor]
) -> tuple[str, list[int] | None, list[int] | None] | None:
    """The first name under which a model's ``own`` weights and those ``given`` to it are not of one
    shape, with the two shapes, None for a weight that is not there; None when all are alike."""
    for name in (*own, *given):
        mine, theirs = (list(w[name].shape) if name in w else None for w in (own, given))
        if mine != theirs:
            return name, mine, theirs
    return None


def _blobs(tensors: Mapping[str, Tensor]) -> list[Blob]:
    import torch

    dtypes = {getattr(torch, torch_name): dtype for dtype, torch_name in _TORCH_NAMES.items()}
    blobs = []
    for name, tensor in tensors.items():
        if name in TOKENIZERS or tensor.dtype not in dtypes:
            raise ValueError(f"tensor {name!r} of {tensor.dtype} cannot be stored")
        flat = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
        blobs.append(Blob(name, dtypes[tensor.dtype], tuple(tensor.shape), flat.numpy().data))
    return blobs


def _tokenizer_blob(tokenizer: Tokenizer, name: str) -> Blob:
    data = tokenizer.to_bytes()
    return Blob(name, "U8", (len(data),), data)


def _expect(container: Container, *kinds: str) -> None:
    kind = container.field("kind", str)
    if kind not in kinds:
        holds = _HOLDS.get(kind, repr(kind))
        raise ModelError(f"{container.path} holds {holds}; expected a {' or a '.join(kinds)}")


def _weights(container: Container) -> Table:
    return {name: entry for name, entry in container.table.items() if name not in TOKENIZERS}


def _header(container: Container) -> Header:
    _expect(container, "model")
    tensors = _weights(container)
    return Header(
        format=container.field("format", int),
        rnncli_version=container.field("rnncli_version", str),
        config=container.field("config", dict),
        tokenizer_kind=container.field("tokenizer_kind", str),
        vocab_size=container.field("vocab_size", int),
        source_tokenizer_kind=str(container.metadata.get("source_tokenizer_kind", NO_TOKENIZER)),
        source_vocab_size=(
            container.field("source_vocab_size", int)
            if "source_vocab_size" in container.metadata
            else 0
        ),
        scores=container.field("scores", dict),
        provenance=container.field("provenance", dict),
        tensors=dict(tensors),
        parameters=sum(math.prod(shape) for _, shape in tensors.values()),
        weights_sha256=container.field("weights_sha256", str),
        bytes=container.bytes,
    )


def _read_tokenizers(container: Container) -> dict[str, Tokenizer]:
    """What is there of ``TOKENIZERS``, by name."""
    from rnncli.text.tokenizers import tokenizer_from_bytes

    kinds = {
        TOKENIZER: container.field("tokenizer_kind", str),
        SOURCE_TOKENIZER: str(container.metadata.get("source_tokenizer_kind", NO_TOKENIZER)),
    }
    kinds = {name: kind for name, kind in kinds.items() if kind != NO_TOKENIZER}
    for name in kinds:
        if container.table.get(name, ("",))[0] != "U8":
            raise container.damaged(f"it holds no {name.replace('_', ' ')}")
    data = {name: bytearray(container.item_bytes(name)) for name in kinds}
    if data:
        container.read({name: memoryview(buffer) for name, buffer in data.items()})
    try:
        return {name: tokenizer_from_bytes(kinds[name], bytes(data[name])) for name in kinds}
    except DataError as error:
        raise container.damaged(f"its tokenizer is not valid: {error}") from None


def _read_tensors(container: Container) -> dict[str, Tensor]:
    """Every tensor but the tokenizers, each in memory of its own."""
    import torch

    tensors = _weights(container)
    flat = {name: torch.empty(container.item_bytes(name), dtype=torch.uint8) for name in tensors}
    container.read({name: buffer.numpy().data for name, buffer in flat.items()})
    return {
        name: flat[name].view(getattr(torch, _TORCH_NAMES[dtype])).reshape(shape)
        for name, (dtype, shape) in tensors.items()
    }

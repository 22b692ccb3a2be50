"""What the training loop asks of a task."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

from torch import Tensor, nn

from rnncli.nn.stack import Run
from rnncli.runtime import Runtime
from rnncli.text.tokenizers import Tokenizer
from rnncli.training.events import Quantity


@dataclass(frozen=True)
class Loss:
    """``objective`` is what is differentiated: the mean a token plus penalties. ``nats``: that mean
    alone, of the task's quantity. ``lr_scale`` belongs to a piece of unusual length."""

    objective: Tensor
    nats: float
    tokens: int
    lr_scale: float


@dataclass(frozen=True)
class Validation:
    """``nats`` are summed over ``tokens``. ``scores``: other figures of the model, by their names.
    ``solved``: there is nothing left to learn, and the run ends."""

    nats: float
    tokens: int
    scores: dict[str, float] = field(default_factory=dict)
    solved: bool = False


class Task(Protocol):
    """What a task gives the loop. Epochs are cut into ``pieces``, numbered from 0.

    ``quantity`` is what its losses are, and what one is counted for: ``train_tokens`` and
    ``valid_tokens`` are so many of those. ``tokenizer`` is None where there is no text, and
    ``source_tokenizer`` where no source has a vocabulary of its own. The data is told by its
    fingerprints (SHA-256 in hexadecimal), ``train_sha256`` and ``valid_sha256`` (empty for none);
    ``provenance`` is what else a model's file says about where it comes from;
    ``notes`` are sentences about it for the user. For an estimate of the work: ``batch_text`` says
    how large a piece is, in words, ``positions`` how many predictions the usual one holds, and
    ``outputs`` how many numbers the output layer gives for each. ``run_as`` is how the layers are
    run, in training and in validation.
    """

    runtime: Runtime
    run_as: Run
    quantity: Quantity
    notes: tuple[str, ...]
    train_sha256: list[str]
    valid_sha256: str
    provenance: dict[str, float]
    pieces: int
    train_tokens: int
    valid_tokens: int
    batch_text: str
    outputs: int

    @property
    def tokenizer(self) -> Tokenizer | None: ...

    @property
    def source_tokenizer(self) -> Tokenizer | None: ...

    @property
    def positions(self) -> int: ...

    @property
    def model(self) -> nn.Module: ...

    def begin_epoch(self, epoch: int) -> None:
        """Lay out ``pieces`` anew; the same for the same seed and epoch."""
        ...

    def loss(self, piece: int, sampled: bool) -> Loss:
        """Run one piece; what it hands on to the next is kept until ``accept``."""
        ...

    def accept(self, *, carry: bool) -> None:
        """After the step: hand the state on, or (``carry`` false) start the next piece afresh."""
        ...

    def describe(self, piece: int) -> str: ...
    def validate(self) -> Validation | None: ...
    def sample(self) -> str: ...
    def tensors(self) -> dict[str, Tensor]: ...
    def restore(self, tensors: dict[str, Tensor]) -> None: ...

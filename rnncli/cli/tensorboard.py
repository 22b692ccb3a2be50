"""A run's scalars for TensorBoard, which comes with the extra ``rnncli[tb]``."""

from __future__ import annotations

import math
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from rnncli.errors import UsageError
from rnncli.training.events import EvalReport, Event, Quantity, Started, StepReport

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter


class TensorBoard:
    """Writes what training and validation report into ``folder``."""

    def __init__(self, folder: Path) -> None:
        """Raises UsageError when TensorBoard is not installed."""
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            raise UsageError(
                "--tensorboard: the package tensorboard is not installed; "
                "pip install 'rnncli[tb]' brings it"
            ) from None
        self._folder = folder
        self._make = SummaryWriter
        self._writer: SummaryWriter | None = None

    def show(self, event: Event) -> None:
        if isinstance(event, Started):
            if not event.resumed_step:
                shutil.rmtree(self._folder, ignore_errors=True)
            # What was written after the state that the run goes on from is purged.
            self._writer = self._make(str(self._folder), purge_step=event.resumed_step + 1)
        elif isinstance(event, StepReport):
            self._add(
                event.step,
                "train",
                {
                    **_losses(event.nats, event.quantity),
                    "lr": event.lr,
                    "gradient_norm": event.gradient_norm,
                    f"{event.quantity.unit}s_per_second": event.tokens_per_second,
                },
            )
        elif isinstance(event, EvalReport):
            losses = _losses(event.score, event.quantity)
            self._add(event.step, "valid", {**losses, **event.scores})

    def _add(self, step: int, part: str, scalars: dict[str, float]) -> None:
        assert self._writer is not None
        for name, value in scalars.items():
            self._writer.add_scalar(f"{part}/{name}", value, step)

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None


def _losses(value: float, quantity: Quantity) -> dict[str, float]:
    """A loss by its name, and the perplexity where it is one of tokens."""
    losses = {quantity.name.replace(" ", "_"): value}
    if quantity.perplexity:
        losses["perplexity"] = math.exp(min(value, 50.0))
    return losses

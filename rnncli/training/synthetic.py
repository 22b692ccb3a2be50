"""The long-lag problems as the training loop sees them.

Every sequence is new: a batch is made from the seed and its number alone. An epoch is a hundred
updates, which only says how often validation is due. Sequences are run whole, so that gradients
flow from the answer to the first symbol.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rnncli.cell_table import CELLS
from rnncli.config import Config
from rnncli.errors import UsageError
from rnncli.evaluation.synthetic import Batch, open_problem
from rnncli.model_section import cell_names
from rnncli.models.sequence_reader import SequenceReader
from rnncli.nn.stack import Run, require_way_past
from rnncli.runtime import Runtime
from rnncli.sections import DataConfig, SyntheticConfig
from rnncli.text.corpus import Progress
from rnncli.text.tokenizers import Tokenizer
from rnncli.training.events import Quantity
from rnncli.training.task import Loss, Task, Validation

STEPS_AN_EPOCH = 100
VALID_ROWS = 100
TRAIN, VALID = 0, 1
"""Which stream of random numbers a batch is from."""

SQUARED_ERROR = Quantity("squared error", "sequence", perplexity=False)
NATS_A_SYMBOL = Quantity("nats", "symbol", perplexity=False)

DEFAULTS: dict[str, Any] = {
    "model.layers": 1,
    "model.hidden_size": 64,
    "optimizer.name": "adam",
    "optimizer.lr": 1e-3,
    "optimizer.beta2": 0.999,
    "schedule.name": "constant",
    "training.epochs": 0,
    "training.state": "reset",
    "training.bptt": 0,
    "training.precision": "float32",
}
MAX_STEPS = 10_000


def choose(data: DataConfig, fixed: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Values for what matters and is not in ``fixed``, dotted names that the user has set; and the
    reasons."""
    values, reasons = dict(DEFAULTS), []
    forgets = any(CELLS[name].forgets for name in cell_names(str(fixed.get("model.cell", "lstm"))))
    usual = fixed.get("model.init") != "uniform" and "model.forget_bias" not in fixed
    if forgets and usual:
        bias = round(math.log(fixed.get("synthetic.lag", SyntheticConfig().lag)), 2)
        values["model.forget_bias"] = bias
        reasons.append(
            f"forget gates: they start with a bias of {bias:g}, the logarithm of the lag, and so "
            "remember for about as long (Tallec and Ollivier 2018)"
        )
    limits = ("training.epochs", "training.max_steps", "training.max_seconds")
    if not any(fixed.get(name) for name in limits):
        values["training.max_steps"] = MAX_STEPS
        reasons.append(f"steps: {MAX_STEPS:,} at most (--max-steps, --max-time)")
    return {name: value for name, value in values.items() if name not in fixed}, reasons


def open_task(
    config: Config,
    tokenizers: Sequence[Tokenizer],
    runtime: Runtime,
    progress: Progress | None,
) -> Task:
    """The problem that ``config.task`` names. Raises UsageError for truncated backpropagation."""
    if config.training.state != "reset" or config.training.bptt:
        raise UsageError(
            f"training.bptt: sequences of {config.task} are run whole; use training.state = "
            "'reset' and training.bptt = 0"
        )
    torch.manual_seed(config.seed)
    return Synthetic(config, runtime)


class Synthetic:
    """``Task`` for a problem of ``rnncli.evaluation.synthetic``."""

    def __init__(self, config: Config, runtime: Runtime) -> None:
        self.config, self.runtime = config, runtime
        self.tokenizer: Tokenizer | None = None
        self.source_tokenizer: Tokenizer | None = None
        self.problem = open_problem(config)
        adding = config.task == "synthetic:adding"
        self.quantity = SQUARED_ERROR if adding else NATS_A_SYMBOL
        self.run_as = Run(config.training.first_engine, runtime.dtype)
        rows, longest = config.training.batch_size, self.problem.longest
        self.pieces = STEPS_AN_EPOCH
        self.train_tokens = self.pieces * rows * self.problem.answers
        self.valid_tokens = config.synthetic.valid_sequences * self.problem.answers
        self.train_sha256 = [_fingerprint(self._batch(TRAIN, 0, rows))]
        self.valid_sha256 = _fingerprint(self._batch(VALID, 0, VALID_ROWS))
        self.provenance: dict[str, float] = {}
        self.outputs = self.problem.outputs
        self.batch_text = f"{rows} sequences of up to {longest} steps"
        self.notes: tuple[str, ...] = (
            f"task: {self.problem.about}; sequences of up to {longest} steps, made from the seed; "
            f"guessing without having read one costs {self.problem.baseline:.4f} "
            f"{self.quantity.name} a {self.quantity.unit}",
        )
        self._model = SequenceReader(config.model, self.problem.inputs, self.problem.outputs)
        require_way_past([self._model.stack])
        self._model.stack.require_engine(config.training.first_engine)
        self._model.to(runtime.device)
        self._epoch = 0

    @property
    def model(self) -> SequenceReader:
        return self._model

    @property
    def positions(self) -> int:
        """Steps of the sequences in a batch: what the memory goes with."""
        return self.config.training.batch_size * self.problem.longest

    def _batch(self, stream: int, number: int, rows: int) -> Batch:
        rng = np.random.default_rng([self.config.seed, stream, number])
        return self.problem.batch(rng, rows)

    def _answers(self, batch: Batch, *, learning: bool) -> tuple[Tensor, Tensor]:
        """y (A, B, O) and the targets (A, B), on the device."""
        self.model.train(learning)
        rates = self.config.regularization if learning else None
        x, targets = batch.x.to(self.runtime.device), batch.targets.to(self.runtime.device)
        return self.model(x, self.problem.answers, self.run_as, rates), targets

    # -- pieces ------------------------------------------------------------------------------

    def begin_epoch(self, epoch: int) -> None:
        self._epoch = epoch

    def loss(self, piece: int, sampled: bool) -> Loss:
        batch = self._batch(TRAIN, self._number(piece), self.config.training.batch_size)
        y, targets = self._answers(batch, learning=True)
        mean = self.problem.losses(y, targets).mean()
        return Loss(mean, float(mean.detach()), targets.numel(), 1.0)

    def accept(self, *, carry: bool) -> None:
        """Nothing is handed on."""

    def _number(self, piece: int) -> int:
        return self._epoch * self.pieces + piece

    def describe(self, piece: int) -> str:
        return f"batch {self._number(piece):,} of {self.batch_text}"

    # -- validation --------------------------------------------------------------------------

    def validate(self) -> Validation:
        total, answers, right, read = 0.0, 0, 0, 0
        with torch.inference_mode():
            for batch in self._valid_batches():
                y, targets = self._answers(batch, learning=False)
                total += float(self.problem.losses(y, targets).sum(dtype=torch.float64))
                right += int(self.problem.right(y, targets).sum())
                answers, read = answers + targets.numel(), read + targets.shape[1]
        share, wanted = right / read, self.config.synthetic.solved_share
        return Validation(total, answers, {"success": share}, solved=0 < wanted <= share)

    def _valid_batches(self) -> Iterator[Batch]:
        left, number = self.config.synthetic.valid_sequences, 0
        while left:
            rows = min(left, VALID_ROWS)
            yield self._batch(VALID, number, rows)
            left, number = left - rows, number + 1

    def sample(self) -> str:
        """The answer to one sequence."""
        with torch.inference_mode():
            y, targets = self._answers(self._batch(VALID, 0, 1), learning=False)
        wanted = self.problem.target_text(targets[:, 0])
        return f"wanted {wanted}, answered {self.problem.text(y[:, 0])}"

    # -- what a run needs to go on -----------------------------------------------------------

    def tensors(self) -> dict[str, Tensor]:
        return {}

    def restore(self, tensors: dict[str, Tensor]) -> None:
        """Nothing was handed on."""


def _fingerprint(batch: Batch) -> str:
    digest = hashlib.sha256(batch.x.numpy().tobytes())
    digest.update(batch.targets.numpy().tobytes())
    return digest.hexdigest()

"""What every recurrent cell is made of.

A cell splits its equations in three. ``project`` is all that does not depend on the state: one
large product over all time steps. ``step`` is what does, for one time step; it multiplies by
matrices only through ``product``, so that ``rnncli.nn.recurrence`` can choose how those products
are run and how their weight gradients are formed. ``emit`` makes the outputs of all time steps from
their states, where the output is not h itself.

Names follow the textbook's h(t) = f(W_xh x(t) + W_hh h(t-1) + a): ``W_xh`` (G, I), ``W_hh`` (G, H)
and ``a`` (G,), where G is H times the number of gates.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rnncli.nn.cells.initialization import fill
from rnncli.nn.state import CellState
from rnncli.sections import ModelConfig

Product = Callable[[str, Tensor], Tensor]
"""``product(name, v)``: the matrix ``name`` (G, H) times each row of v (B, H) -> (B, G)."""

NONLINEARITIES = {"tanh": torch.tanh, "sigmoid": torch.sigmoid, "relu": torch.relu}

Range = tuple[float, float]
"""Between what values lie; the upper end of rectified ones is inf."""

RANGES: dict[str, Range] = {"tanh": (-1.0, 1.0), "sigmoid": (0.0, 1.0), "relu": (0.0, math.inf)}
"""Of each nonlinearity."""


class Cell(nn.Module):
    """A recurrence. Subclasses set ``gates`` and ``state_parts``, write ``step``, and call
    ``reset_parameters`` once their weights are there."""

    gates = 1
    state_parts = 1
    recurrent = True  # whether there is a matrix W_hh
    normalizes_itself = False  # whether it has equations of its own for layer normalisation
    draws_by_step = False  # whether ``step`` draws by chance, or otherwise differs from run to run

    def __init__(
        self, config: ModelConfig, options: Mapping[str, Any], input_size: int, hidden_size: int
    ) -> None:
        """``options``: the values of those that the cell's row in ``rnncli.cell_table`` names.
        ``input_size`` 0: a cell that reads nothing; it has no W_xh, and its step takes ``a`` alone.
        """
        super().__init__()
        self.input_size = input_size
        self.hidden_size = hidden_size
        rows = self.gates * hidden_size
        if input_size:
            self.W_xh = nn.Parameter(torch.empty(rows, input_size))
        if self.recurrent:
            self.W_hh = nn.Parameter(torch.empty(rows, hidden_size))
        self.a = nn.Parameter(torch.empty(rows))

    @property
    def output_size(self) -> int:
        """The size of what ``emit`` gives for a time step."""
        return self.hidden_size

    @property
    def part_kinds(self) -> tuple[str, ...]:
        """What each part of the state is: "hidden", "cell", "normalizer" for what goes with a cell,
        "input" for what is kept of x, or "output" for an h that no later step reads."""
        return ("hidden", *("cell",) * (self.state_parts - 1))

    @property
    def state_sizes(self) -> tuple[int, ...]:
        """The size of each part of the state; the first is that of h."""
        return (self.hidden_size,) * self.state_parts

    @property
    def h_range(self) -> Range | None:
        """Between what h lies, from a zero state on. None: it has no ends, or the first part of the
        state is not h."""
        return None

    @property
    def recordable(self) -> bool:
        """Whether the operations of ``step`` are the same in every run, for one shape."""
        return not any(isinstance(m, Cell) and m.draws_by_step for m in self.modules())

    def recurrent_weights(self) -> dict[str, Tensor]:
        """The matrices that multiply the state, by their names as parameters."""
        return {"W_hh": self.W_hh} if self.recurrent else {}

    def gate_rows(self, weight: Tensor) -> int:
        """How many rows of a recurrent matrix belong to one gate: as many as it has columns."""
        return weight.shape[1]

    def step_weights(self) -> dict[str, Tensor]:
        """All matrices that ``step`` multiplies by, the recurrent ones first."""
        return self.recurrent_weights()

    def norm_groups(self) -> dict[str, tuple[int, ...]]:
        """For each matrix how many of its rows layer normalisation takes together: all of them,
        unless a cell says otherwise."""
        weights = ({"W_xh": self.W_xh} if self.input_size else {}) | self.step_weights()
        return {name: (len(weight),) for name, weight in weights.items()}

    def project(self, x: Tensor, state: CellState, dtype: torch.dtype) -> Tensor:
        """x: (T, B, I), ``state`` before the first step -> W_xh x + a: (T, B, G), products in
        ``dtype``."""
        return self.read(x, dtype)

    def read(self, x: Tensor, dtype: torch.dtype) -> Tensor:
        """``sums`` of W_xh x, for x (..., I)."""
        if self.sums_plainly:
            return self.linear(x, self.W_xh, self.a, dtype)
        return self.sums(self.linear(x, self.W_xh, None, dtype))

    def sums(self, v: Tensor) -> Tensor:
        """v: W_xh x, (..., G) -> v + a, or what the cell makes of it instead."""
        return v + self.a

    @property
    def sums_plainly(self) -> bool:
        """Whether ``sums`` adds ``a`` and does nothing else."""
        return type(self).sums is Cell.sums

    @property
    def reads_by_matrix(self) -> bool:
        """Whether ``project`` gives ``sums`` of ``input_matrix`` x, so that more can be added to
        that product."""
        return type(self).project is Cell.project

    @property
    def projects_plainly(self) -> bool:
        """Whether ``project`` gives W_xh x + a and nothing else."""
        return self.reads_by_matrix and self.sums_plainly

    @property
    def input_matrix(self) -> Tensor:
        """(G, I), what x is multiplied by."""
        return self.W_xh

    def step(self, projected: Tensor, state: CellState, product: Product) -> CellState:
        """projected: (B, G), state: parts of (B, H) -> the next state; its first part is h(t)."""
        raise NotImplementedError(type(self).__name__)

    def emit(self, h: Tensor, x: Tensor, projected: Tensor, dtype: torch.dtype) -> Tensor:
        """h: (T, B, H), x: (T, B, I), projected: (T, B, G) -> outputs (T, B, output_size)."""
        return h

    @property
    def emits_h(self) -> bool:
        """Whether the output of a step is h(t) itself."""
        return type(self).emit is Cell.emit

    def zero_state(self, rows: int) -> CellState:
        like = next(self.parameters())
        return tuple(like.new_zeros(rows, size) for size in self.state_sizes)

    def reset_parameters(self, config: ModelConfig) -> None:
        """Fill the weights as ``config`` says; see ``rnncli.nn.cells.initialization``."""
        recurrent = self.recurrent_weights()
        for name, weight in self.named_parameters():
            rows = self.gate_rows(weight) if name in recurrent else None
            fill(weight, config, rows)

    def after_update(self) -> None:
        """Bring weights back that an update of training has carried out of their range."""

    @staticmethod
    def linear(x: Tensor, weight: Tensor, bias: Tensor | None, dtype: torch.dtype) -> Tensor:
        """weight x + bias with the operands of the product in ``dtype``, in the weight's type."""
        if x.dtype == dtype == weight.dtype:
            return F.linear(x, weight, bias)
        y = F.linear(x.to(dtype), weight.to(dtype)).to(weight.dtype)
        return y if bias is None else y + bias

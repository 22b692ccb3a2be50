"""Recurrent layers on top of each other: their directions, what leads past them, dropout."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rnncli.errors import UsageError, choices_hint
from rnncli.model_section import OUTPUT_WEIGHTS
from rnncli.nn.cells import Cell, make_cell
from rnncli.nn.cells.zoneout import Zoneout
from rnncli.nn.dropout import drop_weights, dropout
from rnncli.nn.omega import run_with_omega
from rnncli.nn.recurrence import require_engine, run
from rnncli.nn.recurrence.trace import Trace, run_traced
from rnncli.nn.state import CellState, State
from rnncli.nn.state_dropout import StateDropout
from rnncli.sections import ModelConfig, RegularizationConfig


@dataclass(frozen=True)
class Run:
    """How the layers are run: the engine, and the type of the operands of products. Where there is
    a list for ``traces``, every cell's run is put there, in the order of ``Stack.layers``."""

    engine: str = "auto"
    dtype: torch.dtype = torch.float32
    traces: list[Trace] | None = None


class Stack(nn.Module):
    """``config.layers`` layers; layer l reads the outputs of layer l - 1.

    A layer is one cell, run from the first time step or (``direction`` backward, and every other
    layer of alternating) from the last; or a cell for each direction, whose outputs stand side by
    side (bidirectional; Schuster and Paliwal 1997). ``residual`` add: a layer's input is added to
    its output where they have one size (Graves 2013 has skip connections, He et al. 2016 the sum);
    highway: a gate mixes the two (Zhang et al. 2016).
    """

    def __init__(self, config: ModelConfig, input_size: int) -> None:
        super().__init__()
        self.cells = nn.ModuleList()
        self.backward_cells: list[bool] = []
        self.highways = nn.ModuleDict()
        self.residual = config.residual
        self.cells_a_layer = 2 if config.direction == "bidirectional" else 1
        size = input_size
        for k, hidden_size in enumerate(config.layer_sizes()):
            made = [make_cell(config, size, hidden_size, k) for _ in range(self.cells_a_layer)]
            self.cells.extend(made)
            self.backward_cells += _backward(config.direction, k)
            out = sum(cell.output_size for cell in made)
            if config.residual == "highway" and out == size:
                gate = nn.Linear(size, size)
                nn.init.constant_(gate.bias, -1.0)  # pass the input on at first
                self.highways[str(k)] = gate
            size = out
        for field, kind in (("zoneout", "hidden"), ("zoneout_cell", "cell")):
            if getattr(config, field) and not any(kind in c.part_kinds for c in self.layers):
                raise UsageError(
                    f"model.{field}: the state of {config.cell} has no such part; use 0, or "
                    f"{'zoneout_cell' if field == 'zoneout' else 'zoneout'}"
                )
        divides = any("normalizer" in cell.part_kinds for cell in self.layers)
        if config.initial_state == "learned" and divides:
            raise UsageError(
                f"model.initial_state: {config.cell} divides by a part of its state, which could "
                "learn to start at 0 or below; use 'zero', or for 'learned' a cell that does not "
                "divide by its state"
            )
        self.output_size = size
        self.initial: nn.ParameterList | None = None
        if config.initial_state == "learned":
            self.initial = nn.ParameterList(
                nn.Parameter(torch.zeros(size)) for cell in self.layers for size in cell.state_sizes
            )

    @property
    def layers(self) -> list[Cell]:
        """The cells, first layer first; of a bidirectional one both, the forward one first."""
        return cast("list[Cell]", list(self.cells))

    @property
    def is_causal(self) -> bool:
        """Whether no output depends on later inputs."""
        return not any(self.backward_cells)

    def start(self, rows: int) -> State:
        """The state before the first token, for ``rows`` sequences: zero or learned."""
        zero = State(tuple(cell.zero_state(rows) for cell in self.layers))
        if self.initial is None:
            return zero
        learned = iter(self.initial)
        return State(
            tuple(tuple(next(learned).expand_as(s) for s in layer) for layer in zero.layers)
        )

    def forward(
        self,
        x: Tensor,
        state: State,
        run_as: Run,
        regularization: RegularizationConfig | None,
        lengths: Tensor | None = None,
    ) -> tuple[Tensor, State]:
        """x: (T, B, I) -> outputs of the last layer (T, B, output_size) and the last state.

        ``regularization`` None means no dropout (evaluation). ``lengths``: (B,) steps of each
        sequence, for layers that run backward, None when all have T.
        """
        last: list[CellState] = []
        for k in range(0, len(self.cells), self.cells_a_layer):
            if regularization is not None and k > 0:
                x = dropout(x, regularization.dropout, locked=regularization.locked)
            outputs = []
            for n in range(k, k + self.cells_a_layer):
                read = reverse(x, lengths) if self.backward_cells[n] else x
                y, layer_state = self._run_cell(n, read, state, run_as, regularization)
                outputs.append(reverse(y, lengths) if self.backward_cells[n] else y)
                last.append(layer_state)
            y = outputs[0] if len(outputs) == 1 else torch.cat(outputs, dim=2)
            x = self._past(k // self.cells_a_layer, x, y)
        return x, State(tuple(last))

    def _run_cell(
        self, n: int, x: Tensor, state: State, run_as: Run, rates: RegularizationConfig | None
    ) -> tuple[Tensor, CellState]:
        cell = self.layers[n]
        weights = cell.step_weights()
        if rates is not None and rates.weight_drop:
            for name in cell.recurrent_weights():
                weights[name] = drop_weights(weights[name], rates.weight_drop)
        if rates is not None and rates.dropout_state and cell.recurrent_weights():
            cell = StateDropout(cell, rates.dropout_state)
            weights = {f"cell.{name}": weight for name, weight in weights.items()}
        before, engine, dtype = state.layers[n], run_as.engine, run_as.dtype
        if run_as.traces is not None:
            y, last, trace = run_traced(cell, x, before, weights, engine=engine, dtype=dtype)
            run_as.traces.append(trace)
            return y, last
        if rates is not None and rates.omega and torch.is_grad_enabled():
            return run_with_omega(cell, x, before, weights, rates.omega, engine=engine, dtype=dtype)
        return run(cell, x, before, weights, engine=engine, dtype=dtype)

    def _past(self, layer: int, x: Tensor, y: Tensor) -> Tensor:
        """Layer ``layer``'s output y (..., O), with what leads its input x (..., I) past it."""
        if self.residual == "none" or x.shape[-1] != y.shape[-1]:
            return y
        if self.residual == "add":
            return x + y
        linear = cast(nn.Linear, self.highways[str(layer)])
        gate = torch.sigmoid(linear(x.to(linear.weight.dtype)))  # y may be in a shorter type
        return x + gate * (y - x)

    def step(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """x: (B, I) -> the last layer's output (B, output_size) and the next state; without
        autograd. Raises UsageError for layers that read later inputs."""
        if not self.is_causal:
            raise UsageError("model.direction: layers that run backward cannot go step by step")
        last: list[CellState] = []
        for k, (cell, before) in enumerate(zip(self.layers, state.layers, strict=True)):
            inputs = x.unsqueeze(0)
            projected = cell.project(inputs, before, x.dtype)
            product = partial(_product, cell.step_weights())
            after = cell.step(projected.squeeze(0), before, product)
            last.append(after)
            x = self.output_of_step(k, x, projected.squeeze(0), after[0])
        return x, State(tuple(last))

    def output_of_step(self, layer: int, x: Tensor, projected: Tensor, h: Tensor) -> Tensor:
        """x: (B, I), projected: (B, G) and h (B, H) of one step -> what the next layer reads."""
        cell = self.layers[layer]
        y = h
        if not cell.emits_h:
            parts = (h.unsqueeze(0), x.unsqueeze(0), projected.unsqueeze(0))
            y = cell.emit(*parts, h.dtype).squeeze(0)
        return y if self.residual == "none" else self._past(layer, x, y)

    def reads_through(self, layer: int) -> bool:
        """Whether ``layer`` reads its input through ``Cell.project`` alone."""
        return self.residual == "none" and self.layers[layer].emits_h

    @property
    def leads_past(self) -> bool:
        """Whether the input of some layer has the size of its output, so that ``residual`` can
        lead it past."""
        width = self.cells_a_layer
        made = [self.layers[n : n + width] for n in range(0, len(self.layers), width)]
        return any(layer[0].input_size == sum(cell.output_size for cell in layer) for layer in made)

    def require_engine(self, engine: str) -> None:
        """Raise UsageError when a layer cannot be run by ``engine``."""
        for cell in self.layers:
            require_engine(cell, engine)


def _backward(direction: str, layer: int) -> list[bool]:
    """Whether each cell of ``layer`` runs from the last time step to the first."""
    if direction == "bidirectional":
        return [False, True]
    return [direction == "backward" or (direction == "alternating" and layer % 2 == 1)]


def reverse(x: Tensor, lengths: Tensor | None) -> Tensor:
    """x: (T, B, H) with each sequence's own steps, ``lengths`` (B,), in reverse order; what follows
    them stays where it is."""
    if lengths is None:
        return x.flip(0)
    steps = torch.arange(len(x), device=x.device).unsqueeze(1)
    places = torch.where(steps < lengths, lengths - 1 - steps, steps)
    return x.gather(0, places.unsqueeze(2).expand_as(x))


def _product(weights: dict[str, Tensor], name: str, v: Tensor) -> Tensor:
    return F.linear(v, weights[name])


def require_frozen(config: ModelConfig, stacks: Sequence[Stack]) -> None:
    """Raise UsageError for a name in ``config.frozen`` of which no cell of a model's ``stacks`` has
    a weight and that is none of the layers' around them."""
    bare = [
        cell.cell if isinstance(cell, Zoneout) else cell
        for stack in stacks
        for cell in stack.layers
    ]
    names = sorted({name for cell in bare for name, _ in cell.named_parameters()})
    for name in config.frozen:
        if name not in ("embedding", *OUTPUT_WEIGHTS, *names):
            raise UsageError(
                f"model.frozen: {config.cells} has no weight {name!r}{choices_hint(name, names)}"
            )


def require_way_past(stacks: Sequence[Stack]) -> None:
    """Raise UsageError for ``model.residual`` where no layer of a model's ``stacks`` has an output
    of its input's size."""
    residual = stacks[0].residual
    if residual != "none" and not any(stack.leads_past for stack in stacks):
        raise UsageError(
            f"model.residual: {residual!r} leads the input of a layer past it, and no layer's has "
            "the size of its output; use 'none', more layers, or embedding_size = hidden_size"
        )

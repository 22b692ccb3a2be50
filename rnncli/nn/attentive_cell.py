"""A decoder's cell that looks up its source at every step.

Without it (``model.look_up`` after) a decoder runs by itself, and attention reads all of its states
at once, which is faster.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from rnncli.errors import UsageError
from rnncli.nn.attention import Attention, fresh
from rnncli.nn.cells.base import RANGES, Cell, Product, Range
from rnncli.nn.cells.wrapper import Wrapper
from rnncli.nn.state import CellState


class AttentiveCell(Wrapper):
    """A cell, an attention and a layer that joins the two, h~(t) = tanh(W_c [c(t); h(t)]).

    feeding: h(t) = cell([y(t); h~(t-1)], h(t-1)), c(t) looked up by h(t) (Luong et al. 2015, sec.
    3.3, input feeding), the cell perhaps of several layers. before: c(t) looked up by h(t-1), h(t)
    = cell([y(t); c(t)], h(t-1)) (Bahdanau et al. 2015, app. A.2.2). between: s(t) = cell(y(t),
    h(t-1)), c(t) looked up by s(t), h(t) = second cell (c(t), s(t)) (the conditional unit of
    Nematus, Sennrich et al. 2017).

    The state is h~, that of the cell, of an attention with coverage the sum of its weights so far
    (B, S), and what never changes: the annotations (N, S, M) and their keys (N, S, K) of the N
    sources, each of which has B / N rows beside each other. The output is h~, of as many units as
    the cell.
    """

    def __init__(
        self, cell: Cell, attention: Attention, look_up: str, memory_size: int, second: Cell | None
    ) -> None:
        """``second``: for ``between``, a cell like ``cell`` that reads annotations. Raises
        UsageError for a cell to whose input nothing can be added."""
        super().__init__(cell)
        H = cell.output_size
        if not cell.emits_h:
            raise UsageError(
                f"model.look_up: {look_up!r} looks up by the state of a cell, and this cell's "
                "output is another one; use 'after'"
            )
        if look_up != "between" and not cell.reads_by_matrix:
            raise UsageError(
                f"model.look_up: {look_up!r} adds to the cell's input, which this cell does not "
                "read through a matrix; use 'after'"
            )
        self.attention, self.look_up, self.second = attention, look_up, second
        self.W_c = fresh(H, memory_size + H)
        if look_up != "between":
            G = len(cell.input_matrix)
            self.W_f = fresh(G, H if look_up == "feeding" else memory_size)

    @property
    def part_kinds(self) -> tuple[str, ...]:
        covered = () if self.attention.w_c is None else ("covered",)
        return ("hidden", *self.cell.part_kinds, *covered, "input", "input")

    @property
    def emits_h(self) -> bool:
        return True

    @property
    def h_range(self) -> Range | None:
        return RANGES["tanh"]

    def first_state(self, state: CellState, memory: Tensor) -> CellState:
        """``state``: the cell's own, parts of (B, H); memory: (B, S, M) -> the state without what
        never changes."""
        covered = () if self.attention.w_c is None else (torch.zeros_like(memory[:, :, 0]),)
        return (torch.zeros_like(state[0]), *state, *covered)

    def recurrent_weights(self) -> dict[str, Tensor]:
        weights = super().recurrent_weights()
        if self.look_up == "feeding":
            weights["W_f"] = self.W_f
        if self.second is not None:
            of_second = self.second.recurrent_weights()
            weights |= {f"second.{name}": weight for name, weight in of_second.items()}
        return weights

    def step_weights(self) -> dict[str, Tensor]:
        weights = {**super().step_weights(), "W_c": self.W_c}
        if self.look_up != "between":
            weights["W_f"] = self.W_f
        if self.attention.kind == "additive":
            weights["attention.W_a"] = self.attention.W_a
        if self.second is not None:
            of_second = {"W_xh": self.second.input_matrix, **self.second.step_weights()}
            weights |= {f"second.{name}": weight for name, weight in of_second.items()}
        return weights

    @property
    def _sums_late(self) -> bool:
        """Whether what is looked up belongs to the sum that the cell makes something of."""
        return self.look_up != "between" and not self.cell.sums_plainly

    def project(self, x: Tensor, state: CellState, dtype: torch.dtype) -> Tensor:
        if self._sums_late:
            return self.linear(x, self.cell.input_matrix, None, dtype)
        return self.cell.project(x, state, dtype)

    def _joined(self, projected: Tensor, looked_up: Tensor) -> Tensor:
        """What the cell's step reads: ``projected`` (B, G) with what was looked up (B, G)."""
        joined = projected + looked_up
        return self.cell.sums(joined) if self._sums_late else joined

    def step(self, projected: Tensor, state: CellState, product: Product) -> CellState:
        return self.step_and_weights(projected, state, product)[0]

    def step_and_weights(
        self, projected: Tensor, state: CellState, product: Product
    ) -> tuple[CellState, Tensor]:
        """A step, and how much it looked at each annotation (B, S)."""
        own = len(self.cell.part_kinds)
        out, before = state[0], state[1 : own + 1]
        *more, memory, keys = state[own + 1 :]
        covered = more[0] if more else None
        if self.look_up == "before":
            context, weights = self._context(before[0], memory, keys, covered, product)
            after = self._cell(self._joined(projected, product("W_f", context)), before, product)
        elif self.look_up == "feeding":
            after = self._cell(self._joined(projected, product("W_f", out)), before, product)
            context, weights = self._context(after[0], memory, keys, covered, product)
        else:
            assert self.second is not None
            after = self._cell(projected, before, product)
            context, weights = self._context(after[0], memory, keys, covered, product)
            read = self.second.sums(product("second.W_xh", context))
            after = self.second.step(read, after, lambda n, v: product(f"second.{n}", v))
        out = torch.tanh(product("W_c", torch.cat([context, after[0]], dim=1)))
        covering = () if covered is None else (covered + weights,)
        return (out, *after, *covering, memory, keys), weights

    def _cell(self, projected: Tensor, state: CellState, product: Product) -> CellState:
        return self.cell.step(projected, state, lambda name, v: product(f"cell.{name}", v))

    def _context(
        self,
        query: Tensor,
        memory: Tensor,
        keys: Tensor,
        covered: Tensor | None,
        product: Product,
    ) -> tuple[Tensor, Tensor]:
        """query: (B, H), memory: (N, S, M), keys: (N, S, K), covered: (B, S) -> the annotations
        weighted by their scores against it (B, M), and the weights (B, S)."""
        B, (N, S) = len(query), memory.shape[:2]
        if self.attention.kind == "additive":
            query = product("attention.W_a", query)
        past = None if covered is None else covered.view(N, -1, S)
        scores = self.attention.scores(query.view(N, B // N, -1), keys, past)
        weights = torch.softmax(scores, dim=2)
        return (weights @ memory).view(B, -1), weights.view(B, S)


def second_cell(cell: nn.Module | None) -> Cell | None:
    """``cell`` if it can be a second one of ``between``. Raises UsageError when it cannot."""
    if cell is None:
        return None
    assert isinstance(cell, Cell)
    if not cell.reads_by_matrix:
        raise UsageError(
            "model.look_up: 'between' needs a cell that reads its input through a matrix; use "
            "'after'"
        )
    return cell

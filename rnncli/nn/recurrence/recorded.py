"""A loop over time on a CUDA device, launched as one: CUDA graphs of its forward and backward pass.

A step of a recurrence is a handful of operations that take a few microseconds each, and to launch
one from Python takes longer than to run it. So once sequences of one shape have come up twice, the
launches of both passes are recorded, and from then on replayed. What is replayed are the same
operations in the same order, on tensors of its own: the inputs are copied there, outputs and
gradients from there.
"""

from __future__ import annotations

import warnings
import weakref
from collections.abc import Hashable, Mapping, Sequence
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.func import functional_call

from rnncli.nn.cells.base import Cell
from rnncli.nn.recurrence.closed import Runner
from rnncli.nn.state import CellState

SEEN = 2
"""So often a shape comes up before it is worth a recording."""
MOST = 8
"""Recordings that a cell has: each keeps what its backward pass needs."""
_FEWEST_STEPS = 4
_WARM_UPS = 2


class _Loop(nn.Module):
    def __init__(self, loop: Runner, cell: Cell) -> None:
        super().__init__()
        self.loop, self.cell = loop, cell

    def forward(self, *arguments: Any) -> tuple[Tensor, CellState]:
        return self.loop(self.cell, *arguments)


class _Use:
    """A forward pass whose backward pass is still to come; alive as long as that may be."""


class _Recording:
    """The passes of ``loop`` for inputs like ``inputs``: projected, the state's parts, the weights.
    The parameters that the cell's step reads by itself are read where they are."""

    def __init__(
        self,
        loop: Runner,
        cell: Cell,
        inputs: Sequence[Tensor],
        names: Sequence[str],
        dtype: torch.dtype,
    ) -> None:
        own = [x.detach().clone().requires_grad_(x.requires_grad) for x in inputs]
        parts = len(inputs) - 1 - len(names)
        # Leaves of their own on the same memory: the streams of others stay out of the recording.
        in_place = {
            f"cell.{name}": p.detach().requires_grad_()
            for name, p in cell.named_parameters()
            if p.requires_grad
        }
        wanted = [x for x in (*own, *in_place.values()) if x.requires_grad]

        def run_loop() -> list[Tensor]:
            weights = dict(zip(names, own[1 + parts :], strict=True))
            arguments = (own[0], tuple(own[1 : 1 + parts]), weights, dtype)
            h, last = functional_call(_Loop(loop, cell), in_place, arguments)
            return [h, *last]

        def run_back(outputs: list[Tensor], gradients: list[Tensor | None]) -> list[Tensor | None]:
            learned = [o for o in outputs if o.requires_grad]
            given = [g for g in gradients if g is not None]
            return list(torch.autograd.grad(learned, wanted, given, allow_unused=True))

        self.inputs = own
        self._use: weakref.ref[_Use] | None = None
        stream = _stream(inputs[0].device.index)
        torch.cuda.synchronize()
        # What is made at first use on a stream (handles, workspaces) is to be there before.
        with torch.cuda.stream(stream):
            for _ in range(_WARM_UPS):
                outputs = run_loop()
                run_back(outputs, [_room(o) for o in outputs])
            del outputs
        torch.cuda.synchronize()
        self.forward, self.backward = torch.cuda.CUDAGraph(), torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.forward, stream=stream):
            self.outputs = run_loop()
        self.of_outputs = [_room(o) for o in self.outputs]
        with torch.cuda.graph(self.backward, pool=self.forward.pool(), stream=stream):
            found = run_back(self.outputs, self.of_outputs)
        each = iter(found)
        self.gradients = [
            next(each) if x.requires_grad else None for x in (*own, *in_place.values())
        ]

    @property
    def busy(self) -> bool:
        """Whether the backward pass of the last forward pass may still come."""
        return self._use is not None and self._use() is not None

    def begin(self) -> _Use:
        use = _Use()
        self._use = weakref.ref(use)
        return use


@cache
def _stream(device: int) -> torch.cuda.Stream:
    """The one on which all of ``device``, the current one, is recorded."""
    return torch.cuda.Stream()  # type: ignore[no-untyped-call]


def _room(output: Tensor) -> Tensor | None:
    """For the gradient of ``output``, where it has one."""
    return torch.zeros_like(output) if output.requires_grad else None


class _Replay(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, recording: _Recording, *inputs: Tensor) -> tuple[Tensor, ...]:
        """inputs: those of the recording, then the cell's parameters that are learned."""
        for own, given in zip(recording.inputs, inputs, strict=False):
            own.detach().copy_(given)
        recording.forward.replay()
        ctx.recording, ctx.use = recording, recording.begin()
        found = tuple(o.detach().clone() for o in recording.outputs)
        fixed = zip(found, recording.outputs, strict=True)
        ctx.mark_non_differentiable(*(o for o, own in fixed if not own.requires_grad))
        return found

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Any) -> Any:
        if ctx.use is None:
            raise RuntimeError(
                "a recorded loop goes back once for each time it went forward; "
                "engine 'reference' keeps its graph"
            )
        recording: _Recording = ctx.recording
        for own, given in zip(recording.of_outputs, gradients, strict=True):
            if own is not None:
                own.copy_(given)
        recording.backward.replay()
        ctx.use = None
        return None, *(None if g is None else g.clone() for g in recording.gradients)


class _OfCell:
    """``where`` its parameters are; what is recorded of it, by what that is for, and how often
    other shapes have come up, None for those that are not worth it."""

    def __init__(self, where: Hashable) -> None:
        self.where = where
        self.recordings: dict[Hashable, _Recording] = {}
        self.seen: dict[Hashable, int | None] = {}


_RECORDINGS: weakref.WeakKeyDictionary[Cell, _OfCell] = weakref.WeakKeyDictionary()


def may_record(cell: Cell, projected: Tensor) -> bool:
    """Whether to run ``projected`` (T, B, G) by ``run_recorded``."""
    return (
        projected.device.type == "cuda"
        and projected.device.index == torch.cuda.current_device()
        and len(projected) >= _FEWEST_STEPS
        and torch.is_grad_enabled()
        and cell.recordable
    )


def recordings(cell: Cell) -> int:
    """How many there are of ``cell``."""
    return len(_RECORDINGS[cell].recordings) if cell in _RECORDINGS else 0


def forget(cell: Cell) -> None:
    """Give the memory of all recordings of ``cell`` back."""
    _RECORDINGS.pop(cell, None)


def run_recorded(
    loop: Runner, cell: Cell, projected: Tensor, state: CellState, weights: Mapping[str, Tensor],
    dtype: torch.dtype,
) -> tuple[Tensor, CellState]:  # fmt: skip
    """As ``loop``; by a recording of it where there is one, or where it is time for one."""
    inputs = (projected, *state, *weights.values())
    kept = [*cell.parameters(), *cell.buffers()]
    where = tuple((x.data_ptr(), x.shape, x.stride(), x.dtype, x.requires_grad) for x in kept)
    of_cell = _RECORDINGS.get(cell)
    if of_cell is None or of_cell.where != where:
        of_cell = _RECORDINGS[cell] = _OfCell(where)
    what = (
        loop, dtype, cell.training, tuple(weights),
        tuple((x.shape, x.dtype, x.requires_grad) for x in inputs),
    )  # fmt: skip
    found = of_cell.recordings.get(what)
    if found is None and _is_worth_it(of_cell, what):
        try:
            with torch.cuda.stream(torch.cuda.current_stream()):  # which is so afterwards, too
                found = _Recording(loop, cell, inputs, tuple(weights), dtype)
        except RuntimeError as error:  # no memory for it, or a step that waits for the device
            of_cell.seen[what] = None
            warnings.warn(f"a loop over time is not recorded: {error}", stacklevel=2)
        else:
            of_cell.recordings[what] = found
            del of_cell.seen[what]
    if found is None or found.busy:
        h, last = loop(cell, projected, state, weights, dtype)
        if found is None and not any(x.requires_grad for x in (h, *last)):
            of_cell.seen[what] = None  # nothing in it is learned
        return h, last
    learned = (p for p in cell.parameters() if p.requires_grad)
    h, *parts = _Replay.apply(found, *inputs, *learned)  # type: ignore[no-untyped-call]
    return h, tuple(parts)


def _is_worth_it(of_cell: _OfCell, what: Hashable) -> bool:
    """Whether it is time to record ``what``, having come up once more."""
    if len(of_cell.recordings) >= MOST:
        of_cell.seen.clear()
        return False
    before = of_cell.seen.get(what, 0)
    if before is None:
        return False
    of_cell.seen[what] = before + 1
    return before + 1 >= SEEN and _has_room()


def _has_room() -> bool:
    """Whether less than half of the device's memory is in use."""
    return 2 * torch.cuda.memory_allocated() < torch.cuda.mem_get_info()[1]

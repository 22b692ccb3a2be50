"""What leads from an encoder's last state to a decoder's first."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from rnncli.errors import UsageError
from rnncli.nn.cells.base import Cell
from rnncli.nn.stack import Stack
from rnncli.nn.state import CellState, State

_BRIDGED = ("hidden", "cell")
"""The kinds of parts of a state that a bridge gives a value; the others start at zero."""


class Bridge(nn.ModuleList):
    """zero: the decoder starts from zeros; last: from the encoder's last state as it is; linear:
    from a tanh layer on that state, or where there is a summary c on that (tanh(V' c), Cho et al.
    2014, app. A.1.2); mean: on the mean annotation (Sennrich et al. 2017). The tanh layers are one
    for each part of the first state, layer by layer, as ``nn.Linear``.

    A decoder's layer starts from the encoder's layer at the same distance from the top, or from the
    first; a part of its state from the part of the same kind there, or, where there is none, as
    between an LSTM and a GRU, from h.
    """

    def __init__(
        self, kind: str, encoder: Stack, decoder: Sequence[Cell], summary_size: int = 0
    ) -> None:
        """``decoder``: its cells, first layer first; ``summary_size``: of c, 0 for none. Raises
        UsageError for a bridge that cannot lead from the one to the other."""
        super().__init__()
        self.kind = kind
        self._sizes = [cell.state_sizes for cell in decoder]
        self._bridged = [
            [part for part, kind in enumerate(cell.part_kinds) if kind in _BRIDGED]
            for cell in decoder
        ]
        self._counting = [
            [part for part, kind in enumerate(cell.part_kinds) if kind == "normalizer"]
            for cell in decoder
        ]
        self._sources = [_sources(encoder, k - len(decoder), c) for k, c in enumerate(decoder)]
        if kind == "last":
            _require_the_same_state(encoder, decoder)
        if kind not in ("linear", "mean"):
            return
        for cell, parts, sources in zip(decoder, self._bridged, self._sources, strict=True):
            for part in parts:
                inputs = encoder.output_size
                if kind == "linear" and summary_size:
                    inputs = summary_size
                elif kind == "linear":
                    inputs = sum(encoder.layers[n].state_sizes[p] for n, p in sources[part])
                self.append(nn.Linear(inputs, cell.state_sizes[part]))

    def forward(self, last: State, memory: Tensor, summary: Tensor | None = None) -> State:
        """last: the encoder's last state; memory: (B, S, M) its outputs; summary: (B, C), where
        there is one -> the state before the decoder's first step, parts of (B, H)."""
        if self.kind == "last":
            return last
        maps, B = iter(self), len(memory)
        layers: list[CellState] = []
        for sizes, bridged, sources, counting in zip(
            self._sizes, self._bridged, self._sources, self._counting, strict=True
        ):
            parts = [memory.new_zeros(B, size) for size in sizes]
            for part in bridged if len(self) else ():
                v = memory.mean(1)
                if self.kind == "linear" and summary is not None:
                    v = summary
                elif self.kind == "linear":
                    v = torch.cat([last.layers[n][p] for n, p in sources[part]], dim=1)
                parts[part] = torch.tanh(next(maps)(v))
            if bridged and len(self):  # an sLSTM's c is divided by n: as if of one step before
                for part in counting:
                    parts[part] = torch.ones_like(parts[part])
            layers.append(tuple(parts))
        return State(tuple(layers))


def _sources(encoder: Stack, from_top: int, cell: Cell) -> list[list[tuple[int, int]]]:
    """Of each part of ``cell``'s state, where it starts from: cells of the encoder's layer at the
    place ``from_top`` (-1: the last), and which part of their states."""
    width = encoder.cells_a_layer
    layer = max(0, len(encoder.cells) // width + from_top)
    places = range(layer * width, (layer + 1) * width)
    found: list[list[tuple[int, int]]] = []
    for part, kind in enumerate(cell.part_kinds):
        rank = cell.part_kinds[:part].count(kind)
        alike = [
            [p for p, theirs in enumerate(encoder.layers[n].part_kinds) if theirs == kind]
            for n in places
        ]
        ranked = [like[rank] if rank < len(like) else 0 for like in alike]
        found.append(list(zip(places, ranked, strict=True)))
    return found


def _require_the_same_state(encoder: Stack, decoder: Sequence[Cell]) -> None:
    if encoder.cells_a_layer > 1:
        raise UsageError(
            "model.bridge: 'last' hands the encoder's last state on as it is, and a bidirectional "
            "encoder has two; use 'linear', 'mean' or 'zero'"
        )
    depth, own = len(encoder.cells), len(decoder)
    if depth != own:
        raise UsageError(
            f"model.bridge: 'last' hands each layer's last state to its like, and {depth} layers "
            f"are not {own}; use 'linear', 'mean' or 'zero', or encoder_layers = 0"
        )
    for theirs, cell in zip(encoder.layers, decoder, strict=True):
        if theirs.state_sizes != cell.state_sizes or theirs.part_kinds != cell.part_kinds:
            raise UsageError(
                "model.bridge: 'last' hands each layer's last state to its like, and the encoder's "
                "cells keep another state than the decoder's; use 'linear', 'mean' or 'zero', or "
                "leave encoder_cell out"
            )

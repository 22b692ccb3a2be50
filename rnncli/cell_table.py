"""Every recurrent cell by its name: where it is, whose it is, which options it takes.

One row a name. ``rnncli.nn.cells`` imports the file that a row points to when the cell is made, so
that the table can be read without torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class CellOption:
    """What values an option of a cell may have: one of ``choices``, or from ``low`` to ``high``
    (whatever is true or false needs neither)."""

    choices: tuple[str, ...] = ()
    low: float = 0.0
    high: float = float("inf")


OPTIONS: dict[str, CellOption] = {
    "nonlinearity": CellOption(("tanh", "sigmoid", "relu", "maxout", "lp")),
    "layer_norm": CellOption(),
    "coupled_gates": CellOption(),
    "projection_size": CellOption(low=0),
    "input_depth": CellOption(low=0, high=64),
    "transition_depth": CellOption(low=1, high=64),
    "transition_input": CellOption(("first", "all")),
    "transform_bias": CellOption(low=-20.0, high=20.0),
    "output_depth": CellOption(low=0, high=64),
    "output_size": CellOption(low=0),
    "output_nonlinearity": CellOption(("same", "tanh", "sigmoid", "relu", "maxout", "lp")),
    "shortcuts": CellOption(),
    "maxout_pieces": CellOption(low=2),
    "rounds": CellOption(low=0, high=64),
    "rank": CellOption(low=0),
    "heads": CellOption(low=1),
    "window": CellOption(low=1, high=64),
    "pooling": CellOption(("f", "fo", "ifo")),
    "recurrent_vectors": CellOption(),
    "fast_layers": CellOption(low=2, high=64),
    "slow_size": CellOption(low=0),
    "leak": CellOption(low=0.0, high=1.0),
}
"""The fields of ``ModelConfig`` that belong to cells."""


@dataclass(frozen=True)
class CellRow:
    """``module`` in ``rnncli.nn.cells`` and ``cls`` in it; ``title`` and ``paper`` for people.
    ``options``: those it takes, with its own defaults. ``choices``: of an option of which it takes
    only some values. ``fixed``: options whose values the name stands for. ``frozen``: weights that
    are never learned."""

    module: str
    cls: str
    title: str
    paper: str
    options: Mapping[str, Any] = field(default_factory=dict)
    fixed: Mapping[str, Any] = field(default_factory=dict)
    frozen: tuple[str, ...] = ()
    choices: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


_SIMPLE = {"nonlinearity": ("tanh", "sigmoid", "relu")}

CELLS: dict[str, CellRow] = {
    "elman": CellRow(
        "elman", "Elman", "Elman", "Elman 1990", {"nonlinearity": "tanh"}, choices=_SIMPLE
    ),
    "lstm": CellRow("lstm", "LSTM", "LSTM", "Hochreiter and Schmidhuber 1997; Gers et al. 2000"),
    "gru": CellRow("gru", "GRU", "GRU", "Cho et al. 2014, reset after the product"),
    "gru-cho2014": CellRow("gru", "GRUCho2014", "GRU (Cho 2014)", "Cho et al. 2014, sec. 2.3"),
}

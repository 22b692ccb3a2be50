"""Recurrent cells, one family a file, and the table that names them."""

from __future__ import annotations

from rnncli.config import ModelConfig
from rnncli.errors import UsageError, choices_hint
from rnncli.nn.cells.base import Cell
from rnncli.nn.cells.elman import Elman
from rnncli.nn.cells.gru import GRU, GRUCho2014
from rnncli.nn.cells.lstm import LSTM

CELLS: dict[str, type[Cell]] = {
    "elman": Elman,
    "lstm": LSTM,
    "gru": GRU,
    "gru-cho2014": GRUCho2014,
}

__all__ = ["CELLS", "Cell", "make_cell"]


def make_cell(config: ModelConfig, input_size: int, hidden_size: int) -> Cell:
    """The cell that ``config.cell`` names, with fresh weights."""
    if config.cell not in CELLS:
        raise UsageError(
            f"model.cell: unknown value {config.cell!r}{choices_hint(config.cell, CELLS)}"
        )
    return CELLS[config.cell](config, input_size, hidden_size)

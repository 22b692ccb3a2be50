"""Recurrent cells, one family a file; ``rnncli.cell_table`` names them."""

from __future__ import annotations

from importlib import import_module

from rnncli.nn.cells.base import Cell
from rnncli.nn.cells.layer_norm import layer_normalized
from rnncli.nn.cells.zoneout import Zoneout
from rnncli.sections import ModelConfig

__all__ = ["Cell", "finished", "make_cell"]


def make_cell(config: ModelConfig, input_size: int, hidden_size: int, layer: int = 0) -> Cell:
    """The cell that ``config.cell`` names for ``layer``, with fresh weights.

    Raises UsageError for sizes that the cell cannot have.
    """
    row = config.cell_row(layer)
    module = import_module(f"rnncli.nn.cells.{row.module}")
    make, options = getattr(module, row.cls), config.cell_options(layer)
    if options.get("layer_norm") and _is_plain(make):
        make = layer_normalized(make)
    cell: Cell = make(config.cell_start(layer), options, input_size, hidden_size)
    return finished(cell, config, layer)


def finished(cell: Cell, config: ModelConfig, layer: int = 0) -> Cell:
    """``cell`` with what goes with any: those of ``config.frozen`` fixed that it has, zoneout."""
    weights = dict(cell.named_parameters())
    for name in config.frozen_weights(layer):
        if name in weights:  # it may be of an option that is not taken, or of another layer's cell
            weights[name].requires_grad_(False)
    rates = {"hidden": config.zoneout, "cell": config.zoneout_cell}
    if any(rates.get(kind) for kind in cell.part_kinds):
        return Zoneout(cell, config.zoneout, config.zoneout_cell)
    return cell


def _is_plain(make: object) -> bool:
    """Whether ``make`` is a class of cells that has no layer normalisation of its own."""
    return isinstance(make, type) and issubclass(make, Cell) and not make.normalizes_itself

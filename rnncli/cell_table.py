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
    "forget_gate": CellOption(("sigmoid", "exp")),
    "candidate": CellOption(("linear", "positive")),
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
    """``module`` in ``rnncli.nn.cells`` and ``cls`` in it, a class or what makes a cell; ``title``
    and ``paper`` for people. ``options``: those it takes, with its own defaults. ``choices``: of an
    option of which it takes only some values. ``fixed``: options whose values the name stands for.
    ``frozen``: weights that are not learned unless ``ModelConfig.learned`` names them. ``start``:
    fields of ``ModelConfig`` that say how weights start, with the values that the cell has where
    they are not set. ``forgets``: has forget gates whose bias starts at ``forget_bias``.
    ``recurrent``: multiplies its state by matrices (``Cell.recurrent_weights``)."""

    module: str
    cls: str
    title: str
    paper: str
    options: Mapping[str, Any] = field(default_factory=dict)
    fixed: Mapping[str, Any] = field(default_factory=dict)
    frozen: tuple[str, ...] = ()
    choices: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    start: Mapping[str, Any] = field(default_factory=dict)
    forgets: bool = False
    recurrent: bool = True


_NORM = {"layer_norm": False}
_MINIMAL = {"candidate": "linear", **_NORM}
_SIMPLE = {"nonlinearity": ("tanh", "sigmoid", "relu")}
_LSTM = {"layer_norm": False, "coupled_gates": False, "projection_size": 0, "transition_depth": 1}
_GRU = {"layer_norm": False, "transition_depth": 1}
_PASCANU = "Pascanu et al. 2013, sec. 3"
_LAYERS = {"nonlinearity": "sigmoid", "maxout_pieces": 2, "input_depth": 0, **_NORM}
_TRANSITION = {"transition_depth": 2, "transition_input": "first"}
_ELMAN_S_TRANSITION = {"transition_depth": 1, "transition_input": "first", "shortcuts": False}
_OUTPUT = {"output_depth": 1, "output_size": 0, "output_nonlinearity": "same"}
_NO_OUTPUT = {**_OUTPUT, "output_depth": 0}

CELLS: dict[str, CellRow] = {
    "elman": CellRow(
        "elman",
        "elman",
        "Elman",
        "Elman 1990",
        {"nonlinearity": "tanh", "layer_norm": False},
        choices=_SIMPLE,
    ),
    "irnn": CellRow(
        "elman",
        "elman",
        "IRNN",
        "Le et al. 2015",
        {"layer_norm": False},
        {"nonlinearity": "relu"},
        start={"recurrent_init": "identity", "init": "normal", "init_scale": 0.001},
    ),
    "lstm": CellRow(
        "lstm",
        "lstm",
        "LSTM",
        "Hochreiter and Schmidhuber 1997; Gers et al. 2000",
        _LSTM,
        forgets=True,
    ),
    "lstm-peephole": CellRow(
        "lstm_variants",
        "lstm_peephole",
        "LSTM with peepholes",
        "Graves 2013, eqs. 7 to 11",
        _LSTM,
        forgets=True,
    ),
    "gru": CellRow("gru", "gru", "GRU", "Cho et al. 2014, reset after the product", _GRU),
    "gru-cho2014": CellRow(
        "gru", "gru_cho2014", "GRU (Cho 2014)", "Cho et al. 2014, sec. 2.3", _GRU
    ),
    "mogrifier": CellRow(
        "mogrifier",
        "Mogrifier",
        "Mogrifier LSTM",
        "Melis et al. 2020, sec. 2",
        {"rounds": 5, "rank": 0, "layer_norm": False, "coupled_gates": False, "projection_size": 0},
        forgets=True,
    ),
    "indrnn": CellRow(
        "indrnn",
        "IndRNN",
        "IndRNN",
        "Li et al. 2018",
        {"nonlinearity": "relu", **_NORM},
        choices=_SIMPLE,
        recurrent=False,
    ),
    "slstm": CellRow(
        "slstm",
        "SLSTM",
        "sLSTM",
        "Beck et al. 2024, sec. 2.2",
        {"heads": 1, "forget_gate": "sigmoid", **_NORM},
        forgets=True,
    ),
    "echo-state": CellRow(
        "echo_state",
        "echo_state",
        "Echo state network",
        "Jaeger 2001",
        {"nonlinearity": "tanh", "leak": 1.0, **_NORM},
        frozen=("W_xh", "W_hh", "a", "norm.g"),
        choices=_SIMPLE,
        start={"recurrent_init": "sparse", "spectral_radius": 0.9},
    ),
    "dt-rnn": CellRow(
        "deep_transition",
        "DeepTransition",
        "DT-RNN",
        _PASCANU,
        {**_LAYERS, **_TRANSITION, "shortcuts": False},
        _NO_OUTPUT,
    ),
    "dts-rnn": CellRow(
        "deep_transition",
        "DeepTransition",
        "DT(S)-RNN",
        _PASCANU,
        {**_LAYERS, **_TRANSITION},
        {**_NO_OUTPUT, "shortcuts": True},
    ),
    "do-rnn": CellRow(
        "deep_transition",
        "DeepTransition",
        "DO-RNN",
        _PASCANU,
        {**_LAYERS, **_OUTPUT},
        _ELMAN_S_TRANSITION,
    ),
    "dot-rnn": CellRow(
        "deep_transition",
        "DeepTransition",
        "DOT-RNN",
        _PASCANU,
        {**_LAYERS, **_TRANSITION, "shortcuts": False, **_OUTPUT},
    ),
    "dots-rnn": CellRow(
        "deep_transition",
        "DeepTransition",
        "DOT(S)-RNN",
        _PASCANU,
        {**_LAYERS, **_TRANSITION, **_OUTPUT},
        {"shortcuts": True},
    ),
    "rhn": CellRow(
        "recurrent_highway",
        "RecurrentHighway",
        "RHN",
        "Zilly et al. 2017, sec. 3",
        {"transition_depth": 5, "coupled_gates": True, "transform_bias": -2.0, **_NORM},
    ),
    "fs-rnn": CellRow(
        "fast_slow",
        "FastSlow",
        "FS-LSTM",
        "Mujika et al. 2017, sec. 3",
        {"fast_layers": 2, "slow_size": 0, **_NORM},
        forgets=True,
    ),
    "mingru": CellRow(
        "minimal", "MinGRU", "minGRU", "Feng et al. 2024, sec. 3.1", _MINIMAL, recurrent=False
    ),
    "minlstm": CellRow(
        "minimal", "MinLSTM", "minLSTM", "Feng et al. 2024, sec. 3.2", _MINIMAL, recurrent=False
    ),
    "qrnn": CellRow(
        "qrnn",
        "QRNN",
        "QRNN",
        "Bradbury et al. 2017, sec. 2",
        {"window": 2, "pooling": "fo", **_NORM},
        recurrent=False,
    ),
    "sru": CellRow(
        "sru",
        "make_sru",
        "SRU",
        "Lei et al. 2018",
        {"recurrent_vectors": False, **_NORM},
        recurrent=False,
    ),
    "rg-lru": CellRow(
        "rg_lru", "RGLRU", "RG-LRU", "De et al. 2024, sec. 2.4", _NORM, recurrent=False
    ),
}

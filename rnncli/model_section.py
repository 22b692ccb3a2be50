"""The section of a configuration that says what the network is."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from rnncli.cell_table import CELLS, OPTIONS, CellRow
from rnncli.checks import require_choice, require_range
from rnncli.errors import UsageError

INITS = ("default", "uniform", "normal")
RECURRENT_INITS = ("default", "orthogonal", "identity", "sparse", "uniform", "normal")
DIRECTIONS = ("forward", "backward", "alternating", "bidirectional")
RESIDUALS = ("none", "add", "highway")
ATTENTIONS = ("none", "dot", "general", "additive")
LOOK_UPS = ("after", "layers", "feeding", "before", "between")
CONTEXTS = ("start", "every-step")
READOUTS = ("tanh", "maxout")
OUTPUTS = ("softmax", "adaptive", "nade")
BRIDGES = ("zero", "last", "linear", "mean")
OUTPUT_WEIGHTS = ("W_hy", "b")
"""Those of an output layer: its matrix and its bias."""

INIT_SCALE = 0.1
FORGET_BIAS = 1.0


def cell_names(cell: str) -> tuple[str, ...]:
    """The names in ``ModelConfig.cell``: one, or one a layer."""
    return tuple(name.strip() for name in cell.split(","))


def _require_cells(field: str, text: str, layers: int) -> None:
    """``text``: one name of the table of cells, or one for each layer."""
    names = cell_names(text)
    for name in names:
        require_choice("model", field, name, tuple(CELLS))
    if len(names) not in (1, layers):
        raise UsageError(
            f"model.{field}: {text!r} names {len(names)} cells for {layers} layers; give one, or "
            "one for each layer"
        )


@dataclass(frozen=True)
class ModelConfig:
    """The network. With ``tied`` and unequal sizes the last layer has ``embedding_size`` units.

    ``attention`` is a decoder's, and ``look_up`` where it stands (``rnncli.nn.attentive_cell``),
    with what was looked at before as a part of it if there is ``coverage``;
    ``bridge`` is what leads from the encoder's last state, and ``direction`` the encoder's. Without
    attention the source may be given to every step of the decoder and to its output (``context``).
    An encoder has as many layers as the decoder, or ``encoder_layers``, and its cells, or
    ``encoder_cell``; an option of cells is of the side that takes it (``sides``). Source and target
    have one embedding if ``shared_embedding``; None: if it is ``tied`` and they have one
    vocabulary.

    ``cell`` is a name of ``rnncli.cell_table``, or one for each layer with commas between. The
    other fields that may be None are its own affair, and None is what it has by itself; those
    after ``zoneout_cell`` are options of cells, refused when no layer's cell takes them.

    ``init`` and ``recurrent_init`` (of the matrices that multiply the state) "default": as the cell
    starts by itself (``CellRow.start``, ``rnncli.nn.cells.initialization``). ``init_scale`` belongs
    to ``init`` and to the embedding (None: the cell's, else 0.1), ``recurrent_connections`` a unit
    to a sparse ``recurrent_init``, ``recurrent_scale`` to all but the default one: it multiplies
    the identity, is a deviation, a bound or a largest singular value. ``spectral_radius`` rescales
    the matrices afterwards (0: not; None: the cell's, else not). ``forget_bias`` None: 1, or drawn
    as all else with ``init`` uniform.

    ``output``: a softmax over the whole vocabulary or, of many words, an adaptive one; music has a
    sigmoid for each key, or for each key given those below it: nade, with ``nade_size`` units.

    ``frozen`` names parameters of cells that stay as they start, those of the output layer, W_hy
    and b, or "embedding"; ``learned`` those that are learned although the cell would fix them.
    ``zoneout`` is the chance that a unit of h keeps its value, ``zoneout_cell`` that of cells.
    """

    cell: str = "lstm"
    layers: int = 2
    hidden_size: int = 512
    embedding_size: int = 512
    input: str = "embedding"
    embedding_scale: float = 1.0
    initial_state: str = "zero"
    direction: str = "forward"
    residual: str = "none"
    attention: str = "none"
    look_up: str = "after"
    context: str = "start"
    readout: str = "tanh"
    bridge: str = "linear"
    coverage: bool = False
    encoder_layers: int = 0
    encoder_cell: str = ""
    shared_embedding: bool | None = None
    reverse_source: bool = False
    output: str = "softmax"
    nade_size: int = 128
    adaptive_cutoffs: tuple[int, ...] = ()
    tied: bool = False
    init: str = "default"
    init_scale: float | None = None
    forget_bias: float | None = None
    recurrent_init: str = "default"
    recurrent_scale: float = 1.0
    recurrent_connections: int = 20
    spectral_radius: float | None = None
    frozen: tuple[str, ...] = ()
    learned: tuple[str, ...] = ()
    zoneout: float = 0.0
    zoneout_cell: float = 0.0
    nonlinearity: str | None = None
    layer_norm: bool | None = None
    coupled_gates: bool | None = None
    projection_size: int | None = None
    input_depth: int | None = None
    transition_depth: int | None = None
    transition_input: str | None = None
    transform_bias: float | None = None
    output_depth: int | None = None
    output_size: int | None = None
    output_nonlinearity: str | None = None
    shortcuts: bool | None = None
    maxout_pieces: int | None = None
    rounds: int | None = None
    rank: int | None = None
    heads: int | None = None
    forget_gate: str | None = None
    candidate: str | None = None
    window: int | None = None
    pooling: str | None = None
    recurrent_vectors: bool | None = None
    fast_layers: int | None = None
    slow_size: int | None = None
    leak: float | None = None

    def __post_init__(self) -> None:
        _require_cells("cell", self.cell, self.layers)
        if self.encoder_cell:
            _require_cells("encoder_cell", self.encoder_cell, self.encoder_depth)
        require_choice("model", "input", self.input, ("embedding", "one-hot"))
        require_choice("model", "initial_state", self.initial_state, ("zero", "learned"))
        require_choice("model", "direction", self.direction, DIRECTIONS)
        require_choice("model", "residual", self.residual, RESIDUALS)
        if self.attention == "concat":
            raise UsageError(
                "model.attention: what Luong et al. call concat is the additive attention of "
                "Bahdanau et al.; use 'additive'"
            )
        require_choice("model", "attention", self.attention, ATTENTIONS)
        require_choice("model", "look_up", self.look_up, LOOK_UPS)
        require_choice("model", "context", self.context, CONTEXTS)
        require_choice("model", "readout", self.readout, READOUTS)
        require_choice("model", "bridge", self.bridge, BRIDGES)
        require_choice("model", "output", self.output, OUTPUTS)
        require_choice("model", "init", self.init, INITS)
        require_choice("model", "recurrent_init", self.recurrent_init, RECURRENT_INITS)
        for name in (
            "layers",
            "hidden_size",
            "embedding_size",
            "recurrent_connections",
            "nade_size",
        ):
            require_range("model", name, getattr(self, name), 1)
        require_range("model", "encoder_layers", self.encoder_layers, 0)
        for name in ("init_scale", "embedding_scale", "recurrent_scale", "spectral_radius"):
            require_range("model", name, getattr(self, name), 0.0)
        for name in ("zoneout", "zoneout_cell"):
            require_range("model", name, getattr(self, name), 0.0, 1.0, open_high=True)
        self._check_options()
        self._check_learned()
        at_every_step = self.look_up in ("feeding", "before", "between")
        if self.coverage and not (self.attention == "additive" and at_every_step):
            raise UsageError(
                "model.coverage: what was looked at before is a part of additive attention at "
                "every step; use attention = 'additive' and look_up = 'feeding', 'before' or "
                "'between'"
            )
        if self.input == "one-hot" and self.embedding_scale != 1.0:
            raise UsageError(
                "model.embedding_scale: a one-hot input is the identity and is not scaled; "
                "use input = 'embedding' or embedding_scale = 1.0"
            )
        if self.tied and self.input == "one-hot":
            raise UsageError(
                "model.tied: a one-hot input has no embedding to share with the output layer; "
                "use input = 'embedding' or tied = false"
            )
        if self.tied and self.output == "adaptive":
            raise UsageError(
                "model.tied: the adaptive softmax has no single output matrix to tie; "
                "use output = 'softmax' or tied = false"
            )
        cutoffs = self.adaptive_cutoffs
        if any(b <= a for a, b in zip((0, *cutoffs), cutoffs, strict=False)):
            raise UsageError(
                f"model.adaptive_cutoffs: {list(cutoffs)} must be positive and increasing"
            )

    def _check_options(self) -> None:
        rows = [CELLS[name] for name in self.all_cell_names()]
        for name, option in OPTIONS.items():
            value = getattr(self, name)
            if value is None:
                continue
            taking = [row for row in rows if name in row.options]
            if not taking:
                takers = ", ".join(cell for cell, row in CELLS.items() if name in row.options)
                raise UsageError(
                    f"model.{name}: {self.cells} has no such option; cells that have it: {takers}"
                )
            if option.choices:
                for row in taking:
                    choices = row.choices.get(name, option.choices)
                    require_choice("model", name, value, choices)
            elif not isinstance(value, bool):
                require_range("model", name, value, option.low, option.high)

    def _check_learned(self) -> None:
        rows = [CELLS[name] for name in self.all_cell_names()]
        fixed = [name for row in rows for name in row.frozen]
        if not self.layer_norm:
            fixed = [name for name in fixed if not name.startswith("norm")]
        if any("W_xh" in side.cell_row(0).frozen for side in self.sides()):
            fixed.append("embedding")
        for name in self.learned:
            if name not in fixed:
                what = ", ".join(dict.fromkeys(fixed)) or "nothing"
                raise UsageError(
                    f"model.learned: {name!r} is learned anyway; {self.cells} fixes {what}"
                )
            if name in self.frozen:
                raise UsageError(f"model.learned: {name!r} is in model.frozen too; choose one")

    def cell_names(self) -> tuple[str, ...]:
        """The names in ``cell``: one, or one a layer."""
        return cell_names(self.cell)

    def all_cell_names(self) -> tuple[str, ...]:
        """Those of ``cell`` and of ``encoder_cell``."""
        return (*self.cell_names(), *(cell_names(self.encoder_cell) if self.encoder_cell else ()))

    @property
    def cells(self) -> str:
        """The names of all cells, for messages."""
        return ",".join(dict.fromkeys(self.all_cell_names()))

    @property
    def encoder_depth(self) -> int:
        """Layers of an encoder."""
        return self.encoder_layers or self.layers

    def sides(self) -> tuple[ModelConfig, ...]:
        """Configurations of one kind of cells each: this one or, with an ``encoder_cell``, the
        decoder's and the encoder's, without what only the other takes."""
        if not self.encoder_cell:
            return (self,)
        return self._side(self.cell, self.layers), self.encoder_side()

    def encoder_side(self) -> ModelConfig:
        """The configuration of the encoder's layers."""
        return self._side(self.encoder_cell or self.cell, self.encoder_depth)

    def _side(self, cell: str, layers: int) -> ModelConfig:
        rows = [CELLS[name] for name in cell_names(cell)]
        untaken = [name for name in OPTIONS if not any(name in row.options for row in rows)]
        fixed = {name for row in rows for name in row.frozen}
        if "W_xh" in rows[0].frozen:
            fixed.add("embedding")
        learned = tuple(name for name in self.learned if name in fixed)
        own: dict[str, Any] = {**dict.fromkeys(untaken), "learned": learned}
        own |= {"cell": cell, "layers": layers, "encoder_cell": "", "encoder_layers": 0}
        return dataclasses.replace(self, **own)

    def cell_row(self, layer: int) -> CellRow:
        """The table's row for the cell of ``layer``, from 0."""
        names = self.cell_names()
        return CELLS[names[layer if len(names) > 1 else 0]]

    def cell_options(self, layer: int) -> dict[str, Any]:
        """The options of the cell of ``layer``: given, or its own defaults."""
        given = {name: getattr(self, name) for name in OPTIONS}
        row = self.cell_row(layer)
        return {**row.fixed} | {
            name: default if given[name] is None else given[name]
            for name, default in row.options.items()
        }

    def cell_start(self, layer: int) -> ModelConfig:
        """This configuration with what the cell of ``layer`` starts from where nothing is set."""
        return dataclasses.replace(self, **self.own_start(layer))

    def own_start(self, layer: int) -> dict[str, Any]:
        """The fields by which the cell of ``layer`` starts elsewhere, unless they are set."""
        start = {
            name: value
            for name, value in self.cell_row(layer).start.items()
            if getattr(self, name) in (None, "default")
        }
        if self.init != "default":
            start.pop("init_scale", None)  # that of another kind of start
        elif "W_xh" in self.frozen_weights(layer) and self.input == "one-hot" and layer == 0:
            start["init"] = "normal"
            if self.init_scale is None:
                start["init_scale"] = 1.0  # of all weights a unit sees but one
        return start

    @property
    def start_scale(self) -> float:
        """``init_scale`` of weights that start nowhere else."""
        return INIT_SCALE if self.init_scale is None else self.init_scale

    @property
    def forget_start(self) -> float | None:
        """Where the biases of forget gates start; None: as ``init`` says."""
        usual = None if self.init == "uniform" else FORGET_BIAS
        return usual if self.forget_bias is None else self.forget_bias

    def frozen_weights(self, layer: int) -> tuple[str, ...]:
        """The parameters of the cell of ``layer`` that are not learned."""
        names = dict.fromkeys((*self.frozen, *self.cell_row(layer).frozen))
        elsewhere = ("embedding", *OUTPUT_WEIGHTS)
        return tuple(name for name in names if name not in (*self.learned, *elsewhere))

    @property
    def embedding_is_fixed(self) -> bool:
        """Whether the table of vectors stays as it starts: when it is named, and where it is read
        through nothing but a fixed matrix."""
        if "embedding" in (*self.frozen, *self.learned):
            return "embedding" in self.frozen
        fixed = {*self.cell_row(0).frozen} - {*self.learned}
        return "W_xh" in fixed and not self.tied

    def layer_sizes(self) -> tuple[int, ...]:
        """Hidden units of each layer, first to last. A projection is as wide as the embedding where
        it is tied, and the layer below it need not be."""
        last = self.embedding_size if self.tied and not self.projection_size else self.hidden_size
        return (self.hidden_size,) * (self.layers - 1) + (last,)

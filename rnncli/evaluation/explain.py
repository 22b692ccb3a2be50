"""What a language model makes of each token of a text: how surprised it is, or what a unit does.

The visualisations of Karpathy, Johnson and Fei-Fei 2015 (arXiv:1506.02078, sec. 4.2): a text whose
tokens are coloured by the activation of one unit after it has read them, by that of one of the
unit's gates, or by the surprisal -log2 p of each token before it is read.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from rnncli.errors import UsageError, choices_hint
from rnncli.evaluation.gates import gate_names, gate_size, gate_values
from rnncli.evaluation.language_model import nats_of_lines
from rnncli.evaluation.pieces import PIECE, fill_lines, group_lines
from rnncli.loading import Loaded
from rnncli.models.language_model import LanguageModel
from rnncli.nn.recurrence.trace import Trace
from rnncli.nn.stack import Run
from rnncli.nn.state import State
from rnncli.sections import STATES

DTYPE = torch.float64
"""As ``rnncli score``: what is printed does not depend on the lines that are run together."""

_LINES_AT_ONCE = 32
Values = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Explained:
    """tokens: the ids of ``line`` and the boundary that ends it; values: one for each, (n + 1,)."""

    line: str
    tokens: tuple[int, ...]
    values: Values


@dataclass(frozen=True)
class Unit:
    """A unit of a layer, both counted from 0, and one of its gates or, if empty, its output: what
    the cell emits for the next layer, h or what QRNN, SRU and an output network make of it."""

    layer: int
    number: int
    gate: str = ""


def parse_unit(text: str, gate: str, model: LanguageModel) -> Unit:
    """``"2:137"``, the layer and the unit counted from 1.

    Raises UsageError for what ``model`` has not.
    """
    layer, colon, number = text.partition(":")
    if not (colon and layer.isdecimal() and number.isdecimal()):
        raise UsageError(f"--unit {text!r}: expected LAYER:UNIT, counted from 1, as in 2:137")
    cells = model.stack.layers
    if not 1 <= int(layer) <= len(cells):
        raise UsageError(f"--unit {text}: there is no layer {layer}; choices: 1 to {len(cells)}")
    cell = cells[int(layer) - 1]
    if gate and gate not in gate_names(cell):
        names = gate_names(cell)
        hint = choices_hint(gate, names) if names else "; it has none"
        raise UsageError(f"--gate: layer {layer} has no gate {gate!r}{hint}")
    size = gate_size(cell, gate) if gate else cell.output_size
    if not 1 <= int(number) <= size:
        raise UsageError(f"--unit {text}: layer {layer} has no unit {number}; choices: 1 to {size}")
    return Unit(int(layer) - 1, int(number) - 1, gate)


def explain(
    loaded: Loaded,
    batches: Iterable[Sequence[str]],
    *,
    unit: Unit | None = None,
    state: str = "reset",
    strip_lines: bool = False,
) -> Iterator[list[Explained]]:
    """What each line of each batch gives: surprisal in bits, or with ``unit`` what that does.

    ``state`` reset: each line by itself, as ``rnncli score``; carried: from line to line. Raises
    UsageError for another one, and for a model that reads what it predicts.
    """
    if state not in STATES:
        raise UsageError(f"--state: unknown value {state!r}{choices_hint(state, STATES)}")
    model = copy.deepcopy(loaded.model).to(DTYPE)
    reader: _Reader = _Surprisal(model) if unit is None else _Activation(model, unit)
    tokenizer = loaded.tokenizer
    carried = _begin(model, tokenizer.boundary_id)
    for lines in batches:
        if strip_lines:
            lines = [line.strip() for line in lines]
        tokens = [(*tokenizer.encode(line), tokenizer.boundary_id) for line in lines]
        if state == "reset":
            values = reader.lines(tokens)
        elif not lines:
            values = []
        else:
            together, carried = reader.go_on([t for line in tokens for t in line], carried)
            values = np.split(together, np.cumsum([len(line) for line in tokens])[:-1])
        yield [Explained(*one) for one in zip(lines, tokens, values, strict=True)]


@dataclass(frozen=True)
class _Carried:
    """Where a stream stands: the last token, which is not read yet, and the state before it."""

    token: int
    state: State


def _begin(model: LanguageModel, boundary_id: int) -> _Carried:
    return _Carried(boundary_id, model.start(None, 1))


class _Reader(Protocol):
    def lines(self, tokens: Sequence[tuple[int, ...]]) -> list[Values]:
        """A value for each token of each line, which ends with the boundary."""
        ...

    def go_on(self, tokens: Sequence[int], before: _Carried) -> tuple[Values, _Carried]:
        """A value for each of the next ``tokens`` of a stream."""
        ...


class _Surprisal:
    """-log2 p of each token, from what precedes it."""

    def __init__(self, model: LanguageModel) -> None:
        self._model = model

    def lines(self, tokens: Sequence[tuple[int, ...]]) -> list[Values]:
        boundary = tokens[0][-1] if tokens else 0
        bodies = [line[:-1] for line in tokens]
        nats = nats_of_lines(self._model, bodies, boundary, run_as=Run(dtype=DTYPE))
        return [values / math.log(2) for values in nats]

    def go_on(self, tokens: Sequence[int], before: _Carried) -> tuple[Values, _Carried]:
        state, found = before.state, []
        both = torch.tensor([before.token, *tokens], device=_device(self._model)).unsqueeze(1)
        with torch.inference_mode():
            for start in range(0, len(tokens), PIECE):
                stop = min(start + PIECE, len(tokens))
                inputs, targets = both[start:stop], both[start + 1 : stop + 1]
                nats, state = self._model.nats(inputs, targets, state, Run(dtype=DTYPE))
                found.append(nats[:, 0].double().cpu().numpy() / math.log(2))
        last = tokens[-1] if tokens else before.token
        return np.concatenate([np.empty(0), *found]), _Carried(last, state)


class _Activation:
    """What a unit, or one of its gates, is after each token is read."""

    def __init__(self, model: LanguageModel, unit: Unit) -> None:
        require_causal(model)
        self._model, self._unit = model, unit

    def lines(self, tokens: Sequence[tuple[int, ...]]) -> list[Values]:
        results: list[Values] = [np.empty(0)] * len(tokens)
        lengths = np.array([len(line) for line in tokens], np.int64)
        for numbers in group_lines(lengths, _LINES_AT_ONCE):
            first, rest, _ = fill_lines([tokens[n][:-1] for n in numbers], tokens[0][-1])
            # The boundary before the lines is read first, and its value dropped.
            read = np.concatenate([first[:1], rest])
            values, _ = self._run(read, self._model.start(None, len(numbers)))
            for column, n in enumerate(numbers):
                results[n] = values[1 : lengths[n] + 1, column]
        return results

    def go_on(self, tokens: Sequence[int], before: _Carried) -> tuple[Values, _Carried]:
        if not tokens:
            return np.empty(0), before
        read = np.array([before.token, *tokens[:-1]], np.int64)[:, None]
        early, state = self._run(read, before.state)
        late, _ = self._run(np.array([[tokens[-1]]], np.int64), state)
        return np.concatenate([early[1:, 0], late[:, 0]]), _Carried(tokens[-1], state)

    def _run(self, read: npt.NDArray[np.int64], state: State) -> tuple[Values, State]:
        """read: (T, B) -> values (T, B)."""
        found = []
        for start in range(0, len(read), PIECE):
            tokens = torch.from_numpy(read[start : start + PIECE]).to(_device(self._model))
            traces, state = trace_layers(self._model, tokens, state)
            found.append(_values(traces[self._unit.layer], self._unit).cpu().numpy())
        return np.concatenate(found), state


def trace_layers(model: LanguageModel, tokens: Tensor, state: State) -> tuple[list[Trace], State]:
    """tokens: (T, B) -> every layer's run over them, and the last state."""
    traces: list[Trace] = []
    with torch.inference_mode():
        _, state = model.hidden(tokens, state, Run("reference", DTYPE, traces))
    return traces, state


def _values(trace: Trace, unit: Unit) -> Tensor:
    """(T, B) of one unit or gate."""
    values = gate_values(trace, unit.gate) if unit.gate else trace.outputs
    return values[:, :, unit.number]


def require_causal(model: LanguageModel) -> None:
    """Raise UsageError for layers that read later tokens."""
    if not model.stack.is_causal:
        raise UsageError("model.direction: a layer that runs backward has read what is to come")


def _device(model: LanguageModel) -> torch.device:
    return model.embedding.weight.device

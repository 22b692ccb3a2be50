"""Units that follow something simple: where in the line, in the word, inside quotes or brackets.

Karpathy et al. 2015 (sec. 4.2) found them by looking at coloured texts. Here every unit of every
layer is correlated with what a few lines of code can tell of the text that has been read.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from rnncli.evaluation.explain import DTYPE, require_causal, trace_layers
from rnncli.loading import Loaded
from rnncli.nn.state import State
from rnncli.text.tokenizers import Tokenizer

FEATURES = ("place in the line", "place in the word", "inside quotes", "inside brackets")

_PIECE = 1024
_TOGGLE, _OPEN, _CLOSE = '"', "“([{", "”)]}"


@dataclass(frozen=True)
class Follows:
    """A unit (its layer and number counted from 1), what it follows, and how closely: the
    correlation over all tokens read."""

    layer: int
    unit: int
    feature: str
    correlation: float


def top_units(loaded: Loaded, batches: Iterable[Sequence[str]], count: int) -> list[Follows]:
    """The ``count`` units that follow a feature most closely, each with its closest one. The state
    is carried over the whole text."""
    model = copy.deepcopy(loaded.model).to(DTYPE)
    require_causal(model)
    sums = _Sums()
    state: State = model.start(None, 1)
    device = model.embedding.weight.device
    for tokens, features in _pieces(loaded.tokenizer, batches):
        read = torch.tensor(tokens, device=device).unsqueeze(1)
        traces, state = trace_layers(model, read, state)
        units = torch.cat([trace.outputs[:, 0] for trace in traces], dim=1)
        sums.add(units.cpu().numpy(), features)
    sizes = [cell.output_size for cell in model.stack.layers]
    places = [(layer + 1, unit + 1) for layer, size in enumerate(sizes) for unit in range(size)]
    found = sums.correlations()
    if found is None:
        return []
    best = np.abs(found).argmax(axis=1)
    closest = np.abs(found).max(axis=1).argsort(kind="stable")[::-1][:count]
    return [
        Follows(places[n][0], places[n][1], FEATURES[best[n]], float(found[n, best[n]]))
        for n in closest.tolist()
    ]


def _pieces(
    tokenizer: Tokenizer, batches: Iterable[Sequence[str]]
) -> Iterator[tuple[list[int], npt.NDArray[np.float64]]]:
    """Some tokens, and the features (T, F) after each of them."""
    reading = Reading()
    decoder = tokenizer.decoder()
    tokens: list[int] = []
    rows: list[tuple[float, ...]] = []
    for lines in batches:
        for line in lines:
            for token in (*tokenizer.encode(line), tokenizer.boundary_id):
                reading.read(decoder.push(token))
                tokens.append(token)
                rows.append(reading.features())
                if len(tokens) == _PIECE:
                    yield tokens, np.array(rows)
                    tokens, rows = [], []
    if tokens:
        yield tokens, np.array(rows)


class Reading:
    """What the text so far says about its end."""

    def __init__(self) -> None:
        self._line = self._word = self._depth = 0
        self._quoted = False

    def read(self, text: str) -> None:
        for char in text:
            self._line = 0 if char == "\n" else self._line + 1
            self._word = 0 if char.isspace() else self._word + 1
            if char == _TOGGLE:
                self._quoted = not self._quoted
            elif char == _OPEN[0]:
                self._quoted = True
            elif char == _CLOSE[0]:
                self._quoted = False
            elif char in _OPEN:
                self._depth += 1
            elif char in _CLOSE:
                self._depth = max(0, self._depth - 1)
            if char == "\n":  # what was left open by mistake is not open for ever
                self._quoted, self._depth = False, 0

    def features(self) -> tuple[float, ...]:
        """In the order of ``FEATURES``."""
        return (
            float(self._line),
            float(self._word),
            float(self._quoted),
            float(self._depth > 0),
        )


class _Sums:
    """Sums over tokens of units u (T, U), features f (T, F), their squares and products."""

    def __init__(self) -> None:
        self._tokens = 0
        self._sums: list[npt.NDArray[np.float64]] = []

    def add(self, u: npt.NDArray[np.float64], f: npt.NDArray[np.float64]) -> None:
        new = [u.sum(0), f.sum(0), (u * u).sum(0), (f * f).sum(0), u.T @ f]
        self._sums = [a + b for a, b in zip(self._sums, new, strict=True)] if self._sums else new
        self._tokens += len(u)

    def correlations(self) -> npt.NDArray[np.float64] | None:
        """(U, F): 0 for what never changes; None before any token."""
        if not self._tokens:
            return None
        n, (u, f, uu, ff, uf) = self._tokens, self._sums
        spread_u = np.maximum(0.0, n * uu - u * u)
        spread_f = np.maximum(0.0, n * ff - f * f)
        under = np.sqrt(np.outer(spread_u, spread_f))
        above = n * uf - np.outer(u, f)
        found: npt.NDArray[np.float64] = np.zeros_like(above)
        np.divide(above, under, out=found, where=under > 1e-9 * n * n)
        return found

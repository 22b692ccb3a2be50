"""A language model made ready to generate: the prompt in one pass, then one token at a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from rnncli.models.fast_cells import FastCell
from rnncli.models.language_model import LanguageModel
from rnncli.models.packed import pack
from rnncli.models.prepared_stack import PreparedStack, Project
from rnncli.nn.cells.base import Cell
from rnncli.nn.softmax import Softmax
from rnncli.nn.stack import Run
from rnncli.nn.state import State

_TABLE_ELEMENTS = 1 << 22
"""Of the first layer's table: small enough that making it costs less than a hundred steps save."""


_PROMPT_PIECE = 1024
"""Tokens of a prompt read at once: memory does not grow with the prompt."""


def read_prompt(model: LanguageModel, prompt: Sequence[int]) -> State:
    """The state, one row, after all tokens of ``prompt`` (N,) but the last, which is for the first
    step. What does not wait for the state is one product for many time steps."""
    device = model.embedding.weight.device
    state = model.start(None, 1)
    with torch.inference_mode():
        inputs = torch.tensor(prompt[:-1], dtype=torch.int64, device=device).unsqueeze(1)
        for start in range(0, len(inputs), _PROMPT_PIECE):
            piece = inputs[start : start + _PROMPT_PIECE]
            _, state = model.hidden(piece, state, Run())
    return state


class PreparedStepper:
    """A language model's step contract on weights laid out for it; its ``State`` is the model's."""

    def __init__(self, model: LanguageModel, precision: str) -> None:
        """Raises UsageError for a precision that this machine does not have."""
        self._model = model
        self._stack = PreparedStack(model.stack, precision)
        first = _first_input(model, model.stack.layers[0], self._stack.cells[0])
        self._embeds = first is None
        if first is not None:
            self._stack.inputs[0] = first
        self._logits = _output(model, precision)

    def start(self, source: None, rows: int) -> State:
        """The state before the first token."""
        return self._model.start(None, rows)

    def step(self, tokens: Tensor, state: State) -> tuple[Tensor, State]:
        """tokens: (B,) -> logits (B, V) and the next state."""
        x, after = self._stack.step(
            self._model.embedding(tokens) if self._embeds else tokens, state
        )
        return self._logits(x), after


def prepare_stepper(model: LanguageModel, precision: str = "float32") -> PreparedStepper:
    """``model`` for generation, some rows at a time. ``precision``: of the weights, one of
    ``rnncli.models.packed.PRECISIONS``; float32 gives the logits of ``model.step``. The weights are
    copied. Raises UsageError as ``pack`` does."""
    with torch.inference_mode():
        return PreparedStepper(model, precision)


def _first_input(model: LanguageModel, cell: Cell, fast: FastCell) -> Project | None:
    """The same from tokens (B,): a row of a table where that is small, W_xh applied to the whole
    vocabulary. None where the vectors themselves are needed."""
    embedding = model.embedding
    if not cell.reads_by_matrix or not model.stack.reads_through(0):
        return None
    W_xh = cell.input_matrix
    if embedding.one_hot:
        products = W_xh.t()
    elif len(embedding.weight) * len(W_xh) > _TABLE_ELEMENTS:
        return None
    else:
        products = F.linear(embedding.weight * embedding.scale, W_xh)
    table = fast.rows(cell.sums(products).t()).t().contiguous()
    return lambda tokens, state: F.embedding(tokens, table)


def _output(model: LanguageModel, precision: str) -> Callable[[Tensor], Tensor]:
    """h (B, H) -> logits (B, V)."""
    output = model.output
    if isinstance(output, Softmax):
        return pack(output.matrix(model.tied_weight), output.b, precision)
    return lambda h: output.logits(h, model.tied_weight)

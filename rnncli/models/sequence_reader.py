"""A network that reads a whole sequence of vectors and answers at its last steps."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rnncli.nn.cells.initialization import fill_output
from rnncli.nn.dropout import dropout
from rnncli.nn.softmax import keep_fixed
from rnncli.nn.stack import Run, Stack, require_frozen
from rnncli.sections import ModelConfig, RegularizationConfig


class SequenceReader(nn.Module):
    """Recurrent layers, and y(t) = W_hy h(t) + b: numbers, or logits of classes."""

    def __init__(self, config: ModelConfig, inputs: int, outputs: int) -> None:
        super().__init__()
        self.stack = Stack(config, inputs)
        size = self.stack.output_size
        self.W_hy = nn.Parameter(torch.empty(outputs, size))
        self.b = nn.Parameter(torch.zeros(outputs))
        fill_output(self.W_hy, config)
        require_frozen(config, [self.stack])
        keep_fixed(self, config)

    def forward(
        self, x: Tensor, answers: int, run_as: Run, rates: RegularizationConfig | None = None
    ) -> Tensor:
        """x: (T, B, I) -> y of the last ``answers`` steps: (answers, B, O). ``rates``: with this
        dropout, as in training."""
        if rates is not None:
            x = dropout(x, rates.input_rate, locked=rates.locked)
        h, _ = self.stack(x, self.stack.start(x.shape[1]), run_as, rates)
        h = h[-answers:].to(self.W_hy.dtype)
        if rates is not None:
            h = dropout(h, rates.output_rate, locked=rates.locked)
        return F.linear(h, self.W_hy, self.b)

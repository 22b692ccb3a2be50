"""What every recurrent cell is made of.

A cell splits its equations in two. ``project`` is all that does not depend on the state: one large
product over all time steps. ``step`` is the rest, for one time step; it multiplies the state only
through ``product``, so that ``rnncli.nn.recurrence`` can choose how those products are run and how
their weight gradients are formed.

Names follow the textbook's h(t) = f(W_xh x(t) + W_hh h(t-1) + a): ``W_xh`` (G, I), ``W_hh`` (G, H)
and ``a`` (G,), where G is H times the number of gates.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rnncli.config import ModelConfig
from rnncli.nn.state import CellState

Product = Callable[[str, Tensor], Tensor]
"""``product(name, v)``: recurrent matrix ``name`` (G, H) times each row of v (B, H) -> (B, G)."""


class Cell(nn.Module):
    """A recurrence. Subclasses set ``gates``, ``state_parts`` and write ``step``."""

    gates = 1
    state_parts = 1

    def __init__(self, config: ModelConfig, input_size: int, hidden_size: int) -> None:
        super().__init__()
        self.input_size = input_size
        self.hidden_size = hidden_size
        rows = self.gates * hidden_size
        self.W_xh = nn.Parameter(torch.empty(rows, input_size))
        self.W_hh = nn.Parameter(torch.empty(rows, hidden_size))
        self.a = nn.Parameter(torch.empty(rows))

    def recurrent_weights(self) -> dict[str, Tensor]:
        """The matrices that multiply the state, by name."""
        return {"W_hh": self.W_hh}

    def project(self, x: Tensor, dtype: torch.dtype) -> Tensor:
        """x: (T, B, I) -> W_xh x + a: (T, B, G), products in ``dtype``."""
        if x.dtype == dtype == self.W_xh.dtype:
            return F.linear(x, self.W_xh, self.a)
        return F.linear(x.to(dtype), self.W_xh.to(dtype)).to(self.a.dtype) + self.a

    def step(self, projected: Tensor, state: CellState, product: Product) -> CellState:
        """projected: (B, G), state: parts of (B, H) -> the next state; its first part is h(t)."""
        raise NotImplementedError(type(self).__name__)

    def zero_state(self, rows: int) -> CellState:
        zero = self.a.new_zeros(rows, self.hidden_size)
        return (zero,) * self.state_parts

    def reset_parameters(self, config: ModelConfig) -> None:
        """Fill the weights as ``config.init`` says.

        default: input matrices with variance 1/I, recurrent ones orthogonal gate by gate (Saxe et
        al. 2014), biases 0. uniform: everything from U(-init_scale, init_scale). normal: matrices
        from N(0, init_scale^2), biases 0.
        """
        for name, weight in self.named_parameters(recurse=False):
            if config.init == "uniform":
                nn.init.uniform_(weight, -config.init_scale, config.init_scale)
            elif weight.dim() == 1:
                nn.init.zeros_(weight)
            elif config.init == "normal":
                nn.init.normal_(weight, std=config.init_scale)
            elif name in self.recurrent_weights():
                for block in torch.split(weight.data, self.hidden_size):
                    nn.init.orthogonal_(block)
            else:
                nn.init.normal_(weight, std=self.input_size**-0.5)

"""Input and output of models of music, where a time step is not one token but a set of keys.

A frame is a vector of K zeros and ones, and the keys of the next frame are independent of each
other given the hidden state (Boulanger-Lewandowski et al. 2012, sec. 2; Pascanu et al. 2013).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rnncli.nn.cells.base import Cell
from rnncli.nn.dropout import embedding_row_scale
from rnncli.sections import ModelConfig


class KeyInput(nn.Module):
    """frames (..., K) -> what the first layer reads (..., E).

    ``embedding``: the sum of the vectors of the keys that sound, times ``embedding_scale``;
    ``one-hot``: the frame itself, E = K.
    """

    def __init__(self, config: ModelConfig, keys: int) -> None:
        super().__init__()
        self.scale = config.embedding_scale
        self.weight: nn.Parameter | None = None
        self.keys = keys
        self.size = keys
        if config.input == "embedding":
            self.size = config.embedding_size
            self.weight = nn.Parameter(torch.empty(keys, self.size))
            with torch.no_grad():
                if config.init == "normal":
                    self.weight.normal_(std=config.start_scale)
                else:
                    self.weight.uniform_(-config.start_scale, config.start_scale)

    def forward(self, frames: Tensor, key_dropout: float, dtype: torch.dtype) -> Tensor:
        """``key_dropout``: the rate at which keys are silenced, in all frames of the batch alike;
        ``dtype``: of the operands of the product."""
        if key_dropout:
            frames = frames * embedding_row_scale(self.keys, key_dropout, frames).squeeze(1)
        if self.weight is None:
            return frames
        vectors = Cell.linear(frames, self.weight.t(), None, dtype)
        return vectors if self.scale == 1.0 else vectors * self.scale


class KeyOutput(nn.Module):
    """logits = W_hy h + b, one a key; p(key) = sigmoid(logit). W_hy (K, H) may be the weight of
    the input."""

    def __init__(self, config: ModelConfig, input_size: int, keys: int) -> None:
        super().__init__()
        self.b = nn.Parameter(torch.zeros(keys))
        self.W_hy: nn.Parameter | None = None
        if not config.tied:
            self.W_hy = nn.Parameter(torch.empty(keys, input_size))
            bound = config.start_scale if config.init != "default" else input_size**-0.5
            with torch.no_grad():
                self.W_hy.uniform_(-bound, bound)

    def start_from(self, counts: Tensor, frames: int) -> None:
        """Make the untrained layer predict how often each key sounds: in ``counts`` (K,) of so
        many frames."""
        smoothed = counts.to(torch.float64) + 0.1
        with torch.no_grad():
            self.b.copy_(torch.log(smoothed / (frames + 0.2 - smoothed)))

    def logits(self, h: Tensor, tied: Tensor | None, dtype: torch.dtype) -> Tensor:
        """h: (..., H) -> (..., K), in the weights' type."""
        weight = self.W_hy if self.W_hy is not None else tied
        assert weight is not None
        return Cell.linear(h, weight, self.b, dtype)


def frame_nats(logits: Tensor, frames: Tensor) -> Tensor:
    """-log p of each frame: the sum of its keys' binary cross-entropies. logits, frames: (..., K)
    -> (...)."""
    return F.binary_cross_entropy_with_logits(logits, frames, reduction="none").sum(-1)

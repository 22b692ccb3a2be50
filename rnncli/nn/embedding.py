"""The input layer: a table of vectors, or the one-hot vectors themselves."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rnncli.nn.dropout import embedding_row_scale
from rnncli.sections import ModelConfig


class Embedding(nn.Module):
    """tokens (T, B) -> vectors (T, B, E), times ``embedding_scale``: a table that is tied to the
    output layer has small values there, and the recurrent layers want larger ones.

    ``one-hot``: the table is the identity (V, V), fixed, so that W_xh x picks a column of W_xh. It
    is a buffer that is not saved; multiplying by it gives bit for bit the chosen column.
    """

    def __init__(self, config: ModelConfig, vocab_size: int) -> None:
        super().__init__()
        self.one_hot = config.input == "one-hot"
        self.scale = config.embedding_scale
        self.size = vocab_size if self.one_hot else config.embedding_size
        self.weight: Tensor
        if self.one_hot:
            self.register_buffer("weight", torch.eye(vocab_size), persistent=False)
        else:
            self.weight = nn.Parameter(torch.empty(vocab_size, self.size))
            with torch.no_grad():
                if config.init == "normal":
                    self.weight.normal_(std=config.start_scale)
                else:
                    bound = config.start_scale
                    self.weight.uniform_(-bound, bound)

    def materialize(self, device: torch.device | str) -> None:
        """Make the identity again where the table was built without storage."""
        if self.one_hot:
            self.weight = torch.eye(self.size, device=device)

    def forward(self, tokens: Tensor, word_dropout: float = 0.0) -> Tensor:
        vectors = F.embedding(tokens, self.weight)
        if word_dropout:
            scale = embedding_row_scale(len(self.weight), word_dropout, self.weight)
            vectors = vectors * scale[tokens]
        return vectors if self.scale == 1.0 else vectors * self.scale

"""Independent truths: the same probabilities, computed the slow and obvious way."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from rnncli.models.language_model import LanguageModel
from rnncli.nn.stack import Run
from rnncli.sections import ModelConfig

DOUBLE = Run(dtype=torch.float64)


def small_model(vocab_size: int = 7, seed: int = 0, **config: Any) -> LanguageModel:
    """A random model in float64 whose predictions differ a lot from token to token."""
    torch.manual_seed(seed)
    sizes = {"layers": 2, "hidden_size": 5, "embedding_size": 4, **config}
    model = LanguageModel(ModelConfig(**sizes), vocab_size).double()
    with torch.no_grad():
        for name, weight in model.named_parameters():
            weight.normal_(std=0.2 if "b" in name.split(".") else 0.8)
    return model.requires_grad_(False)


def random_ids(count: int, vocab_size: int = 7, seed: int = 0) -> np.ndarray[Any, Any]:
    return np.random.default_rng(seed).integers(0, vocab_size, count).astype(np.uint16)


def stepped(model: LanguageModel, before: int, ids: Sequence[int]) -> list[float]:
    """-log p of each token, one ``step`` at a time from the initial state after ``before``."""
    state, token, nats = model.start(None, 1), before, []
    with torch.no_grad():
        for target in ids:
            logits, state = model.step(torch.tensor([token]), state)
            nats.append(-torch.log_softmax(logits[0], 0)[int(target)].item())
            token = int(target)
    return nats


class TorchTwin(nn.Module):
    """The same LSTM out of torch's own modules, weights copied."""

    def __init__(self, model: LanguageModel) -> None:
        super().__init__()
        cells: Any = list(model.stack.cells)
        self.embedding = nn.Embedding.from_pretrained(model.embedding.weight.clone(), freeze=False)
        self.lstm = nn.LSTM(cells[0].input_size, cells[0].hidden_size, len(cells)).double()
        with torch.no_grad():
            for k, cell in enumerate(cells):
                getattr(self.lstm, f"weight_ih_l{k}").copy_(cell.W_xh)
                getattr(self.lstm, f"weight_hh_l{k}").copy_(cell.W_hh)
                getattr(self.lstm, f"bias_ih_l{k}").copy_(cell.a)
                getattr(self.lstm, f"bias_hh_l{k}").zero_()
        for k in range(len(cells)):
            getattr(self.lstm, f"bias_hh_l{k}").requires_grad_(False)
        self.W = nn.Parameter(model.output.W_hy.detach().clone())
        self.b = nn.Parameter(model.output.b.detach().clone())

    def forward(self, tokens: Tensor, state: Any = None) -> tuple[Tensor, Tensor, Any]:
        """tokens: (T,) -> log-probabilities (T, V), h (T, H), state."""
        h, state = self.lstm(self.embedding(tokens).unsqueeze(1), state)
        return torch.log_softmax(h[:, 0] @ self.W.t() + self.b, 1), h[:, 0], state

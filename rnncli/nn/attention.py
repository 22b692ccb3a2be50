"""Attention: what a decoder looks up in the annotations of its source."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rnncli.errors import UsageError

_ELEMENTS = 1 << 20
"""Of the tanh of additive scores that are there at once, about."""


class _AdditiveScores(torch.autograd.Function):
    """v . tanh(q + k) of every query and key. The tanh, H times the size of the scores, is made
    again for the backward pass: kept for every step of a long target it would be most of a
    training step's memory. It is made for some steps at a time, which stay in the cache."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """q: (N, T, H), k: (N, S, H), v: (H,) -> (N, T, S)."""
        ctx.save_for_backward(q, k, v)
        parts = torch.split(q, _steps(k), 1)
        return torch.cat([(p.unsqueeze(2) + k.unsqueeze(1)).tanh_() @ v for p in parts], 1)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        (g,) = gradients
        q, k, v = ctx.saved_tensors
        dq, dk, dv = [], torch.zeros_like(k), torch.zeros_like(v)
        steps = _steps(k)
        for part, of_part in zip(torch.split(q, steps, 1), torch.split(g, steps, 1), strict=True):
            inner = (part.unsqueeze(2) + k.unsqueeze(1)).tanh_()
            dv += of_part.reshape(-1) @ inner.view(-1, len(v))
            d = torch.ops.aten.tanh_backward(of_part.unsqueeze(3) * v, inner)
            dq.append(d.sum(2))
            dk += d.sum(1)
        return torch.cat(dq, 1), dk, dv


def _steps(keys: Tensor) -> int:
    """How many queries meet all keys (N, S, H) at once."""
    return max(1, _ELEMENTS // max(1, keys.numel()))


class Attention(nn.Module):
    """Scores of a query h against each annotation m(s); their softmax weighs the annotations.

    dot: h . m; general: h . W_a m (Luong et al. 2015, eq. 8); additive: v . tanh(W_a h + U_a m)
    (Bahdanau et al. 2015, app. A.1.2; the concat of Luong et al., W_a [h; m] written as a sum).
    With ``coverage`` additive scores are v . tanh(W_a h + U_a m + w_c c(s)), c(s) the sum of the
    weights that s had so far (See et al. 2017, eq. 11; Tu et al. 2016). What depends on the
    annotations alone is ``keys``, computed once a source.
    """

    def __init__(
        self, kind: str, query_size: int, memory_size: int, *, coverage: bool = False
    ) -> None:
        """Raises UsageError when ``dot`` is asked for between vectors of unequal size."""
        super().__init__()
        self.kind = kind
        if kind == "dot" and query_size != memory_size:
            raise UsageError(
                f"model.attention: dot multiplies vectors of one size, and the decoder has "
                f"{query_size} units, the encoder's annotations {memory_size}; "
                "use 'general' or 'additive', or an encoder that reads one way (model.direction = "
                "'forward')"
            )
        if kind != "dot":
            self.U_a = fresh(query_size, memory_size)
        if kind == "additive":
            self.W_a = fresh(query_size, query_size)
            self.v = fresh(query_size)
        self.w_c: nn.Parameter | None = None
        if coverage:
            self.w_c = nn.Parameter(torch.zeros(query_size))

    def keys(self, memory: Tensor) -> Tensor:
        """memory: (B, S, M) -> (B, S, K)."""
        return memory if self.kind == "dot" else F.linear(memory, self.U_a)

    def scores(self, queries: Tensor, keys: Tensor, covered: Tensor | None = None) -> Tensor:
        """queries: (N, T, H), those of additive attention already multiplied by W_a; keys:
        (N, S, K); covered: (N, T, S), the weights so far -> (N, T, S)."""
        if self.kind == "additive":
            if self.w_c is not None and covered is not None:
                inner = queries.unsqueeze(2) + keys.unsqueeze(1)
                return torch.tanh(inner + covered.unsqueeze(3) * self.w_c) @ self.v
            scores: Tensor = _AdditiveScores.apply(  # type: ignore[no-untyped-call]
                queries, keys, self.v
            )
            return scores
        return queries @ keys.transpose(1, 2)

    def forward(self, queries: Tensor, keys: Tensor, memory: Tensor) -> tuple[Tensor, Tensor]:
        """queries: (B, T, H), keys: (N, S, K), memory: (N, S, M) -> contexts (B, T, M) and weights
        (B, T, S). Of each of the N sources there are B / N rows, beside each other."""
        B, T, H = queries.shape
        if self.kind == "additive":
            queries = F.linear(queries, self.W_a)
        weights = torch.softmax(self.scores(queries.reshape(len(keys), -1, H), keys), dim=2)
        return (weights @ memory).view(B, T, -1), weights.view(B, T, -1)


def fresh(*shape: int) -> nn.Parameter:
    """A weight with variance 1 over its inputs."""
    return nn.Parameter(torch.empty(shape).normal_(0.0, shape[-1] ** -0.5))

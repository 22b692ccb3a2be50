"""Regularised dropout: two passes over the same targets, each with dropout of its own, agree.
The passes stand beside each other in a batch of twice as many columns.

Liang et al. 2021, *R-Drop: Regularized Dropout for Neural Networks*, eq. 1 to 3. With P1 and P2
what the output layer predicts in the two passes, a target y costs

    -log P1(y) - log P2(y) + alpha (KL(P1 || P2) + KL(P2 || P1)) / 2.

Here it is half of that, so that a pass counts as a target does without it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor

from rnncli.errors import UsageError
from rnncli.nn.keys import frame_nats
from rnncli.nn.softmax import CHUNK_BYTES, add_product
from rnncli.sections import ModelConfig, RegularizationConfig


def require_unlike_passes(rates: RegularizationConfig, model: ModelConfig) -> None:
    """Raise UsageError for ``r_drop`` where nothing makes two passes differ. (Words and weights are
    dropped from a whole batch.)"""
    drawn = (rates.input_rate, rates.output_rate, rates.dropout_state)
    deep = max(model.layers, model.encoder_depth) > 1
    inside = rates.dropout if deep or model.attention != "none" else 0.0
    if rates.r_drop and not any((*drawn, inside, model.zoneout, model.zoneout_cell)):
        raise UsageError(
            "regularization.r_drop: without dropout both passes are the same, and it would do "
            "nothing; give regularization.dropout, or leave it out"
        )


def passes_of(h: Tensor, mask: Tensor | None) -> Tensor:
    """h: (T, 2 B, ...), two passes beside each other -> each of them where ``mask`` (T, B) is true,
    or everywhere: (2, N, ...)."""
    both = h.chunk(2, dim=1)
    return torch.stack([one.flatten(0, 1) if mask is None else one[mask] for one in both])


class _ConsistentLoss(torch.autograd.Function):
    """The loss with its gradient in the same pass, as ``rnncli.nn.softmax`` has it for one pass:
    no more logits are there than those of a chunk of rows."""

    @staticmethod
    def forward(
        ctx: Any, h: Tensor, weight: Tensor, bias: Tensor, targets: Tensor, alpha: float,
        dtype: torch.dtype,
    ) -> tuple[Tensor, Tensor]:  # fmt: skip
        _, N, H = h.shape
        V = len(weight)
        W, b = weight.to(dtype), bias.to(dtype)
        nats = divergence = torch.zeros((), dtype=torch.float64, device=h.device)
        dh, dW, db = torch.empty_like(h), torch.zeros_like(weight), torch.zeros_like(bias)
        mean, share = 1.0 / max(1, N), alpha / 4 / max(1, N)
        rows = max(64, CHUNK_BYTES // (8 * V * bias.element_size()))
        for start in range(0, N, rows):
            part = slice(start, min(N, start + rows))
            read = h[:, part].reshape(-1, H).to(dtype)
            logits = torch.addmm(b, read, W.t()).to(bias.dtype)
            log_p = torch.log_softmax(logits, 1).view(2, -1, V)
            columns = targets[part].expand(2, -1).unsqueeze(2)
            nats = nats - log_p.gather(2, columns).sum(dtype=torch.float64) * (mean / 2)
            ratio = log_p[0] - log_p[1]
            p = log_p.exp_()
            kl = (p.transpose(0, 1) @ ratio.unsqueeze(2)).transpose(0, 1)  # of P1; less that of P2
            divergence = divergence + (kl[0] - kl[1]).sum(dtype=torch.float64) * (mean / 2)
            # The derivative of KL(P1 || P2) + KL(P2 || P1) by the logits of P1 is
            # P1 (log P1 - log P2 - KL(P1 || P2)) + P1 - P2, and that by those of P2 likewise.
            change = (p[0] - p[1]).mul_(share)
            for k, sign in ((0, share), (1, -share)):
                factor = torch.add(mean / 2 - sign * kl[k], ratio, alpha=sign)
                p[k].mul_(factor).add_(change, alpha=1 - 2 * k)
            p.scatter_add_(2, columns, p.new_full(columns.shape, -mean / 2))
            flat = p.view(-1, V).to(dtype)
            dh[:, part] = (flat @ W).to(h.dtype).view(2, -1, H)
            dW = add_product(dW, flat.t(), read, weight.dtype)
            db += flat.sum(0, dtype=db.dtype)
        ctx.gradients = (dh, dW, db)
        ctx.mark_non_differentiable(nats)
        return (nats + alpha / 2 * divergence).to(bias.dtype), nats

    @staticmethod
    def backward(ctx: Any, *outputs: Any) -> Any:
        g = outputs[0]
        dh, dW, db = (d * g for d in ctx.gradients)
        del ctx.gradients
        return dh, dW, db, None, None, None


_consistent_loss = cast("Callable[..., tuple[Tensor, Tensor]]", _ConsistentLoss.apply)


def consistent_loss(
    h: Tensor, weight: Tensor, bias: Tensor, targets: Tensor, alpha: float, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """What two passes cost, and their nats alone (without a gradient), each as a mean over the
    targets. h: (2, N, H), the passes; weight: (V, H), bias: (V,), of the output layer; targets:
    (N,); ``alpha``: what their disagreement counts; ``dtype``: that of the products' operands."""
    return _consistent_loss(h, weight, bias, targets, alpha, dtype)


def consistent_frames(logits: Tensor, frames: Tensor, alpha: float) -> tuple[Tensor, Tensor]:
    """The same for keys that sound or not: logits: (2, N, K), those of the passes, frames: (N, K).
    Of two chances p1 and p2 of a key KL(p1 || p2) + KL(p2 || p1) is (p1 - p2) times the difference
    of their logits."""
    N = max(1, len(frames))
    nats = frame_nats(logits, frames.expand_as(logits)).sum() / (2 * N)
    p = torch.sigmoid(logits)
    divergence = ((p[0] - p[1]) * (logits[0] - logits[1])).sum() / (2 * N)
    return nats + alpha / 2 * divergence, nats.detach()

"""Output layers: h (N, H) -> scores of V tokens, and their negative log-likelihood in nats."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rnncli.errors import UsageError
from rnncli.model_section import OUTPUT_WEIGHTS
from rnncli.nn.cells.initialization import fill_output
from rnncli.sections import ModelConfig

CHUNK_BYTES = 1 << 25
"""Logits held at a time: small enough to stay near the cache, large enough for full speed."""


class _SoftmaxLoss(torch.autograd.Function):
    """Sum of -log softmax(h W^T + b)[target] times ``scale``, with its gradient in the same pass.

    The logits of a chunk of rows become softmax minus one-hot, their gradient but for ``scale``,
    which the products take into account. Two arrays of a chunk's size are all that is there of the
    size of logits.
    """

    @staticmethod
    def forward(
        ctx: Any, h: Tensor, weight: Tensor, bias: Tensor, targets: Tensor, scale: Tensor,
        shift: Tensor | None, dtype: torch.dtype,
    ) -> Tensor:  # fmt: skip
        """h: (N, H), weight: (V, H), bias: (V,), targets: (N,), scale: (N,) a weight for each row,
        shift: (V,) added to every logit but the target's (see ``sampled_candidates``)."""
        N, V = len(h), len(weight)
        operand, W = h.to(dtype), weight.to(dtype)
        b = (bias if shift is None else bias + shift).to(dtype)
        nats = h.new_empty(N, dtype=bias.dtype)
        needs_h, needs_w, needs_b = ctx.needs_input_grad[:3]
        dh = torch.empty_like(h) if needs_h else None
        dW: Tensor | None = None
        db = torch.zeros_like(bias) if needs_b else None
        rows = max(16, CHUNK_BYTES // (V * operand.element_size()))
        for start in range(0, N, rows):
            part = slice(start, min(N, start + rows))
            columns = targets[part].unsqueeze(1)
            logits = torch.addmm(b, operand[part], W.t())
            if shift is not None:
                logits.scatter_add_(1, columns, -shift.to(dtype)[columns])
            p = torch.softmax(logits, 1)
            nats[part] = _nats(logits, p, columns)
            del logits
            p.scatter_add_(1, columns, torch.full_like(columns, -1, dtype=dtype))
            by_row = scale[part].unsqueeze(1)
            if dh is not None:
                torch.mul((p @ W).to(h.dtype), by_row, out=dh[part])
            by_row, read = by_row.to(dtype), operand[part]
            if 2 * h.shape[1] < V:  # the smaller of the two is scaled
                read = read * by_row
            else:
                p.mul_(by_row)
                by_row = torch.ones_like(by_row)
            if needs_w:
                dW = add_product(dW, p.t(), read, weight.dtype)
            if db is not None:
                db += (by_row.t() @ p)[0]
            del p
        if needs_w and dW is None:
            dW = torch.zeros_like(weight)
        ctx.gradients = (dh, dW, db)
        return (nats * scale).sum()

    @staticmethod
    def backward(ctx: Any, *outputs: Any) -> Any:
        (g,) = outputs
        dh, dW, db = (d if d is None or float(g) == 1.0 else d * g for d in ctx.gradients)
        del ctx.gradients
        return dh, dW, db, None, None, None, None


def add_product(total: Tensor | None, a: Tensor, b: Tensor, dtype: torch.dtype) -> Tensor:
    """``total``, zero for None, and the product a b, in ``dtype``."""
    if total is None:
        return (a @ b).to(dtype)
    return total.addmm_(a, b) if a.dtype == dtype else total.add_((a @ b).to(dtype))


_softmax_loss = cast("Callable[..., Tensor]", _SoftmaxLoss.apply)


def _nats(logits: Tensor, p: Tensor, columns: Tensor) -> Tensor:
    """-log p[column] of each row (n,), from probabilities unless they are too small to be exact."""
    chosen = p.gather(1, columns).squeeze(1).to(torch.float64)
    if bool((chosen > 1e-20).all()):
        return -chosen.log()
    logits = logits.to(torch.float64)
    return torch.logsumexp(logits, 1) - logits.gather(1, columns).squeeze(1)


class Softmax(nn.Module):
    """logits = W_hy h + b over the whole vocabulary; W_hy (V, H) may be the embedding's table."""

    def __init__(self, config: ModelConfig, input_size: int, vocab_size: int) -> None:
        super().__init__()
        self.b = nn.Parameter(torch.zeros(vocab_size))
        self.W_hy: nn.Parameter | None = None
        if not config.tied:
            self.W_hy = nn.Parameter(torch.empty(vocab_size, input_size))
            fill_output(self.W_hy, config)

    def start_from(self, counts: Tensor) -> None:
        """Make the untrained layer predict how often each token occurs: counts (V,)."""
        smoothed = counts.to(torch.float64) + 0.1
        with torch.no_grad():
            self.b.copy_(torch.log(smoothed / smoothed.sum()))

    def loss(
        self,
        h: Tensor,
        targets: Tensor,
        scale: Tensor,
        tied: Tensor | None,
        dtype: torch.dtype,
        sampling: SampledVocabulary | None = None,
    ) -> Tensor:
        """Sum over rows of scale times nats. h: (N, H), targets and scale: (N,)."""
        weight = self.matrix(tied)
        if sampling is None:
            return _softmax_loss(h, weight, self.b, targets, scale, None, dtype)
        candidates, positions, shift = sampling.candidates(targets)
        rows = F.embedding(candidates, weight)
        return _softmax_loss(h, rows, self.b[candidates], positions, scale, shift, dtype)

    def smoothing(self, h: Tensor, targets: Tensor, tied: Tensor | None) -> Tensor:
        """What the mean of -log p over all tokens has more than that of the targets (Szegedy et al.
        2016, sec. 7), as a mean over rows: the target's logit less the mean logit. h: (N, H),
        targets: (N,)."""
        weight = self.matrix(tied)
        own = (h * F.embedding(targets, weight)).sum(1) + self.b[targets]
        return (own - h @ weight.mean(0) - self.b.mean()).mean()

    def matrix(self, tied: Tensor | None) -> Tensor:
        """W_hy: (V, H), its own or the tied one."""
        if self.W_hy is not None:
            return self.W_hy
        assert tied is not None
        return tied

    def logits(self, h: Tensor, tied: Tensor | None) -> Tensor:
        """h: (..., H) -> (..., V)."""
        return F.linear(h, self.matrix(tied), self.b)

    def nats(self, h: Tensor, targets: Tensor, tied: Tensor | None) -> Tensor:
        """-log p of each target (N,), computed in chunks; h: (N, H)."""
        rows = max(16, CHUNK_BYTES // (4 * len(self.b)))
        parts = [
            F.cross_entropy(
                self.logits(h[s : s + rows], tied), targets[s : s + rows], reduction="none"
            )
            for s in range(0, len(h), rows)
        ]
        return torch.cat(parts)


def keep_fixed(output: nn.Module, config: ModelConfig) -> None:
    """Leave those weights of an output layer as they start that ``config.frozen`` names. Raises
    UsageError for one that it has not."""
    for name in OUTPUT_WEIGHTS:
        if name not in config.frozen:
            continue
        weight = getattr(output, name, None)
        if weight is None:
            why = "the output's matrix is the embedding (model.tied)" if config.tied else ""
            raise UsageError(
                f"model.frozen: there is no {name!r}: {why or 'the adaptive softmax has clusters'}"
                "; leave it out"
            )
        weight.requires_grad_(False)


class SampledVocabulary:
    """Softmax over some of the vocabulary: every target of the batch and ``size`` sampled words.

    Words are drawn in proportion to count^0.75. The sum over the vocabulary is estimated without
    bias by weighting each candidate with one over its chance of being one (importance sampling,
    Bengio and Senecal 2003; Jean et al. 2015); the target itself always counts once.
    """

    def __init__(self, counts: Tensor, size: int, device: torch.device) -> None:
        """counts: (V,) how often each token occurs in the training text."""
        frequency = counts.to(device, torch.float64).clamp_min(0.1)
        self.p = frequency / frequency.sum()
        self.q = (self.p**0.75) / (self.p**0.75).sum()
        self.size = size
        self.vocab_size = len(counts)

    def candidates(self, targets: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """targets: (N,) -> candidate ids (C,), the targets' places among them (N,), shift (C,)."""
        drawn = torch.multinomial(self.q, self.size, replacement=True)
        chosen = torch.zeros(self.vocab_size, dtype=torch.bool, device=self.q.device)
        chosen[drawn] = True
        chosen[targets] = True
        ids = chosen.nonzero().squeeze(1)
        places = torch.cumsum(chosen, 0) - 1
        others = len(targets) - 1  # seen from one row, whose own target is there for certain
        missed = torch.log1p(-self.q[ids]) * self.size + torch.log1p(-self.p[ids]) * others
        shift = -torch.log(-torch.expm1(missed))
        return ids, places[targets], shift.to(torch.float32)


class AdaptiveSoftmax(nn.Module):
    """Frequent words first, rare ones in clusters of smaller width (Grave et al. 2017)."""

    def __init__(self, config: ModelConfig, input_size: int, vocab_size: int) -> None:
        super().__init__()
        cutoffs = [c for c in config.adaptive_cutoffs if c < vocab_size]
        if not cutoffs:
            cutoffs = [c for c in (vocab_size // 10, vocab_size // 2) if 0 < c < vocab_size]
        self.inner = nn.AdaptiveLogSoftmaxWithLoss(
            input_size, vocab_size, sorted(set(cutoffs)) or [1], div_value=4.0, head_bias=True
        )

    def start_from(self, counts: Tensor) -> None:
        """Nothing: frequencies are spread over head and clusters."""

    def loss(
        self,
        h: Tensor,
        targets: Tensor,
        scale: Tensor,
        tied: Tensor | None,
        dtype: torch.dtype,
        sampling: SampledVocabulary | None = None,
    ) -> Tensor:
        return (self.nats(h, targets, tied) * scale).sum()

    def logits(self, h: Tensor, tied: Tensor | None) -> Tensor:
        """Log-probabilities, which are logits too. h: (..., H) -> (..., V)."""
        flat: Tensor = self.inner.log_prob(
            h.reshape(-1, h.shape[-1]).to(self.inner.head.weight.dtype)
        )
        return flat.view(*h.shape[:-1], -1)

    def nats(self, h: Tensor, targets: Tensor, tied: Tensor | None) -> Tensor:
        log_p: Tensor = self.inner(h.to(self.inner.head.weight.dtype), targets).output
        return -log_p

"""R-Drop's loss beside its formula, written with torch's own functions."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import rnncli.nn.consistency
from rnncli.nn.consistency import consistent_loss

N, V, H, ALPHA = 150, 11, 5, 3.0


def arguments() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    torch.manual_seed(3)
    sizes = ((2, N, H), (V, H), (V,))
    h, weight, bias = (torch.randn(size, dtype=torch.float64, requires_grad=True) for size in sizes)
    return h, weight, bias, torch.randint(V, (N,))


def by_torch(h: Tensor, weight: Tensor, bias: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    log_p = torch.log_softmax(F.linear(h, weight, bias), 2)
    nats = (F.nll_loss(log_p[0], targets) + F.nll_loss(log_p[1], targets)) / 2
    both = [
        F.kl_div(log_p[b], log_p[a], reduction="batchmean", log_target=True)
        for a, b in ((0, 1), (1, 0))
    ]
    return nats + ALPHA / 2 * sum(both) / 2, nats


@pytest.mark.parametrize("chunk_bytes", [1, 1 << 25])
def test_the_loss_and_its_gradient_are_the_formulas(
    chunk_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rnncli.nn.consistency, "CHUNK_BYTES", chunk_bytes)
    h, weight, bias, targets = arguments()
    loss, nats = consistent_loss(h, weight, bias, targets, ALPHA, torch.float64)
    expected, counted = by_torch(h, weight, bias, targets)
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(nats, counted)
    assert not nats.requires_grad
    for mine, its in zip(
        torch.autograd.grad(2 * loss, (h, weight, bias)),
        torch.autograd.grad(2 * expected, (h, weight, bias)),
        strict=True,
    ):
        torch.testing.assert_close(mine, its)


def test_passes_that_agree_cost_their_nats() -> None:
    h, weight, bias, targets = arguments()
    same = h[:1].expand(2, -1, -1)
    loss, nats = consistent_loss(same, weight, bias, targets, ALPHA, torch.float64)
    torch.testing.assert_close(loss, nats)


def test_no_targets_cost_nothing() -> None:
    h, weight, bias, targets = arguments()
    loss, nats = consistent_loss(h[:, :0], weight, bias, targets[:0], ALPHA, torch.float64)
    assert float(loss.detach()) == float(nats) == 0.0

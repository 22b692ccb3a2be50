"""Attention against the formulas, row by row."""

from __future__ import annotations

import pytest
import torch

from rnncli.errors import UsageError
from rnncli.nn.attention import Attention

B, S, T, H, M = 2, 4, 3, 5, 6


@pytest.mark.parametrize("kind", ["dot", "general", "additive"])
def test_the_published_scores(kind: str) -> None:
    torch.manual_seed(0)
    size = H if kind == "dot" else M
    attention = Attention(kind, H, size).double()
    queries = torch.randn(B, T, H, dtype=torch.float64)
    memory = torch.randn(B, S, size, dtype=torch.float64)
    contexts, weights = attention(queries, attention.keys(memory), memory)
    for b in range(B):
        for t in range(T):
            h, scores = queries[b, t], []
            for s in range(S):
                m = memory[b, s]
                if kind == "dot":
                    scores.append(h @ m)
                elif kind == "general":
                    scores.append(h @ attention.U_a @ m)
                else:
                    inner = attention.W_a @ h + attention.U_a @ m
                    scores.append(attention.v @ torch.tanh(inner))
            alpha = torch.softmax(torch.stack(scores), 0)
            torch.testing.assert_close(weights[b, t], alpha)
            expected = sum(alpha[s] * memory[b, s] for s in range(S))
            torch.testing.assert_close(contexts[b, t], expected)


def test_dot_needs_vectors_of_one_size() -> None:
    with pytest.raises(UsageError, match=r"model\.attention: dot .* 5 units.* 6; use 'general'"):
        Attention("dot", 5, 6)


@pytest.mark.parametrize("elements", [1, 1 << 20])
@pytest.mark.parametrize(("T", "S"), [(1, 4), (3, 1), (2, 3)])
def test_gradients_of_additive_scores(
    T: int, S: int, elements: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Against finite differences, and against autograd's own of the formula; all steps at once or
    one after another."""
    monkeypatch.setattr("rnncli.nn.attention._ELEMENTS", elements)
    torch.manual_seed(1)
    attention = Attention("additive", 3, 5).double()
    queries = torch.randn(2, T, 3, dtype=torch.float64, requires_grad=True)
    keys = torch.randn(2, S, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(attention.scores, (queries, keys))
    assert torch.autograd.gradgradcheck(attention.scores, (queries, keys))
    inputs, weights = (queries, keys, attention.v), torch.randn(2, T, S, dtype=torch.float64)
    found = torch.autograd.grad((attention.scores(queries, keys) * weights).sum(), inputs)
    plain = torch.tanh(queries.unsqueeze(2) + keys.unsqueeze(1)) @ attention.v
    expected = torch.autograd.grad((plain * weights).sum(), inputs)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other)

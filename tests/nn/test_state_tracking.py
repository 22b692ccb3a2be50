"""What a recurrence can keep track of: parity and products of permutations, which those that are
linear in their state cannot, however long they are trained."""

from __future__ import annotations

from itertools import permutations

import pytest
import torch
from torch import Tensor, nn

from rnncli.nn.stack import Run, Stack
from rnncli.sections import ModelConfig

H, B, LENGTH = 16, 64, 16
S3 = list(permutations(range(3)))
PRODUCTS = torch.tensor([[S3.index(tuple(p[k] for k in q)) for q in S3] for p in S3])
"""The group of permutations of three things: (6, 6), the place of p after q."""
PARITY = torch.tensor([[0, 1], [1, 0]])
"""The group of two: the sum modulo 2."""


def words(group: Tensor, length: int, seed: int) -> tuple[Tensor, Tensor]:
    """Random elements (T, B), and at every step the product of all so far (T, B)."""
    generator = torch.Generator().manual_seed(seed)
    elements = torch.randint(len(group), (length, B), generator=generator)
    product, products = torch.zeros(B, dtype=torch.int64), []
    for element in elements:
        product = group[product, element]
        products.append(product)
    return elements, torch.stack(products)


def accuracy(cell: str, group: Tensor, steps: int) -> float:
    """Of one layer trained on every prefix of words of ``LENGTH``, on whole words twice as long."""
    torch.manual_seed(0)
    size = len(group)
    stack = Stack(ModelConfig(cell=cell, layers=1, hidden_size=H), size)
    output = nn.Linear(H, size)
    optimizer = torch.optim.Adam([*stack.parameters(), *output.parameters()], lr=0.01)
    one_hot = torch.eye(size)

    def logits(elements: Tensor) -> Tensor:
        h, _ = stack(one_hot[elements], stack.start(B), Run(), None)
        answer: Tensor = output(h)
        return answer

    for step in range(steps):
        elements, targets = words(group, LENGTH, seed=step)
        loss = nn.functional.cross_entropy(logits(elements).flatten(0, 1), targets.flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        elements, targets = words(group, 2 * LENGTH, seed=10**6)
        return float((logits(elements)[-1].argmax(1) == targets[-1]).double().mean())


@pytest.mark.parametrize("cell", ["elman", "lstm"])
def test_a_recurrence_that_reads_its_state_learns_parity(cell: str) -> None:
    assert accuracy(cell, PARITY, 250) > 0.99


@pytest.mark.parametrize("cell", ["mingru", "qrnn", "rg-lru"])
def test_a_linear_one_does_not(cell: str) -> None:
    assert accuracy(cell, PARITY, 250) < 0.75


@pytest.mark.slow
@pytest.mark.parametrize("cell", ["gru", "lstm"])
def test_a_recurrence_that_reads_its_state_learns_to_multiply_permutations(cell: str) -> None:
    assert accuracy(cell, PRODUCTS, 800) > 0.95


@pytest.mark.slow
@pytest.mark.parametrize("cell", ["mingru", "minlstm", "qrnn", "sru", "rg-lru"])
def test_linear_ones_learn_neither_in_four_times_the_steps(cell: str) -> None:
    assert accuracy(cell, PARITY, 1000) < 0.75
    assert accuracy(cell, PRODUCTS, 1000) < 0.5

"""What a recurrence can keep track of: parity and the order of things that are swapped, which those
that are linear in their state cannot, however long they are trained."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from rnncli.evaluation.synthetic import Batch, Parity, Permutations
from rnncli.nn.stack import Run, Stack
from rnncli.sections import ModelConfig, SyntheticConfig

H, B, LENGTH = 16, 64, 16


class ThreeThings(Permutations):
    """The group S_3, for a network of few units."""

    things = 3


def accuracy(cell: str, problem: type[Permutations], steps: int) -> float:
    """Of one layer trained on every prefix of words of ``LENGTH``, on whole words twice as long."""
    torch.manual_seed(0)
    short, long = (problem(SyntheticConfig(lag=lag)) for lag in (LENGTH, 2 * LENGTH))
    stack = Stack(ModelConfig(cell=cell, layers=1, hidden_size=H), short.inputs)
    output = nn.Linear(H, short.outputs)
    optimizer = torch.optim.Adam([*stack.parameters(), *output.parameters()], lr=0.01)

    def logits(batch: Batch) -> Tensor:
        h, _ = stack(batch.x, stack.start(B), Run(), None)
        answer: Tensor = output(h)
        return answer

    for step in range(steps):
        batch = short.batch(np.random.default_rng(step), B)
        loss = short.losses(logits(batch), batch.targets).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        batch = long.batch(np.random.default_rng(10**6), B)
        return float(long.right(logits(batch)[-1:], batch.targets[-1:]).double().mean())


@pytest.mark.parametrize("cell", ["elman", "lstm"])
def test_a_recurrence_that_reads_its_state_learns_parity(cell: str) -> None:
    assert accuracy(cell, Parity, 250) > 0.99


@pytest.mark.parametrize("cell", ["mingru", "qrnn", "rg-lru"])
def test_a_linear_one_does_not(cell: str) -> None:
    assert accuracy(cell, Parity, 250) < 0.75


@pytest.mark.slow
@pytest.mark.parametrize("cell", ["gru", "lstm"])
def test_a_recurrence_that_reads_its_state_learns_where_things_are(cell: str) -> None:
    assert accuracy(cell, ThreeThings, 800) > 0.95


@pytest.mark.slow
@pytest.mark.parametrize("cell", ["mingru", "minlstm", "qrnn", "sru", "rg-lru"])
def test_linear_ones_learn_neither_in_four_times_the_steps(cell: str) -> None:
    assert accuracy(cell, Parity, 1000) < 0.75
    assert accuracy(cell, ThreeThings, 1000) < 0.5

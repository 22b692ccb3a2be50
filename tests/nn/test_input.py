"""The input layer and the dropout of units, weights and words."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from rnncli.nn.cells import make_cell
from rnncli.nn.dropout import drop_weights, dropout
from rnncli.nn.embedding import Embedding
from rnncli.sections import ModelConfig
from tests.nn.cases import KINDS, cell_config, make, randomize

V = 7
PLAIN = [kind for kind in KINDS if make(kind).projects_plainly]
TOKENS = torch.tensor([[0, 3], [6, 3], [0, 5], [1, 1]])


@pytest.mark.parametrize("kind", PLAIN)
def test_a_one_hot_input_picks_columns_of_W_xh(kind: str) -> None:
    cell = make_cell(cell_config(kind), V, 4)
    randomize(cell)
    one_hot = Embedding(ModelConfig(input="one-hot"), V)
    with torch.no_grad():
        projected = cell.project(one_hot(TOKENS), cell.zero_state(1), torch.float32)
        columns = cell.W_xh.t()[TOKENS] + cell.a
    assert torch.equal(projected, columns)


def test_one_hot_is_an_embedding_of_the_identity() -> None:
    one_hot = Embedding(ModelConfig(input="one-hot"), V)
    table = Embedding(ModelConfig(embedding_size=V), V)
    with torch.no_grad():
        table.weight.copy_(torch.eye(V))
    assert torch.equal(one_hot(TOKENS), table(TOKENS))
    assert torch.equal(one_hot(TOKENS), F.one_hot(TOKENS, V).float())
    assert one_hot.size == table.size == V


def test_the_identity_is_neither_trained_nor_saved_but_made_again() -> None:
    with torch.device("meta"):
        one_hot = Embedding(ModelConfig(input="one-hot"), V)
    assert not list(one_hot.parameters()) and not one_hot.state_dict()
    one_hot.materialize("cpu")
    assert torch.equal(one_hot(TOKENS), F.one_hot(TOKENS, V).float())


@pytest.mark.parametrize(("init", "std"), [("default", 0.2 / 3**0.5), ("normal", 0.2)])
def test_a_fresh_table(init: str, std: float) -> None:
    torch.manual_seed(0)
    table = Embedding(
        ModelConfig(init=init, init_scale=0.2, embedding_size=100), 100
    ).weight.detach()
    assert float(table.std()) == pytest.approx(std, rel=0.05)
    assert abs(float(table.mean())) < 0.01


def test_embedding_dropout_drops_words_wherever_they_stand() -> None:
    torch.manual_seed(0)
    embedding = Embedding(ModelConfig(embedding_size=3), 200)
    tokens = torch.randint(200, (40, 20))
    plain, dropped = embedding(tokens), embedding(tokens, 0.75)
    fate: dict[int, bool] = {}
    for token, before, after in zip(
        tokens.flatten().tolist(), plain.flatten(0, 1), dropped.flatten(0, 1), strict=True
    ):
        kept = bool(after.any())
        assert torch.equal(after, before * 4.0 if kept else torch.zeros(3))
        assert fate.setdefault(token, kept) == kept
    assert 0.15 < sum(fate.values()) / len(fate) < 0.35


@pytest.mark.parametrize("rate", [0.2, 0.75])
def test_dropout_zeroes_and_scales(rate: float) -> None:
    torch.manual_seed(0)
    x = torch.randn(50, 10, 20).abs() + 0.1
    locked, free = dropout(x, rate, locked=True), dropout(x, rate, locked=False)
    for y in (locked, free):
        kept = y != 0
        torch.testing.assert_close(y, torch.where(kept, x / (1 - rate), 0.0))
    assert float((free == 0).float().mean()) == pytest.approx(rate, abs=0.03)
    assert float((locked[0] == 0).float().mean()) == pytest.approx(rate, abs=0.12)
    assert torch.equal((locked != 0).all(0), (locked != 0).any(0))  # one mask for all time
    assert not torch.equal((free != 0).all(0), (free != 0).any(0))
    assert len({tuple(row.tolist()) for row in locked[0] != 0}) == 10  # another for each row


def test_a_rate_of_zero_draws_nothing() -> None:
    x = torch.randn(3, 2, 4)
    before = torch.get_rng_state()
    assert dropout(x, 0.0, locked=True) is x
    assert drop_weights(x, 0.0) is x
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("rate", [1e-6, 0.9999999])
def test_rates_at_the_ends(rate: float) -> None:
    torch.manual_seed(0)
    kept = float((dropout(torch.ones(10, 10, 100), rate, locked=False) != 0).float().mean())
    assert kept == pytest.approx(1 - rate, abs=1e-3)


def test_dropout_in_bfloat16_keeps_its_type() -> None:
    x = torch.ones(3, 2, 4, dtype=torch.bfloat16)
    y = dropout(x, 0.5, locked=False)
    assert y.dtype == torch.bfloat16 and set(y.unique().tolist()) <= {0.0, 2.0}

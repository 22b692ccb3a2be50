"""How weights start: each kind of recurrent matrix, the spectral radius, what a name stands for."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from rnncli.cell_table import CELLS
from rnncli.nn.cells import make_cell
from rnncli.nn.cells.initialization import fill, rescale
from rnncli.sections import ModelConfig
from tests.nn.cases import KINDS, H, I, cell_config

N = 60


def square_blocks(weight: Tensor) -> tuple[Tensor, ...]:
    """The gates of a recurrent matrix (G, H), each (H, H)."""
    return torch.split(weight.detach(), weight.shape[1])


def recurrent(**config: Any) -> tuple[Tensor, ...]:
    """The four gates' recurrent matrices of an LSTM, (N, N) each."""
    torch.manual_seed(0)
    cell = make_cell(ModelConfig(**config), 10, N).requires_grad_(False)
    return square_blocks(cell.W_hh)


@pytest.mark.parametrize("scale", [1.0, 0.3])
def test_identity(scale: float) -> None:
    for block in recurrent(recurrent_init="identity", recurrent_scale=scale):
        assert torch.equal(block, scale * torch.eye(N))


@pytest.mark.parametrize("scale", [1.0, 0.3])
def test_orthogonal(scale: float) -> None:
    blocks = recurrent(recurrent_init="orthogonal", recurrent_scale=scale)
    for block in blocks:
        torch.testing.assert_close(block @ block.T, scale**2 * torch.eye(N), rtol=0, atol=1e-5)
    assert not torch.equal(blocks[0], blocks[1])


def test_uniform_and_normal() -> None:
    uniform = torch.cat(recurrent(recurrent_init="uniform", recurrent_scale=0.2))
    assert 0.19 < float(uniform.abs().max()) <= 0.2
    assert float(uniform.std()) == pytest.approx(0.2 / 3**0.5, rel=0.03)
    normal = torch.cat(recurrent(recurrent_init="normal", recurrent_scale=0.2))
    assert float(normal.std()) == pytest.approx(0.2, rel=0.03)
    assert float(normal.abs().max()) > 0.5


def test_sparse_has_so_many_inputs_a_unit_and_the_largest_singular_value_asked_for() -> None:
    blocks = recurrent(recurrent_init="sparse", recurrent_connections=7, recurrent_scale=1.3)
    for block in blocks:
        assert bool(((block != 0).sum(1) == 7).all())
        assert float(torch.linalg.matrix_norm(block, 2)) == pytest.approx(1.3, rel=1e-4)
    columns = (blocks[0] != 0).sum(0)
    assert int(columns.max()) > int(columns.min())  # chosen at random, not in rows
    for block in recurrent(recurrent_init="sparse", recurrent_connections=1000):
        assert bool((block != 0).all())


@pytest.mark.parametrize("kind", ["default", "orthogonal", "identity", "sparse", "uniform"])
@pytest.mark.parametrize("init", ["default", "uniform", "normal"])
def test_the_spectral_radius_is_that_of_every_square_block(kind: str, init: str) -> None:
    for block in recurrent(recurrent_init=kind, init=init, spectral_radius=1.1):
        assert float(torch.linalg.eigvals(block).abs().max()) == pytest.approx(1.1, rel=1e-3)


def test_a_matrix_that_is_not_square_has_a_largest_singular_value_instead() -> None:
    torch.manual_seed(0)
    block = torch.randn(8, 5)
    rescale(block, 0.7)
    assert float(torch.linalg.matrix_norm(block, 2)) == pytest.approx(0.7, rel=1e-4)
    nothing = torch.zeros(4, 4)
    rescale(nothing, 0.7)
    assert not nothing.any()


def test_only_recurrent_matrices_are_meant() -> None:
    config = ModelConfig(recurrent_init="identity", spectral_radius=0.5)
    torch.manual_seed(0)
    cell = make_cell(config, N, N).requires_grad_(False)
    assert float(cell.W_xh.std()) == pytest.approx(N**-0.5, rel=0.05)
    assert not torch.equal(square_blocks(cell.W_xh)[0], torch.eye(N))


def test_every_recurrent_matrix_of_a_cell_is_meant() -> None:
    for options in ({"cell": "gru-cho2014"}, {"cell": "gru", "transition_depth": 3},
                    {"cell": "slstm", "heads": 2}):  # fmt: skip
        cell = make_cell(ModelConfig(recurrent_init="identity", **options), 10, 12)
        for weight in cell.recurrent_weights().values():
            for block in square_blocks(weight):
                assert torch.equal(block, torch.eye(len(block)))


def test_what_a_name_stands_for_holds_until_something_else_is_set() -> None:
    irnn = ModelConfig(cell="irnn")
    assert (irnn.recurrent_init, irnn.init) == ("default", "default")
    start = irnn.cell_start(0)
    assert (start.recurrent_init, start.init, start.init_scale) == ("identity", "normal", 0.001)
    other = ModelConfig(cell="irnn", recurrent_init="orthogonal", init_scale=0.5).cell_start(0)
    assert (other.recurrent_init, other.init, other.init_scale) == ("orthogonal", "normal", 0.5)
    uniform = ModelConfig(cell="irnn", init="uniform").cell_start(0)
    assert (uniform.init, uniform.start_scale) == ("uniform", 0.1)
    mixture = ModelConfig(cell="lstm,irnn")
    assert mixture.cell_start(0) == mixture
    assert mixture.cell_start(1).recurrent_init == "identity"


def test_what_is_set_holds_although_it_is_what_other_cells_have_anyway() -> None:
    torch.manual_seed(0)
    irnn = make_cell(ModelConfig(cell="irnn", init_scale=0.1), 300, 100)
    assert float(irnn.W_xh.detach().std()) == pytest.approx(0.1, rel=0.05)
    echo = make_cell(ModelConfig(cell="echo-state", spectral_radius=0.0), 10, 100)
    assert float(torch.linalg.matrix_norm(echo.W_hh.detach(), 2)) == pytest.approx(1.0, rel=1e-4)
    config = ModelConfig(cell="echo-state", input="one-hot", init_scale=0.1)
    assert float(make_cell(config, 300, 100).W_xh.detach().std()) == pytest.approx(0.1, rel=0.05)
    lstm = make_cell(ModelConfig(init="uniform", init_scale=0.1, forget_bias=1.0), 3, 5)
    assert lstm.a[5:10].tolist() == [1.0] * 5 and float(lstm.a.detach()[:5].abs().max()) <= 0.1


@pytest.mark.parametrize("kind", KINDS)
def test_the_table_knows_which_cells_have_recurrent_matrices(kind: str) -> None:
    name, _ = KINDS[kind]
    assert bool(make_cell(cell_config(kind), I, H).recurrent_weights()) == CELLS[name].recurrent


@pytest.mark.parametrize("name", CELLS)
def test_the_table_knows_which_cells_have_a_forget_bias(name: str) -> None:
    def weights(bias: float) -> list[Tensor]:
        torch.manual_seed(0)
        cell = make_cell(ModelConfig(cell=name, forget_bias=bias), I, H)
        return [p.detach() for p in cell.parameters()]

    same = all(torch.equal(a, b) for a, b in zip(weights(1.0), weights(3.0), strict=True))
    assert same != CELLS[name].forgets


def test_a_fixed_matrix_drives_its_units_whatever_the_input() -> None:
    """Nothing will ever scale it: W_xh x has a deviation of about 1 for vectors of such numbers,
    and for one-hot vectors."""
    torch.manual_seed(0)
    dense = make_cell(ModelConfig(cell="echo-state"), 400, 200).W_xh.detach()
    assert float((dense @ torch.randn(400)).std()) == pytest.approx(1.0, rel=0.2)
    config = ModelConfig(cell="echo-state", input="one-hot")
    one_hot, second = (make_cell(config, 400, 200, layer).W_xh.detach() for layer in (0, 1))
    assert float(one_hot[:, 7].std()) == pytest.approx(1.0, rel=0.2)
    assert float(second.std()) == pytest.approx(0.05, rel=0.05)


def test_forget_gates_remember_unless_everything_is_drawn() -> None:
    for options, gate in (
        ({"cell": "lstm"}, 1),
        ({"cell": "lstm", "coupled_gates": True}, 0),
        ({"cell": "lstm-peephole"}, 1),
        ({"cell": "mogrifier"}, 1),
        ({"cell": "slstm"}, 1),
    ):
        a = make_cell(ModelConfig(forget_bias=2.0, **options), 3, 5).a.detach()
        assert a.split(5)[gate].tolist() == [2.0] * 5
        assert float(a.sum()) == 10.0
        drawn = make_cell(ModelConfig(init="uniform", **options), 3, 5).a
        assert float(drawn.detach().abs().max()) <= 0.1


def test_a_weight_to_be_loaded_is_left_alone() -> None:
    with torch.device("meta"):
        cell = make_cell(ModelConfig(cell="echo-state"), 10, 20)
        fill(cell.W_hh, ModelConfig(recurrent_init="sparse", spectral_radius=0.9), 20)
    assert cell.W_hh.is_meta

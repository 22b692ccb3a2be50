"""What the options of gated cells mean, and what must not depend on them."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from rnncli.cell_table import CELLS
from rnncli.errors import UsageError
from rnncli.evaluation.gates import gate_names
from rnncli.models.fast_cells import AnyCell, FastElman, FastGRU, FastLSTM, fast_cell
from rnncli.models.language_model import LanguageModel
from rnncli.nn.cells import make_cell
from rnncli.nn.cells.base import Cell
from rnncli.nn.recurrence import engines, run
from rnncli.nn.stack import Run, Stack
from rnncli.nn.state import CellState
from rnncli.sections import ModelConfig, RegularizationConfig
from tests.helpers import ROOT
from tests.nn.cases import KINDS, H, I, assert_equal, make, random_input, randomize

T, B = 6, 3
FAMILY = ("elman", "lstm", "lstm-peephole", "gru", "gru-cho2014", "mogrifier", "indrnn", "slstm",
          "echo-state")  # fmt: skip
GATED = [kind for kind, (cell, _) in KINDS.items() if cell in FAMILY]


def cell_of(name: str, inputs: int = I, hidden: int = H, **options: Any) -> Cell:
    cell = make_cell(ModelConfig(cell=name, **options), inputs, hidden).double()
    randomize(cell)
    return cell.requires_grad_(False)


def outputs(cell: Cell, x: Tensor, state: CellState, engine: str = "auto") -> Tensor:
    return run(cell, x, state, cell.step_weights(), engine=engine, dtype=torch.float64)[0].detach()


# -- the kernels are for the plain cells alone ----------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_kernels_and_hand_written_forms_run_no_cell_with_options(kind: str) -> None:
    cell = make(kind)
    plain = {"lstm", "gru", "elman-tanh", "elman-relu", "irnn"}
    assert ("vendor" in engines(cell)) == (kind in plain)
    by_hand = plain | {"elman-sigmoid", "gru-cho2014", "rhn", "rhn-uncoupled"}
    by_hand |= {"dt-rnn", "dts-rnn", "do-rnn", "dots-rnn"}
    assert ("closed" in engines(cell)) == (kind in by_hand)
    forms = {"lstm": FastLSTM, "gru": FastGRU}
    forms |= {f"elman-{f}": FastElman for f in ("tanh", "sigmoid", "relu")}
    forms["irnn"] = FastElman
    assert type(fast_cell(cell, "float32")) is forms.get(kind, AnyCell)


@pytest.mark.parametrize("name", CELLS)
def test_options_at_their_defaults_are_no_options(name: str) -> None:
    assert type(make_cell(ModelConfig(cell=name), I, H)) is type(
        make_cell(ModelConfig(cell=name, **CELLS[name].options), I, H)
    )


# -- gates ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["lstm", "lstm-peephole"])
def test_coupled_gates_sum_to_one(name: str) -> None:
    """Where every candidate is 1, a cell that holds 1 keeps it, whatever its gates."""
    cell = cell_of(name, coupled_gates=True)
    cell.a[H : 2 * H] = 40.0
    x, (h, _) = random_input(cell, T, B)
    _, (_, c) = run(cell, x, (h, torch.ones_like(h)), cell.step_weights(), engine="reference",
                    dtype=torch.float64)  # fmt: skip
    assert_equal(c, torch.ones_like(c))


def test_capped_gates_never_sum_to_more_than_one() -> None:
    """Where every candidate is 1 and both gates are wide open, c stays at 1."""
    found = {}
    for capped in (True, False):
        cell = cell_of("mogrifier", coupled_gates=capped)
        cell.a[:] = 40.0
        x, (h, _) = random_input(cell, T, B)
        state = (h, torch.ones_like(h))
        _, last = run(cell, x, state, cell.step_weights(), engine="auto", dtype=torch.float64)
        found[capped] = last[1].detach()
    assert_equal(found[True], torch.ones_like(found[True]))
    assert_equal(found[False], torch.full_like(found[False], 1.0 + T))


# Elman's norms are of the sum of both products, and what SRU leads past itself is no product.
@pytest.mark.parametrize(
    "name", [name for name in CELLS if name not in ("elman", "irnn", "echo-state", "fs-rnn", "sru")]
)
def test_layer_normalised_gates_do_not_see_the_size_of_the_input_matrix(name: str) -> None:
    cell = cell_of(name, layer_norm=True)
    x, state = random_input(cell, T, B)
    before = outputs(cell, x, state)
    cell.W_xh *= 300.0
    torch.testing.assert_close(outputs(cell, x, state), before, rtol=1e-3, atol=1e-4)
    plain = cell_of(name)
    before = outputs(plain, x, state)
    plain.W_xh *= 300.0
    assert (outputs(plain, x, state) - before).abs().max() > 0.05


@pytest.mark.parametrize("name", ["elman", "irnn"])
def test_a_layer_normalised_elman_does_not_see_the_size_of_both_matrices(name: str) -> None:
    cell = cell_of(name, layer_norm=True)
    x, state = random_input(cell, T, B)
    before = outputs(cell, x, state)
    cell.W_xh *= 300.0
    cell.W_hh *= 300.0
    torch.testing.assert_close(outputs(cell, x, state), before, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", CELLS)
def test_gains_start_at_one_however_weights_start(name: str) -> None:
    if "layer_norm" in CELLS[name].options:
        cell = make_cell(ModelConfig(cell=name, layer_norm=True, init="uniform"), I, H)
        gains = [p for n, p in cell.named_parameters() if n.split(".")[-1] == "g"]
        assert gains and all(bool((g == 1).all()) for g in gains)


# -- sizes ----------------------------------------------------------------------------------------


def test_a_projection_is_what_the_next_layer_and_the_output_read() -> None:
    model = LanguageModel(ModelConfig(hidden_size=8, projection_size=3, embedding_size=5), 7)
    first, second = model.stack.layers
    assert first.W_hh.shape == (32, 3) and second.W_xh.shape == (32, 3)
    assert model.output.matrix(None).shape == (7, 3)
    assert [tuple(part.shape) for part in model.start(None, 2).tensors()] == [(2, 3), (2, 8)] * 2


def test_a_projection_may_be_tied_to_the_embedding() -> None:
    model = LanguageModel(
        ModelConfig(hidden_size=8, projection_size=5, embedding_size=5, tied=True), 7
    )
    assert [cell.hidden_size for cell in model.stack.layers] == [8, 8]
    with pytest.raises(UsageError, match=r"model\.tied: .* 3 units.*embedding_size = 3"):
        LanguageModel(ModelConfig(projection_size=3, embedding_size=5, tied=True), 7)


def test_depth_adds_cells_that_read_nothing() -> None:
    cell = make_cell(ModelConfig(cell="gru", transition_depth=3), I, H)
    names = [name for name, _ in cell.named_parameters() if name.endswith("W_xh")]
    assert names == ["cell.W_xh"]
    assert list(cell.recurrent_weights()) == ["cell.W_hh", "further.0.W_hh", "further.1.W_hh"]


# -- Mogrifier ------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, {"projection_size": 3}, {"layer_norm": True}], ids=str)
def test_a_mogrifier_without_rounds_is_an_lstm(options: dict[str, Any]) -> None:
    mogrifier, lstm = cell_of("mogrifier", rounds=0, **options), cell_of("lstm", **options)
    lstm.load_state_dict(mogrifier.state_dict())
    x, state = random_input(lstm, T, B)
    assert_equal(outputs(mogrifier, x, state), outputs(lstm, x, state))


def test_a_mogrifier_starts_near_the_lstm_and_rank_bounds_its_matrices() -> None:
    """With Q = R = 0 every gate is 2 sigmoid(0) = 1."""
    mogrifier, lstm = cell_of("mogrifier"), cell_of("lstm")
    lstm.load_state_dict(mogrifier.state_dict(), strict=False)
    x, state = random_input(lstm, T, B)
    assert (outputs(mogrifier, x, state) - outputs(lstm, x, state)).abs().max() > 0.01
    for name, weight in mogrifier.named_parameters():
        if name[0] in "QR":
            weight.zero_()
    assert_equal(outputs(mogrifier, x, state), outputs(lstm, x, state))
    low = cell_of("mogrifier", hidden=20, inputs=10, rank=2)
    assert low.Q1_left.shape == (10, 2) and low.Q1_right.shape == (2, 20)
    assert low.R2_left.shape == (20, 2) and low.R2_right.shape == (2, 10)


# -- sLSTM ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("forget_gate", ["sigmoid", "exp"])
@pytest.mark.parametrize("heads", [1, 2])
def test_an_slstm_does_not_depend_on_its_stabiliser(heads: int, forget_gate: str) -> None:
    """c, n and m stand for c e^m and n e^m: the same state, scaled otherwise."""
    cell = cell_of("slstm", heads=heads, forget_gate=forget_gate)
    x, (h, c, n, m) = random_input(cell, T, B)
    shift = torch.tensor([3.0, -2.0, 0.5, 10.0], dtype=torch.float64)
    other = (h, c * torch.exp(-shift), n * torch.exp(-shift), m + shift)
    assert_equal(outputs(cell, x, other), outputs(cell, x, (h, c, n, m)))


def test_an_slstm_survives_a_first_exponent_that_would_underflow() -> None:
    """Before the first step nothing has been summed, so that any input is all there is."""
    cell = cell_of("slstm").float()
    cell.a[:H] = -200.0
    x = torch.randn(3, 2, I)
    y, _ = run(cell, x, cell.zero_state(2), cell.step_weights(), engine="auto", dtype=torch.float32)
    assert y.isfinite().all() and y[0].any()


@pytest.mark.parametrize(("forget_gate", "rows"), [("sigmoid", 1), ("exp", 1), ("exp", 2)])
def test_an_slstm_survives_exponents_that_would_overflow(forget_gate: str, rows: int) -> None:
    """Of the input gate, or of the forget gate, too."""
    cell = cell_of("slstm", forget_gate=forget_gate).float()
    cell.a[: rows * H] = 200.0
    x = torch.randn(T, B, I)
    y, last = run(cell, x, cell.zero_state(B), cell.step_weights(), engine="auto",
                  dtype=torch.float32)  # fmt: skip
    assert all(bool(part.isfinite().all()) for part in (y, *last))
    assert bool((y.abs() <= 1.0).all()) and y.abs().max() > 0.01


def test_an_exponential_forget_gate_starts_where_a_sigmoid_one_does() -> None:
    for bias in (None, 3.0, -2.0):
        cells = (
            make_cell(ModelConfig(cell="slstm", forget_gate=kind, forget_bias=bias), I, H)
            for kind in ("sigmoid", "exp")
        )
        by_sigmoid, by_exp = (cell.a.detach()[H : 2 * H] for cell in cells)
        assert by_sigmoid.tolist() == [1.0 if bias is None else bias] * H
        torch.testing.assert_close(by_exp.exp(), by_sigmoid.sigmoid())


def test_the_heads_of_an_slstm_are_strangers_to_each_other() -> None:
    assert make("slstm").W_hh.shape == (4 * H, H)
    cell = cell_of("slstm", heads=2)
    assert cell.W_hh.shape == (4 * H, H // 2)
    assert cell.step_weights()["W_hh"].shape == (4 * H, H)
    x, state = random_input(cell, T, B)
    changed = (state[0] + torch.tensor([0.0, 0.0, 0.7, 0.7]), *state[1:])
    gap = (outputs(cell, x, changed) - outputs(cell, x, state)).abs().amax((0, 1))
    assert bool((gap[:2] == 0).all()) and bool((gap[2:] > 1e-3).all())


def test_heads_must_divide_the_units() -> None:
    with pytest.raises(UsageError, match=r"model\.heads: 4 units do not divide into 3 heads"):
        make_cell(ModelConfig(cell="slstm", heads=3), I, H)
    with pytest.raises(UsageError, match=r"model\.zoneout_cell: .*use model\.zoneout"):
        make_cell(ModelConfig(cell="slstm", zoneout_cell=0.1), I, H)


def test_what_an_slstm_divides_by_cannot_learn_its_start() -> None:
    for cell in ("slstm", "lstm,slstm"):
        config = ModelConfig(cell=cell, hidden_size=H, initial_state="learned", zoneout=0.1)
        with pytest.raises(UsageError, match=rf"model\.initial_state: {cell} divides .*'zero'"):
            Stack(config, I)
        Stack(replace(config, initial_state="zero"), I)


# -- IndRNN ---------------------------------------------------------------------------------------


def test_the_units_of_an_indrnn_are_strangers_to_each_other() -> None:
    cell = cell_of("indrnn", nonlinearity="tanh")
    x, (h,) = random_input(cell, T, B)
    changed = h + torch.tensor([0.0, 0.5, 0.0, 0.0])
    gap = (outputs(cell, x, (changed,)) - outputs(cell, x, (h,))).abs().amax((0, 1))
    assert torch.equal(gap > 0, torch.tensor([False, True, False, False]))


def test_an_indrnn_never_grows_faster_than_it_reads() -> None:
    """|u| is cut at 1: with a drive of 1 a unit reaches at most T in T steps."""
    cell = cell_of("indrnn", hidden=1)
    cell.W_xh.zero_()
    cell.a.fill_(1.0)
    cell.u.fill_(5.0)
    y = outputs(cell, torch.zeros(50, 1, I, dtype=torch.float64), cell.zero_state(1))
    assert_equal(y.flatten(), torch.arange(1, 51, dtype=torch.float64))


def test_a_unit_that_an_update_carried_beyond_the_bound_is_brought_back() -> None:
    for name in ("indrnn", "indrnn-layer-norm"):
        cell = make(name)
        with torch.no_grad():
            cell.u.copy_(torch.tensor([1.5, 0.5, -2.0, -0.5]))
        cell.after_update()
        assert cell.u.tolist() == [1.0, 0.5, -1.0, -0.5]
        assert cell.reads_by_matrix


# -- echo state, and what is not learned ----------------------------------------------------------


def train(model: LanguageModel, steps: int = 3) -> dict[str, bool]:
    """Which parameters some steps of gradient descent have changed."""
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    tokens = torch.randint(7, (9, 2), generator=torch.Generator().manual_seed(0))
    for _ in range(steps):
        model.zero_grad()
        loss, _, _ = model.training_loss(
            tokens[:-1], tokens[1:], model.start(None, 2), None, Run(), RegularizationConfig()
        )
        loss.backward()
        with torch.no_grad():
            for p in model.parameters():
                if p.grad is not None:
                    p -= 0.5 * p.grad
    return {name: not torch.equal(p, before[name]) for name, p in model.named_parameters()}


SIZES = {"layers": 2, "hidden_size": 12, "embedding_size": 6}


@pytest.mark.parametrize(
    ("config", "learned"),
    [
        ({"cell": "echo-state"}, {"output"}),
        ({"cell": "echo-state", "leak": 0.2}, {"output"}),
        ({"cell": "echo-state", "learned": ("a",)}, {"output", "a"}),
        ({"cell": "echo-state", "learned": ("embedding",)}, {"output", "embedding"}),
        ({"cell": "echo-state", "learned": ("W_xh",)}, {"output", "embedding", "W_xh"}),
        ({"cell": "elman", "frozen": ("W_hh",)}, {"output", "embedding", "W_xh", "a"}),
        ({"cell": "elman", "frozen": ("embedding",)}, {"output", "W_xh", "W_hh", "a"}),
    ],
    ids=lambda value: str(sorted(value)),
)
def test_what_is_fixed_never_changes_and_the_rest_does(
    config: dict[str, Any], learned: set[str]
) -> None:
    torch.manual_seed(0)
    changed = train(LanguageModel(ModelConfig(**SIZES, **config), 7))
    for name, has_changed in changed.items():
        part = name.split(".")[-1] if name.startswith("stack") else name.split(".")[0]
        assert has_changed == (part in learned), name


def test_a_tied_embedding_of_an_echo_state_network_is_its_output_and_is_learned() -> None:
    torch.manual_seed(0)
    config = {**SIZES, "hidden_size": 6, "tied": True}
    changed = train(LanguageModel(ModelConfig(cell="echo-state", **config), 7))
    assert {name for name, has in changed.items() if has} == {"embedding.weight", "output.b"}


def test_a_loaded_model_that_learns_again_leaves_what_is_fixed() -> None:
    """Dynamic evaluation does."""
    model = LanguageModel(ModelConfig(cell="echo-state", **SIZES), 7)
    learned = [parameter for parameter in model.parameters() if parameter.requires_grad]
    model.requires_grad_(False)
    again = model.take_gradients()
    assert [id(p) for p in again] == [id(p) for p in learned] != []
    assert {n for n, p in model.named_parameters() if p.requires_grad} == {
        "output.W_hy",
        "output.b",
    }


@pytest.mark.parametrize(("given", "radius"), [({}, 0.9), ({"spectral_radius": 0.5}, 0.5)])
def test_an_echo_state_network_has_the_spectral_radius_asked_for(
    given: dict[str, Any], radius: float
) -> None:
    torch.manual_seed(0)
    cell = make_cell(ModelConfig(cell="echo-state", **given), 10, 60)
    W_hh = cell.W_hh.detach().double()
    assert float(torch.linalg.eigvals(W_hh).abs().max()) == pytest.approx(radius, rel=1e-4)
    assert ((W_hh != 0).sum(1) == 20).all()


def test_an_echo_state_network_forgets_where_it_started() -> None:
    """The echo state property: with a small spectral radius the input alone decides, in the end."""
    torch.manual_seed(0)
    cell = make_cell(ModelConfig(cell="echo-state", spectral_radius=0.5), I, 40).double()
    x = torch.randn(60, 1, I, dtype=torch.float64)
    zero, other = cell.zero_state(1), (torch.rand(1, 40, dtype=torch.float64),)
    gap = (outputs(cell, x, zero) - outputs(cell, x, other)).abs().amax((1, 2))
    assert float(gap[0]) > 0.05 and float(gap[-1]) < 1e-6


def test_weights_named_wrongly_are_refused_with_the_names_there_are() -> None:
    with pytest.raises(UsageError, match=r"model\.frozen: lstm has no weight 'W_hx'.*W_xh"):
        LanguageModel(ModelConfig(hidden_size=H, embedding_size=I, frozen=("W_hx",)), 7)
    with pytest.raises(UsageError, match=r"model\.learned: 'W_hy'.*echo-state fixes W_xh, W_hh, a"):
        ModelConfig(cell="echo-state", learned=("W_hy",))
    with pytest.raises(UsageError, match=r"model\.learned: 'W_hh'.*lstm fixes nothing"):
        ModelConfig(learned=("W_hh",))
    with pytest.raises(UsageError, match=r"model\.learned: 'a' is in model\.frozen too"):
        ModelConfig(cell="echo-state", learned=("a",), frozen=("a",))


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"cell": "gru", "projection_size": 3}, r"projection_size: gru has no .*: lstm, lstm-p"),
        ({"cell": "lstm", "rounds": 3}, r"rounds: lstm has no such option.*mogrifier"),
        ({"cell": "lstm", "transition_depth": -1}, r"transition_depth: -1 is out of range"),
        ({"cell": "lstm", "transition_depth": 0}, r"transition_depth: 0 is out of range"),
        ({"cell": "lstm", "forget_gate": "exp"}, r"forget_gate: lstm has no such option.*slstm"),
        ({"cell": "slstm", "forget_gate": "relu"}, r"forget_gate: unknown value 'relu'.*exp"),
        ({"cell": "gru", "candidate": "positive"}, r"candidate: gru has no .*: mingru, minlstm"),
        ({"cell": "echo-state", "leak": 1.5}, r"leak: 1.5 is out of range"),
        ({"cell": "indrnn", "nonlinearity": "maxout"}, r"nonlinearity: unknown value 'maxout'"),
        ({"cell": "gru-peephole"}, r"cell: unknown value 'gru-peephole'.*lstm-peephole"),
        ({"cell": "lstm-peephol"}, r"cell: unknown value 'lstm-peephol'.*lstm-peephole"),
    ],
    ids=str,
)
def test_options_that_a_cell_lacks_name_those_that_have_them(
    config: dict[str, Any], message: str
) -> None:
    with pytest.raises(UsageError, match=rf"model\.{message}"):
        ModelConfig(**config)


@pytest.mark.parametrize("name", ["W_hy", "b"])
def test_a_weight_of_the_output_layer_can_stay_as_it_starts(name: str) -> None:
    model = LanguageModel(ModelConfig(hidden_size=H, embedding_size=I, frozen=(name, "W_hh")), 7)
    changed = train(model)
    fixed = [key for key, value in changed.items() if not value]
    assert fixed == [key for key in changed if key.endswith(("W_hh", f"output.{name}"))]


def test_what_an_output_layer_has_not_cannot_be_fixed() -> None:
    for more, why in (({"tied": True}, "model.tied"), ({"output": "adaptive"}, "has clusters")):
        config = ModelConfig(hidden_size=64, embedding_size=64, frozen=("W_hy",), **more)
        with pytest.raises(UsageError, match=rf"model\.frozen: there is no 'W_hy'.*{why}"):
            LanguageModel(config, 70)


def test_in_a_mixture_a_weight_is_fixed_where_there_is_one() -> None:
    config = ModelConfig(cell="lstm,gru", hidden_size=H, frozen=("a_n",))
    fixed = [name for name, p in Stack(config, I).named_parameters() if not p.requires_grad]
    assert fixed == ["cells.1.a_n"]
    sizes = {"hidden_size": H, "embedding_size": I}
    zoned = LanguageModel(ModelConfig(**sizes, zoneout=0.1, frozen=("W_hh",)), 7)
    fixed = [name for name, p in zoned.named_parameters() if not p.requires_grad]
    assert fixed == ["stack.cells.0.cell.W_hh", "stack.cells.1.cell.W_hh"]
    for more in ({"cell": "lstm,gru"}, {"cell": "lstm,gru", "transition_depth": 2}):
        with pytest.raises(UsageError, match=r"lstm,gru has no weight 'W_hx'.*W_xh"):
            LanguageModel(ModelConfig(**sizes, **more, frozen=("W_hx",)), 7)
    with pytest.raises(UsageError, match=r"has no weight 'W_hh'; did you mean 'cell\.W_hh'"):
        LanguageModel(ModelConfig(**sizes, transition_depth=2, frozen=("W_hh",)), 7)


def test_output_weights_start_as_all_others() -> None:
    for init, least, most in (("normal", 0.3, 0.6), ("uniform", 0.05, 0.1)):
        model = LanguageModel(
            ModelConfig(hidden_size=64, embedding_size=I, init=init, init_scale=0.1), 99
        )
        assert model.output.W_hy is not None
        assert least < float(model.output.W_hy.detach().abs().max()) <= most
        deviation = {"normal": 0.1, "uniform": 0.1 / 3**0.5}[init]
        assert float(model.output.W_hy.detach().std()) == pytest.approx(deviation, rel=0.05)


GATED: tuple[dict[str, Any], ...] = (
    *({"cell": name} for name in CELLS),
    {"cell": "rhn", "coupled_gates": False},
    {"cell": "fs-rnn", "fast_layers": 3},
    {"cell": "qrnn", "pooling": "f"},
    {"cell": "qrnn", "pooling": "ifo"},
)


@pytest.mark.parametrize("config", GATED, ids=str)
def test_the_page_of_gates_has_those_of_every_cell(config: dict[str, Any]) -> None:
    """Numbered ones by the first of their kind."""
    page = (ROOT / "docs" / "explain.md").read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| (`[a-z0-9`, -]+) \| (.*) \|$", page, re.M))
    told = {name: row for names, row in rows.items() for name in re.findall(r"`([^`]+)`", names)}
    gates = gate_names(make_cell(ModelConfig(**config), 4, 4))
    assert bool(gates) == (config["cell"] in told)
    row = re.findall(r"`([^`]+)`", told.get(config["cell"], ""))
    if config["cell"] == "fs-rnn":
        kinds, places = zip(*(gate.split("_") for gate in gates if gate != "cell"), strict=True)
        assert {f"forget_{place}" for place in places} <= {*row, "forget_F3"}
        assert set(kinds) == set(gate_names(make_cell(ModelConfig(cell="lstm"), 4, 4))) - {"cell"}
    else:
        assert {re.sub(r"_\d+$", "_1", gate) for gate in gates} <= {*row}


@pytest.mark.parametrize("cell", ["lstm", "lstm-peephole", "gru", "gru-cho2014"])
def test_steps_of_a_transition_number_their_gates(cell: str) -> None:
    plain, deep = (
        gate_names(make_cell(ModelConfig(cell=cell, transition_depth=depth), 4, 4))
        for depth in (1, 2)
    )
    numbered = {f"{gate}_{k}" for gate in plain if gate != "cell" for k in (1, 2)}
    assert set(deep) == numbered | ({"cell"} & set(plain))

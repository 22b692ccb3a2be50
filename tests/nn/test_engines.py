"""Every way to run a cell over time gives the reference's results and gradients."""

from __future__ import annotations

import pytest
import torch

from rnncli.cell_table import CELLS
from rnncli.errors import UsageError
from rnncli.nn.recurrence import engines, fastest, require_engine, run
from rnncli.nn.state_dropout import StateDropout
from tests.nn.cases import (
    KINDS,
    H,
    assert_equal,
    engine_cases,
    everything,
    make,
    random_input,
    some_weight,
)

CASES = engine_cases()
OTHERS = [case for case in CASES if case[1] != "reference"]


@pytest.mark.parametrize(("T", "B"), [(7, 3), (1, 3), (5, 1), (1, 1)])
@pytest.mark.parametrize(("kind", "engine"), OTHERS)
def test_equals_the_reference(kind: str, engine: str, T: int, B: int) -> None:
    cell = make(kind)
    found, expected = everything(cell, engine, T, B), everything(cell, "reference", T, B)
    for name, tensor in expected.items():
        assert tensor.abs().max() > 0, name
        assert_equal(found[name], tensor)


@pytest.mark.parametrize(
    ("kind", "more"),
    [("rhn", ["closed"]), ("rhn-uncoupled", ["closed"]), ("rhn-layer-norm", []), ("gru", [])],
)
def test_a_state_of_which_units_are_dropped(kind: str, more: list[str]) -> None:
    """The same units by every engine that has them at all."""
    cell = make(kind)
    names = engines(StateDropout(cell, 0.4))
    assert names == ("reference", "deferred", *more)
    found = []
    for engine in names:
        torch.manual_seed(1)
        found.append(everything(StateDropout(cell, 0.4), engine, 7, 3))
    for one in found[1:]:
        for name, tensor in found[0].items():
            assert_equal(one[name], tensor)


@pytest.mark.parametrize("kind", sorted({kind for kind, _ in CASES}))
def test_gradients_are_those_of_finite_differences(kind: str) -> None:
    """Of the reference, which every other engine equals (above)."""
    cell = make(kind, inputs=2, hidden=2)
    x, state = random_input(cell, T=3, B=2)
    names, parameters = zip(*cell.named_parameters(), strict=True)

    def outputs(x: torch.Tensor, *rest: torch.Tensor) -> tuple[torch.Tensor, ...]:
        state, weights = rest[: cell.state_parts], rest[cell.state_parts :]
        named = dict(zip(names, weights, strict=True))
        with torch.nn.utils.stateless._reparametrize_module(cell, named):
            y, last = run(cell, x, state, cell.step_weights(), engine="reference", dtype=x.dtype)
        return (y, *last)

    assert torch.autograd.gradcheck(outputs, (x, *state, *parameters))


@pytest.mark.parametrize(("kind", "engine"), CASES)
def test_without_gradients_the_results_are_the_same(kind: str, engine: str) -> None:
    cell = make(kind)
    x, state = random_input(cell, T=5, B=2)
    weights = cell.step_weights()
    y, last = run(cell, x, state, weights, engine=engine, dtype=torch.float64)
    with torch.no_grad():
        again, last_again = run(cell, x, state, weights, engine=engine, dtype=torch.float64)
    assert y.requires_grad and not again.requires_grad
    for mine, theirs in zip((again, *last_again), (y, *last), strict=True):
        assert_equal(mine, theirs.detach())


@pytest.mark.parametrize(("kind", "engine"), CASES)
def test_frozen_weights_get_no_gradient_and_the_input_does(kind: str, engine: str) -> None:
    cell = make(kind)
    expected = everything(cell, "reference", 4, 2)["gradient of x"]
    x, state = random_input(cell, T=4, B=2)
    cell.requires_grad_(False)
    y, last = run(cell, x, state, cell.step_weights(), engine=engine, dtype=torch.float64)
    generator = torch.Generator().manual_seed(2)
    results = (y, *last)
    sum(
        (r * torch.randn(r.shape, generator=generator, dtype=torch.float64)).sum() for r in results
    ).backward()
    assert_equal(x.grad, expected)
    assert all(parameter.grad is None for parameter in cell.parameters())


@pytest.mark.parametrize(("kind", "engine"), CASES)
def test_gradients_of_a_graph_kept_for_a_second_time(kind: str, engine: str) -> None:
    """Also after a pass that wanted the gradient of the input alone."""
    cell = make(kind)
    x, state = random_input(cell, T=4, B=2)
    y, _ = run(cell, x, state, cell.step_weights(), engine=engine, dtype=torch.float64)
    weight = some_weight(cell)
    loss = y.pow(2).sum()
    torch.autograd.grad(loss, x, retain_graph=True)
    first = torch.autograd.grad(loss, weight, retain_graph=True)[0]
    (second,) = torch.autograd.grad(loss, weight)
    y, _ = run(cell, x, state, cell.step_weights(), engine="reference", dtype=torch.float64)
    (expected,) = torch.autograd.grad(y.pow(2).sum(), weight)
    assert_equal(first, expected)
    assert_equal(second, expected)


@pytest.mark.parametrize(("kind", "engine"), CASES)
def test_float32_is_as_near_as_it_can_be(kind: str, engine: str) -> None:
    """Some kernels exist in this type alone."""
    expected = everything(make(kind), "reference", 7, 3)
    found = everything(make(kind).float(), engine, 7, 3, torch.float32)
    for name, tensor in expected.items():
        assert found[name].dtype == torch.float32
        assert_equal(found[name].double(), tensor, 1e-4)


@pytest.mark.parametrize(("kind", "engine"), CASES)
def test_operands_in_bfloat16_change_little(kind: str, engine: str) -> None:
    """To normalise two or four units can be to divide by almost nothing; sixteen it is not."""
    cell = make(kind, hidden=16 if "layer-norm" in kind else H).float()
    x, state = (t for t in random_input(cell, T=6, B=3))
    x, state = x.detach().float(), tuple(s.detach().float() for s in state)
    results = {}
    for dtype in (torch.float32, torch.bfloat16):
        y, _ = run(cell, x, state, cell.step_weights(), engine=engine, dtype=dtype)
        gradients = torch.autograd.grad(y.float().pow(2).sum(), list(cell.parameters()))
        results[dtype] = [y.float(), *gradients]
    for exact, rounded in zip(results[torch.float32], results[torch.bfloat16], strict=True):
        error = (rounded - exact).norm() / exact.norm()
        assert 1e-6 < error < 5e-2
        assert rounded.dtype == torch.float32


def test_every_cell_of_the_table_is_tried() -> None:
    assert {cell for cell, _ in KINDS.values()} == set(CELLS)


@pytest.mark.parametrize(
    ("kind", "inputs", "dtype", "training", "expected"),
    [
        ("lstm", 64, torch.float32, True, "vendor"),
        ("lstm", 64, torch.bfloat16, True, "vendor"),
        ("lstm", 60, torch.bfloat16, True, "closed"),
        ("lstm", 544, torch.bfloat16, True, "closed"),
        ("gru", 64, torch.float32, True, "closed"),
        ("gru", 64, torch.float32, False, "vendor"),
        ("elman-tanh", 64, torch.float32, True, "closed"),
        ("fs-rnn", 64, torch.float32, True, "deferred"),
        ("dts-rnn", 64, torch.float32, True, "closed"),
        ("dot-rnn-lp", 64, torch.float32, True, "deferred"),
        ("rhn", 64, torch.float32, True, "closed"),
        ("rhn", 64, torch.float32, False, "reference"),
        ("mingru", 64, torch.float32, True, "scan"),
        ("mingru", 64, torch.float32, False, "scan"),
    ],
)
def test_the_engine_chosen_on_a_processor(
    kind: str, inputs: int, dtype: torch.dtype, training: bool, expected: str
) -> None:
    cell = make(kind, 3, inputs)
    with torch.set_grad_enabled(training):
        assert fastest(cell, dtype, torch.device("cpu")) == expected


@pytest.mark.parametrize(("T", "B"), [(1, 1), (5, 1), (1, 3), (70, 1), (3, 2)])
@pytest.mark.parametrize("kind", ["lstm", "gru", "elman-tanh"])
def test_no_switch_of_the_whole_process_is_touched(
    kind: str, T: int, B: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Batches are translated by several threads at once, and training goes on afterwards."""

    def refuse(*_: object) -> None:
        raise AssertionError

    monkeypatch.setattr(torch._C, "_set_mkldnn_enabled", refuse)
    cell = make(kind).float()
    x, state = random_input(cell, T, B)
    for training in (False, True):
        with torch.set_grad_enabled(training):
            run(
                cell, x.float(), tuple(s.float() for s in state), cell.step_weights(),
                engine="auto", dtype=torch.float32,
            )  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_an_engine_that_a_cell_lacks_is_refused_by_name(kind: str) -> None:
    cell = make(kind)
    for engine in ("auto", *engines(cell)):
        require_engine(cell, engine)
    for engine in {"closed", "vendor"} - set(engines(cell)):
        with pytest.raises(UsageError, match=rf"training.engine: '{engine}'.*choices: auto, ref"):
            require_engine(cell, engine)

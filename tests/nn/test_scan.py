"""The scan of h(t) = f(t) * h(t-1) + b(t): in a loop and in chunks, forward and backward."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from rnncli.nn.recurrence import scan as module
from rnncli.nn.recurrence.scan import scan
from tests.nn.cases import assert_equal

LENGTHS = (1, 2, 3, 15, 16, 17, 63, 64, 65, 100)


def draw(*shape: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def terms(T: int, B: int = 2, H: int = 3) -> list[Tensor]:
    """f, b, h0; some f are 0, some above 1, some negative."""
    f = draw(T, B, H, seed=1) * 0.7
    f[::5] = 0.0
    return [f, draw(T, B, H, seed=2), draw(B, H, seed=3)]


def one_by_one(f: Tensor, b: Tensor, h0: Tensor) -> Tensor:
    states = [h0]
    for f_t, b_t in zip(f, b, strict=True):
        states.append(f_t * states[-1] + b_t)
    return torch.stack(states[1:])


@pytest.fixture(params=[True, False], ids=["chunks", "loop"])
def chunked(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    monkeypatch.setattr(module, "_CHUNKED_FROM", 2 if request.param else 1 << 30)
    return bool(request.param)


@pytest.mark.parametrize("T", LENGTHS)
def test_values_and_gradients_are_those_of_the_plain_loop(T: int, chunked: bool) -> None:
    inputs = [t.requires_grad_() for t in terms(T)]
    found, expected = scan(*inputs), one_by_one(*inputs)
    assert_equal(found, expected)
    weights = draw(*found.shape, seed=4)
    for mine, its in zip(
        torch.autograd.grad(found, inputs, weights),
        torch.autograd.grad(expected, inputs, weights),
        strict=True,
    ):
        assert_equal(mine, its)


@pytest.mark.parametrize("T", [1, 5, 9])
def test_gradcheck(T: int, chunked: bool) -> None:
    assert torch.autograd.gradcheck(scan, [t.requires_grad_() for t in terms(T, 1, 2)])


def test_only_what_wants_a_gradient_gets_one(chunked: bool) -> None:
    for wanted in range(3):
        inputs = terms(20)
        inputs[wanted].requires_grad_()
        scan(*inputs).sum().backward()
        copies = [t.detach().requires_grad_() for t in inputs]
        one_by_one(*copies).sum().backward()
        assert_equal(inputs[wanted].grad, copies[wanted].grad)
        assert all(t.grad is None for k, t in enumerate(inputs) if k != wanted)


def test_inputs_and_gradients_of_any_layout(chunked: bool) -> None:
    """Parts of a wider matrix, and a gradient that is one number everywhere."""
    f, b, h0 = terms(70)
    wide = torch.cat([f, b], dim=2).requires_grad_()
    part_f, part_b = wide.chunk(2, dim=2)
    scan(part_f, part_b, h0).sum().backward()
    f.requires_grad_()
    b.requires_grad_()
    one_by_one(f, b, h0).sum().backward()
    assert_equal(wide.grad, torch.cat([f.grad, b.grad], dim=2))


def test_long_products_of_gates_vanish_quietly(chunked: bool) -> None:
    f, b, h0 = (t.float() for t in terms(400))
    found = scan(f * 1e-3, b, h0)
    assert_equal(found.double(), one_by_one(f.double() * 1e-3, b.double(), h0.double()), 1e-5)


class Count(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.calls += func.overloadpacket in (torch.ops.aten.addcmul, torch.ops.aten.mul)
        return func(*args, **(kwargs or {}))


def test_small_steps_are_taken_together() -> None:
    calls = []
    for T in (1024, 4096):
        with Count() as count:
            scan(*terms(T, 1, 4))
        calls.append(count.calls)
    assert calls[0] < 1024 / 8
    assert calls[1] < 2.2 * calls[0]  # the square root of four times as many steps
    with Count() as count:
        scan(*terms(100, 64, 256))
    assert count.calls >= 100

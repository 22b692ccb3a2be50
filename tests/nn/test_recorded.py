"""When a loop is recorded. (That a recording gives what the loop does needs a device: test_gpu.)"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
import torch
from torch import Tensor

from rnncli.nn.cells import make_cell
from rnncli.nn.cells.base import Cell
from rnncli.nn.recurrence import recorded, run_deferred
from rnncli.nn.state import CellState
from rnncli.sections import ModelConfig
from tests.nn.cases import make, random_input

CALLS: list[int] = []


class Graph:
    """A stand-in, whose replay leaves in place what the recording found."""

    def pool(self) -> None:
        pass

    def replay(self) -> None:
        pass


def loop(
    cell: Cell, projected: Tensor, state: CellState, weights: Mapping[str, Tensor], dtype: Any
) -> tuple[Tensor, CellState]:
    CALLS.append(len(projected))
    return run_deferred(cell, projected, state, weights, dtype)


@pytest.fixture(autouse=True)
def no_device(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    def nothing(*_: Any, **__: Any) -> contextlib.AbstractContextManager[None]:
        return contextlib.nullcontext()

    monkeypatch.setattr(torch.cuda, "CUDAGraph", Graph)
    for name in ("graph", "stream", "Stream", "synchronize", "current_stream"):
        monkeypatch.setattr(torch.cuda, name, nothing)
    monkeypatch.setattr(recorded, "_has_room", lambda: True)
    CALLS.clear()
    yield


def run(cell: Cell, steps: int) -> Tensor:
    x, state = random_input(cell, steps, 3)
    projected = cell.project(x, state, torch.float64)
    weights = cell.step_weights()
    h, _ = recorded.run_recorded(loop, cell, projected, state, weights, torch.float64)
    return h


def test_a_shape_is_recorded_when_it_comes_up_again() -> None:
    cell = make("dt-rnn")
    run(cell, 5).sum().backward()
    assert (recorded.recordings(cell), len(CALLS)) == (0, 1)
    run(cell, 5).sum().backward()
    assert recorded.recordings(cell) == 1
    CALLS.clear()
    for _ in range(3):
        run(cell, 5).sum().backward()
    assert not CALLS
    run(cell, 6)
    assert (recorded.recordings(cell), CALLS) == (1, [6])


def test_a_cell_has_so_many_recordings_and_no_more() -> None:
    cell = make("elman-sigmoid")
    for steps in range(4, 4 + recorded.MOST + 2):
        for _ in range(3):
            run(cell, steps).sum().backward()
    assert recorded.recordings(cell) == recorded.MOST


def test_the_loop_runs_while_gradients_may_still_come() -> None:
    cell = make("mingru")
    for _ in range(2):
        run(cell, 5).sum().backward()
    first = run(cell, 5)
    CALLS.clear()
    second = run(cell, 5)
    assert CALLS == [5]
    second.sum().backward()
    first.sum().backward()
    CALLS.clear()
    run(cell, 5)  # and it is given up without a backward pass
    run(cell, 5)
    assert not CALLS


def test_a_pass_goes_back_once() -> None:
    cell = make("dt-rnn")
    for _ in range(2):
        run(cell, 5).sum().backward()
    total = run(cell, 5).sum()
    total.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="once"):
        total.backward()


def test_where_nothing_is_learned_the_loop_runs() -> None:
    cell = make("dt-rnn").requires_grad_(False)
    x, state = random_input(cell, 5, 3)
    inputs = (x.detach(), tuple(part.detach() for part in state))
    projected = cell.project(*inputs, torch.float64)
    for _ in range(4):
        weights = cell.step_weights()
        recorded.run_recorded(loop, cell, projected, inputs[1], weights, torch.float64)
    assert recorded.recordings(cell) == 0


@pytest.mark.parametrize(
    ("settings", "expected"), [({}, True), ({"zoneout": 0.1}, False), ({"layer_norm": True}, True)]
)
def test_a_step_that_draws_is_not_recorded(settings: dict[str, Any], expected: bool) -> None:
    assert make_cell(ModelConfig(cell="lstm", **settings), 3, 4).recordable is expected


def test_without_memory_for_it_the_loop_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    cell = make("dt-rnn")
    monkeypatch.setattr(recorded, "_has_room", lambda: False)
    for _ in range(3):
        run(cell, 5).sum().backward()
    assert (recorded.recordings(cell), CALLS) == (0, [5, 5, 5])


def test_a_recording_that_fails_leaves_the_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("operation not permitted when stream is capturing")

    monkeypatch.setattr(recorded, "_Recording", fail)
    cell = make("dt-rnn")
    run(cell, 5).sum().backward()
    with pytest.warns(UserWarning, match="not permitted"):
        run(cell, 5).sum().backward()
    run(cell, 5).sum().backward()
    assert (recorded.recordings(cell), CALLS) == (0, [5, 5, 5])


def test_evaluation_has_a_recording_of_its_own() -> None:
    cell = make("dt-rnn")
    for mode in (True, False):
        cell.train(mode)
        for _ in range(2):
            run(cell, 5).sum().backward()
    assert recorded.recordings(cell) == 2


def test_weights_that_move_leave_no_recording_behind() -> None:
    cell = make("lstm-peephole")
    for _ in range(2):
        run(cell, 5).sum().backward()
    assert recorded.recordings(cell) == 1
    kept = [parameter.data for parameter in cell.parameters()]  # so that none is put there again
    cell.float().double()
    CALLS.clear()
    run(cell, 5)
    assert (recorded.recordings(cell), CALLS) == (0, [5])
    del kept


def test_a_processor_needs_no_recording() -> None:
    cell = make("dt-rnn")
    x, state = random_input(cell, 5, 3)
    assert not recorded.may_record(cell, cell.project(x, state, torch.float64))

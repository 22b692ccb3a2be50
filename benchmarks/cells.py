"""Every cell with every engine it has, beside nn.LSTM, nn.GRU and a naive loop of the same cell.

    python benchmarks/cells.py
    python benchmarks/cells.py --hidden 256 --batch 20 --steps 35 --cells elman,lstm,mingru
    python benchmarks/cells.py --cells mingru --lengths 64,256,1024,4096
    python benchmarks/cells.py --device cuda --rounds 5

One recurrent layer that reads vectors of the hidden size, forward and backward with the gradients
of its input and weights. Equal hidden size comes first, then equal parameters: the hidden size at
which the layer has as many as nn.LSTM. What is compared takes turns in this process, and each
figure is a median over the rounds. nn.LSTM, nn.GRU and the loop, autograd through one step after
another, are float32 as a plain program has it; ours also run in bfloat16 where that pays on this
processor.

tokens/s: time steps times rows a second. GF/s: the operations of the products alone, two for each
element of a matrix and each row going forward, as many for the gradient of what it multiplied, and
as many for its own where it is learned; the same count for every engine. ``x LSTM`` is the ratio of
that to nn.LSTM's in the same rounds, ``x loop`` the ratio of the speed to the naive loop's.

With --lengths: microseconds a time step for sequences of those lengths, which should not grow.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from rnncli import runtime as machine
from rnncli.cell_table import CELLS
from rnncli.errors import UsageError
from rnncli.nn.cells import Cell, make_cell
from rnncli.nn.recurrence import engines, run
from rnncli.sections import ModelConfig
from rnncli.training.sizes import matching_size

PLAIN, OURS = "plain", "ours"
"""Torch's float32 products as they come, and as ``rnncli.runtime`` sets them here."""
SETTINGS = {PLAIN: "highest"}
CUDNN_ROUNDS = {PLAIN: True, OURS: False}
"""Whether cuDNN may round the operands of float32 products, as it does unless told otherwise."""

WARM_UPS = 2
Work = Callable[[], None]


@dataclass(frozen=True)
class Size:
    hidden: int
    batch: int
    steps: int
    device: torch.device

    def input(self) -> Tensor:
        """(T, B, I)."""
        shape = (self.steps, self.batch, self.hidden)
        return torch.randn(shape, device=self.device, requires_grad=True)

    def wait(self) -> None:
        """Until what was begun is done."""
        if self.device.type == "cuda":
            torch.cuda.synchronize()


@dataclass
class Contestant:
    """Something to time. ``operations``: of its products, for one token."""

    name: str
    precision: str
    operations: float
    work: Work
    setting: str
    size: Size
    seconds: list[float]

    def time_once(self) -> None:
        torch.set_float32_matmul_precision(SETTINGS[self.setting])
        torch.backends.cudnn.allow_tf32 = CUDNN_ROUNDS[self.setting]
        self.size.wait()
        began = time.perf_counter()
        self.work()
        self.size.wait()
        self.seconds.append(time.perf_counter() - began)

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)


def library(module: nn.Module, size: Size) -> Work:
    x = size.input()

    def work() -> None:
        y, _ = module(x)
        torch.autograd.grad(y.sum(), [x, *module.parameters()])

    return work


def ours(cell: Cell, size: Size, engine: str, dtype: torch.dtype) -> Work:
    x = size.input()
    state = cell.zero_state(size.batch)
    wanted = [x, *(p for p in cell.parameters() if p.requires_grad)]

    def work() -> None:
        y, _ = run(cell, x, state, cell.step_weights(), engine=engine, dtype=dtype)
        torch.autograd.grad(y.float().sum(), wanted, allow_unused=True)

    return work


def naive(cell: Cell, size: Size) -> Work:
    """The cell's equations as a first program has them: step by step, the input's product too."""
    x = size.input()
    wanted = [x, *(p for p in cell.parameters() if p.requires_grad)]

    def work() -> None:
        state, outputs = cell.zero_state(size.batch), []
        weights = cell.step_weights()
        for t in range(size.steps):
            y, state = run(
                cell, x[t : t + 1], state, weights, engine="reference", dtype=torch.float32
            )
            outputs.append(y)
        torch.autograd.grad(torch.cat(outputs).sum(), wanted, allow_unused=True)

    return work


def operations(cell: Cell) -> float:
    """Of the products for one row and time step, forward and backward."""
    times: dict[str, int] = {}
    weights = cell.step_weights()

    def product(name: str, v: Tensor) -> Tensor:
        times[name] = times.get(name, 0) + 1
        return v.new_zeros(len(v), len(weights[name]))

    state = cell.zero_state(1)
    x = state[0].new_zeros(1, 1, cell.input_size)
    cell.step(cell.project(x, state, x.dtype).squeeze(0), state, product)
    matrices = {name: p for name, p in cell.named_parameters() if p.dim() > 1}
    return sum(
        2.0 * p.numel() * times.get(name, 1) * (3 if p.requires_grad else 2)
        for name, p in matrices.items()
    )


def library_operations(module: nn.Module) -> float:
    return sum(6.0 * p.numel() for p in module.parameters() if p.dim() > 1)


def contestants(cell: Cell, size: Size, low: torch.dtype) -> list[Contestant]:
    """nn.LSTM and nn.GRU of ``size``, the naive loop, then every engine; the float32 ones first."""
    found = []
    for name, module in (
        ("nn.LSTM", nn.LSTM(size.hidden, size.hidden)),
        ("nn.GRU", nn.GRU(size.hidden, size.hidden)),
    ):
        count = library_operations(module)
        work = library(module.to(size.device), size)
        found.append(Contestant(name, "float32", count, work, PLAIN, size, []))
    count = operations(cell)
    found.append(Contestant("loop", "float32", count, naive(cell, size), PLAIN, size, []))
    for dtype in dict.fromkeys((torch.float32, low)):
        for engine in engines(cell):
            if engine != "reference":
                work = ours(cell, size, engine, dtype)
                precision = str(dtype).removeprefix("torch.")
                found.append(Contestant(engine, precision, count, work, OURS, size, []))
    return found


def take_turns(everyone: list[Contestant], rounds: int) -> None:
    """Time each once a round; the first rounds, which warm up (and record), do not count."""
    for turn in range(WARM_UPS + rounds):
        for one in everyone:
            one.time_once()
            if turn < WARM_UPS:
                one.seconds.clear()


def print_cell(name: str, cell: Cell, size: Size, low: torch.dtype, rounds: int) -> None:
    everyone = contestants(cell, size, low)
    take_turns(everyone, rounds)
    lstm, _, loop = everyone[:3]
    parameters = sum(p.numel() for p in cell.parameters())
    print(f"{name}: {cell.hidden_size} units, {parameters:,} parameters")
    tokens = size.batch * size.steps
    for one in everyone:
        speed, flops = tokens / one.median, one.operations * tokens / one.median
        reference = lstm.operations * tokens / lstm.median
        print(
            f"  {one.name:10s} {one.precision:9s} {speed:12,.0f} tokens/s {flops / 1e9:8.1f} GF/s"
            f" {flops / reference:7.2f} x LSTM {loop.median / one.median:7.2f} x loop",
            flush=True,
        )


def print_lengths(name: str, cell: Cell, size: Size, lengths: list[int], rounds: int) -> None:
    """Microseconds a time step for each length, by the engine that ``auto`` takes."""
    everyone = []
    for steps in lengths:
        of_length = replace(size, steps=steps)
        work = ours(cell, of_length, "auto", torch.float32)
        everyone.append(Contestant(f"{steps}", "float32", 0.0, work, OURS, of_length, []))
    take_turns(everyone, rounds)
    figures = "  ".join(
        f"T {one.name}: {1e6 * one.median / steps:,.1f}"
        for one, steps in zip(everyone, lengths, strict=True)
    )
    print(f"{name}, {cell.hidden_size} units, us a step  {figures}", flush=True)


def make_equal(name: str, inputs: int, target: int) -> Cell:
    """The cell with so many parameters that it has ``target`` in all. Raises UsageError when there
    is no such size."""

    def make(hidden: int) -> Cell:
        return make_cell(ModelConfig(cell=name), inputs, hidden)

    def count(hidden: int) -> int:
        with torch.device("meta"):
            return sum(p.numel() for p in make(hidden).parameters())

    return make(matching_size(count, target, name))


def numbers(text: str) -> list[int]:
    return [int(part) for part in text.split(",")]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--hidden", type=int, default=512)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--steps", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--cells", default=",".join(CELLS), help="names with commas between")
    parser.add_argument("--equal", choices=("hidden", "parameters", "both"), default="both")
    parser.add_argument("--lengths", type=numbers, help="lengths of sequences, commas between")
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    options = parser.parse_args()
    runtime = machine.prepare(options.device, "auto", options.threads)
    SETTINGS[OURS] = torch.get_float32_matmul_precision()
    size = Size(options.hidden, options.batch, options.steps, runtime.device)
    torch.manual_seed(1)
    print(f"{runtime.describe()}; B {size.batch}, T {size.steps}, inputs of {size.hidden}")
    lstm = nn.LSTM(size.hidden, size.hidden)
    target = sum(p.numel() for p in lstm.parameters()) - 4 * size.hidden  # torch has two biases
    for kind in ("hidden", "parameters"):
        if options.equal not in (kind, "both") or (options.lengths and kind != "hidden"):
            continue
        print(f"\nequal {'hidden size' if kind == 'hidden' else kind}:")
        for name in options.cells.split(","):
            try:
                if kind == "hidden":
                    cell = make_cell(ModelConfig(cell=name), size.hidden, size.hidden)
                else:
                    cell = make_equal(name, size.hidden, target)
            except UsageError as error:
                print(error)
                continue
            cell.to(runtime.device)
            if options.lengths:
                print_lengths(name, cell, size, options.lengths, options.rounds)
            else:
                print_cell(name, cell, size, runtime.dtype, options.rounds)


if __name__ == "__main__":
    main()

"""Tokens generated a second: a plain torch loop beside ours, and the bound that memory sets.

    python benchmarks/generation.py
    python benchmarks/generation.py --tokens 100 --rounds 9 --only char

The plain program is what torch's documentation leads to: nn.Embedding, nn.LSTM one step at a time,
nn.Linear, softmax, multinomial. Ours is ``rnncli.decoding.sampling.sample`` with all that
``rnncli generate`` does for a token, text included. The contenders take turns in this process and
each figure is a median over the rounds. The bound is the bandwidth of reading memory, measured
beforehand by summing a large array, divided by the bytes of weights that a token needs; weights
that stay in a cache can beat it. They are random. Other work on the machine slows everything:
compare within a run.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from rnncli.decoding.filters import Filters
from rnncli.decoding.sampling import Limits, sample
from rnncli.models.language_model import LanguageModel
from rnncli.models.packed import PRECISIONS
from rnncli.models.stepper import PreparedStepper, prepare_stepper
from rnncli.runtime import prepare
from rnncli.sections import ModelConfig

BYTES = {"float32": 4, "float16": 2, "int8": 1}


@dataclass(frozen=True)
class Size:
    name: str
    layers: int
    hidden_size: int
    vocab_size: int


SIZES = (Size("char", 2, 512, 100), Size("word", 2, 650, 10000))


class Plain(nn.Module):
    """The program that ours is compared with."""

    def __init__(self, size: Size) -> None:
        super().__init__()
        self.embedding = nn.Embedding(size.vocab_size, size.hidden_size)
        self.lstm = nn.LSTM(size.hidden_size, size.hidden_size, size.layers)
        self.output = nn.Linear(size.hidden_size, size.vocab_size)

    @torch.no_grad()
    def generate(self, rows: int, tokens: int) -> list[list[int]]:
        token = torch.zeros(1, rows, dtype=torch.int64)
        state, chosen = None, []
        for _ in range(tokens):
            h, state = self.lstm(self.embedding(token), state)
            p = torch.softmax(self.output(h[0]), dim=-1)
            token = torch.multinomial(p, 1).t()
            chosen.append(token[0].tolist())
        return chosen


class Characters:
    """A StreamDecoder that costs what a character tokenizer's does."""

    def push(self, token: int) -> str:
        return chr(32 + token % 90)

    def finish(self) -> str:
        return ""


def ours(stepper: PreparedStepper, rows: int, tokens: int) -> None:
    state = stepper.start(None, rows)
    first = torch.zeros(rows, dtype=torch.int64)
    decoders = [Characters() for _ in range(rows)]
    for _ in sample(
        stepper, first, state, decoders=decoders, limits=Limits(tokens), filters=Filters()
    ):
        pass


def at_threads(threads: int, function: Callable[[], object], products: str) -> Callable[[], object]:
    """``function`` run with so many threads and float32 products as torch calls them."""

    def run() -> object:
        torch.set_num_threads(threads)
        torch.set_float32_matmul_precision(products)
        return function()

    return run


def bandwidth(threads: int) -> float:
    """Bytes read a second, from memory rather than a cache."""
    torch.set_num_threads(threads)
    array: Tensor = torch.ones(1 << 26)
    times = []
    for _ in range(8):
        start = time.perf_counter()
        array.sum()
        times.append(time.perf_counter() - start)
    return array.numel() * 4 / min(times)


def weights_a_token(size: Size, folded: bool) -> int:
    """How many weights one step reads; ``folded``: the first layer's input product is a table."""
    H = size.hidden_size
    return (2 * size.layers - folded) * 4 * H * H + size.vocab_size * H


def seconds(contenders: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """The median time of each, the rounds in turns after one to warm up."""
    times: dict[str, list[float]] = {name: [] for name in contenders}
    for k in range(rounds + 1):
        for name, run in contenders.items():
            start = time.perf_counter()
            run()
            if k:
                times[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in times.items()}


def measure(size: Size, rows: int, tokens: int, rounds: int, speed: float) -> None:
    cores = len(os.sched_getaffinity(0))
    config = ModelConfig(
        layers=size.layers, hidden_size=size.hidden_size, embedding_size=size.hidden_size
    )
    model = LanguageModel(config, size.vocab_size).eval().requires_grad_(False)
    plain = Plain(size)
    contenders: dict[str, Callable[[], object]] = {}
    prepare("cpu", "float32", cores)
    usual = torch.get_float32_matmul_precision()  # as ``rnncli generate`` has it
    counts = list(dict.fromkeys((cores, 1)))
    for count in counts:
        name = f"plain torch, {count} thread{'s' * (count > 1)}"
        contenders[name] = at_threads(count, lambda: plain.generate(rows, tokens), "highest")
    for precision in PRECISIONS:
        stepper = prepare_stepper(model, precision)
        for count in (1,) if rows == 1 else counts:
            name = f"rnncli {precision}, {count} thread{'s' * (count > 1)}"
            contenders[name] = at_threads(
                count,
                partial(ours, stepper, rows, tokens),
                "highest" if rows == 1 else usual,
            )
    found = seconds(contenders, rounds)
    base = next(iter(found.values()))  # torch as it comes
    print(f"\nLSTM {size.layers}x{size.hidden_size}, V={size.vocab_size}, {rows} at a time")
    print(f"{'':28}{'tokens/s':>10}{'ratio':>8}{'bound':>10}{'of it':>8}")
    folded = size.vocab_size * 4 * size.hidden_size <= 1 << 22
    for name, duration in found.items():
        rate = rows * tokens / duration
        line = f"{name:28}{rate:>10.0f}{base / duration:>8.1f}"
        precision = name.split()[1].rstrip(",")
        if rows == 1 and precision in BYTES:
            bound = speed / (weights_a_token(size, folded) * BYTES[precision])
            line += f"{bound:>10.0f}{rate / bound:>8.0%}"
        print(line)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tokens", type=int, default=100, help="a row and round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", choices=[size.name for size in SIZES], help="one of the sizes")
    arguments = parser.parse_args()
    torch.set_flush_denormal(True)
    speed = bandwidth(1)
    print(f"reading memory, 1 thread: {speed / 1e9:.1f} GB/s")
    for size in SIZES:
        if arguments.only in (None, size.name):
            measure(size, 1, arguments.tokens, arguments.rounds, speed)
            measure(size, 64, max(1, arguments.tokens // 10), arguments.rounds, speed)


if __name__ == "__main__":
    main()

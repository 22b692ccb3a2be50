"""Training throughput: a plain torch program beside rnncli, the same model, data and batches.

    python benchmarks/training.py --text ptb/train.txt
    python benchmarks/training.py --rounds 7 --steps 30 --only word

The plain program is written here as torch's documentation leads to: nn.Embedding, nn.LSTM,
nn.Linear, F.cross_entropy, clip_grad_norm_ and torch.optim.SGD in float32. rnncli is its real task
and optimiser, engine and precision as ``auto`` settles them, full softmax. Both start from the same
weights and see the same batches; they take turns in this process, and each figure is a median over
the rounds. ``overhead`` is what the training loop (events, metrics, schedule) adds to the time of
the same steps done bare. Losses of both are printed side by side: the curves should agree.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rnncli import runtime as machine
from rnncli.config import Config
from rnncli.text.corpus import Corpus, load_corpus
from rnncli.training.events import StepReport
from rnncli.training.language_modelling import LanguageModelling
from rnncli.training.optimizers import Optimizer, clip, gradient_norm
from rnncli.training.run import train

LR = {"word": 10.0, "char": 2.0}
CLIP = 0.25


@dataclass(frozen=True)
class Size:
    name: str
    V: int
    H: int
    B: int
    T: int


SIZES = (Size("word", 10_000, 650, 20, 35), Size("char", 100, 512, 64, 64))


class Plain(nn.Module):
    """The program that rnncli is compared with."""

    def __init__(self, size: Size) -> None:
        super().__init__()
        self.embedding = nn.Embedding(size.V, size.H)
        self.lstm = nn.LSTM(size.H, size.H, 2)
        self.output = nn.Linear(size.H, size.V)

    def forward(
        self, inputs: Tensor, state: tuple[Tensor, Tensor]
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        h, state = self.lstm(self.embedding(inputs), state)
        return self.output(h), state


class PlainRun:
    """One step after another of the plain program."""

    def __init__(self, size: Size, batches: list[tuple[Tensor, Tensor]]) -> None:
        self.model = Plain(size)
        self.optimizer = torch.optim.SGD(self.model.parameters(), LR[size.name])
        self.batches = batches
        zero = torch.zeros(2, size.B, size.H)
        self.state = (zero, zero)
        self.losses: list[float] = []

    def step(self) -> None:
        inputs, targets = self.batches[len(self.losses) % len(self.batches)]
        self.state = (self.state[0].detach(), self.state[1].detach())
        self.optimizer.zero_grad()
        logits, self.state = self.model(inputs, self.state)
        loss = F.cross_entropy(logits.view(-1, logits.shape[-1]), targets.view(-1))
        loss.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), CLIP)
        self.optimizer.step()
        self.losses.append(loss.item())


class OurRun:
    """The same steps with rnncli's task and optimiser, without its loop."""

    def __init__(self, config: Config, corpus: Corpus, plain: Plain) -> None:
        self.config = config
        self.task = LanguageModelling(config, corpus, machine.prepare("cpu"))
        copy_weights(plain, self.task)
        self.parameters = list(self.task.model.parameters())
        self.optimizer = Optimizer(config.optimizer, self.task.model)
        self.task.begin_epoch(0)
        self.losses: list[float] = []

    def step(self) -> None:
        loss = self.task.loss(len(self.losses) % self.task.pieces, False)
        self.optimizer.zero_grad()
        loss.objective.backward()
        gradients = [p.grad for p in self.parameters if p.grad is not None]
        clip(gradients, gradient_norm(gradients), self.config.optimizer)
        self.optimizer.step()
        self.task.accept(carry=True)
        self.losses.append(loss.nats)


def copy_weights(plain: Plain, task: LanguageModelling) -> None:
    model = task.model
    with torch.no_grad():
        model.embedding.weight.copy_(plain.embedding.weight)
        for layer, cell in enumerate(model.stack.cells):
            named = dict(plain.lstm.named_parameters())
            cell.W_xh.copy_(named[f"weight_ih_l{layer}"])
            cell.W_hh.copy_(named[f"weight_hh_l{layer}"])
            cell.a.copy_(named[f"bias_ih_l{layer}"] + named[f"bias_hh_l{layer}"])
        model.output.W_hy.copy_(plain.output.weight)
        model.output.b.copy_(plain.output.bias)


def settings(size: Size, text: str, steps: int) -> Config:
    values = {
        "data.train": [text],
        "data.valid_fraction": 0.0,
        "tokenizer.kind": "word",
        "model.hidden_size": size.H,
        "model.embedding_size": size.H,
        "optimizer.name": "sgd",
        "optimizer.lr": LR[size.name],
        "optimizer.clip_norm": CLIP,
        "schedule.name": "constant",
        "training.batch_size": size.B,
        "training.bptt": size.T,
        "training.max_steps": steps,
        "training.epochs": 0,
    }
    return Config().with_values(values)


def artificial_text(size: Size, words: int) -> str:
    """A text of ``size.V`` types with Zipf's frequencies and some order to learn."""
    rng = np.random.default_rng(1)
    p = 1.0 / np.arange(1, size.V - 1)
    drawn = rng.choice(size.V - 2, words, p=p / p.sum())
    drawn[1::2] = (drawn[::2] * 7 + 1)[: len(drawn[1::2])] % (size.V - 2)
    rest = np.arange(size.V - 2)
    lines = np.concatenate([drawn, rest])
    return "\n".join(" ".join(f"w{w}" for w in line) for line in np.array_split(lines, 500))


def measure(size: Size, text: Path, rounds: int, steps: int) -> None:
    config = settings(size, str(text), steps)
    torch.manual_seed(1)
    corpus = load_corpus(config.data, config.tokenizer)
    if corpus.tokenizer.vocab_size != size.V:
        size = Size(size.name, corpus.tokenizer.vocab_size, size.H, size.B, size.T)
    machine.prepare("cpu")
    as_set = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    first = PlainRun(size, [])
    ours = OurRun(config, corpus, first.model)
    inputs = [ours.task._batch(piece)[:2] for piece in ours.task._layout[: rounds * steps + 5]]
    first.batches = inputs
    plain_speed, our_speed = [], []
    for round_number in range(rounds + 1):
        for run, speeds in ((first, plain_speed), (ours, our_speed)):
            torch.set_float32_matmul_precision("highest" if run is first else as_set)
            began = time.perf_counter()
            for _ in range(steps if round_number else 3):
                run.step()
            if round_number:
                speeds.append(steps * size.B * size.T / (time.perf_counter() - began))
    a, b = statistics.median(plain_speed), statistics.median(our_speed)
    flops = 6 * (2 * 8 * size.H**2 + size.V * size.H)
    print(f"V {size.V} H {size.H} 2 layers B {size.B} T {size.T}, {steps} steps a round:")
    print(f"  plain torch   {a:10,.0f} tokens/s  {flops * a / 1e9:6.0f} Gflop/s")
    print(f"  rnncli        {b:10,.0f} tokens/s  {flops * b / 1e9:6.0f} Gflop/s")
    print(f"  ratio         {b / a:10.2f}")
    points = [k * (len(first.losses) - 1) // 5 for k in range(6)]
    print("  loss at step  " + " ".join(f"{k:8d}" for k in points))
    print("    plain       " + " ".join(f"{first.losses[k]:8.4f}" for k in points))
    print("    rnncli      " + " ".join(f"{ours.losses[k]:8.4f}" for k in points))
    loop, bare = [], []
    for _ in range(3):
        loop.append(loop_speed(config))
        fresh = OurRun(config, corpus, first.model)
        for _ in range(5):
            fresh.step()
        began = time.perf_counter()
        for _ in range(60):
            fresh.step()
        bare.append(60 / (time.perf_counter() - began))
    overhead = statistics.median(bare) / statistics.median(loop) - 1
    print(f"  overhead of the training loop over its own steps {100 * overhead:.1f} %")


def loop_speed(config: Config) -> float:
    """Steps a second of the whole loop, from its first report to its last."""
    marks = []
    with tempfile.TemporaryDirectory() as folder:
        for event in train(config.with_values({"training.max_steps": 80}), Path(folder)):
            if isinstance(event, StepReport):
                marks.append((time.perf_counter(), event.step))
    (began, first), (ended, last) = marks[0], marks[-1]
    return (last - first) / (ended - began)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--text", help="text of the word model; else an artificial one")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--only", choices=[size.name for size in SIZES])
    options = parser.parse_args()
    torch.set_num_threads(machine.prepare("cpu").threads)
    with tempfile.TemporaryDirectory() as folder:
        for size in SIZES:
            if options.only in (None, size.name):
                path = Path(folder) / f"{size.name}.txt"
                path.write_text(artificial_text(size, 400_000))
                given = options.text if size.name == "word" else None
                measure(size, Path(given or path), options.rounds, options.steps)


if __name__ == "__main__":
    main()

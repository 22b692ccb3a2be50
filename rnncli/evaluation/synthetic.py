"""Problems in which the answer depends on what was read long before it, made from random numbers.

``lag`` is what the papers call T. From the last symbol that matters to the answer it is half of it
at least in adding and order, the whole of it in copy and recall; in parity and permutations, which
ask for a state at every step, each symbol matters and T is the length. The length of a sequence
varies by a tenth where the paper has it so, and is the same within a batch.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from itertools import permutations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from rnncli.config import Config
from rnncli.sections import SyntheticConfig

PREFIX = "synthetic:"


@dataclass(frozen=True)
class Batch:
    """``x``: (T, B, I) float32. ``targets``: (A, B), what is wanted at the last A steps: numbers
    (float32) or classes (int64)."""

    x: Tensor
    targets: Tensor


class Problem(ABC):
    """``inputs`` (I) and ``outputs`` (O) are sizes; ``answers`` (A) the last steps, at which one is
    wanted; ``baseline`` the mean loss of whoever knows the task and has not read the sequence;
    ``about`` says what is to be done."""

    inputs: int
    outputs: int
    answers = 1
    baseline: float
    about: str

    def __init__(self, config: SyntheticConfig) -> None:
        self.config = config

    @property
    def longest(self) -> int:
        """The steps of the longest sequences."""
        return self.config.lag + self.config.lag // 10

    @abstractmethod
    def batch(self, rng: np.random.Generator, rows: int) -> Batch:
        """So many sequences of one length."""

    def losses(self, y: Tensor, targets: Tensor) -> Tensor:
        """y: (A, B, O), targets: (A, B) -> nats, or squared errors: (A, B)."""
        return F.cross_entropy(y.permute(0, 2, 1), targets, reduction="none")

    def right(self, y: Tensor, targets: Tensor) -> Tensor:
        """y: (A, B, O), targets: (A, B) -> whether all answers of a sequence are right: (B,)."""
        return (y.argmax(2) == targets).all(0)

    def text(self, y: Tensor) -> str:
        """The answers y (A, O) to one sequence as people read them."""
        return self._names(y.argmax(1))

    def target_text(self, targets: Tensor) -> str:
        """targets: (A,), as ``text``."""
        return self._names(targets)

    def _names(self, classes: Tensor) -> str:
        return " ".join(str(int(c)) for c in classes)

    def _length(self, rng: np.random.Generator) -> int:
        """T to 11/10 T."""
        return int(rng.integers(self.config.lag, self.longest + 1))


class Adding(Problem):
    """Hochreiter and Schmidhuber 1997, sec. 5.4, with numbers from [0, 1] and their plain sum (Le
    et al. 2015): a stream of numbers, two of them marked, the first in the first tenth, the second
    before the middle. The answer is right within 0.04, as there."""

    inputs, outputs = 2, 1
    baseline = 1 / 6  # the variance of the sum of two such numbers
    about = "add the two marked numbers"

    def batch(self, rng: np.random.Generator, rows: int) -> Batch:
        T = self._length(rng)
        numbers = rng.random((T, rows), dtype=np.float32)
        marks = np.zeros((T, rows), np.float32)
        columns = np.arange(rows)
        first = rng.integers(0, T // 10, rows)
        second = rng.integers(T // 10, T // 2, rows)
        marks[first, columns] = marks[second, columns] = 1.0
        total = numbers[first, columns] + numbers[second, columns]
        x = np.stack([numbers, marks], axis=2)
        return Batch(torch.from_numpy(x), torch.from_numpy(total).unsqueeze(0))

    def losses(self, y: Tensor, targets: Tensor) -> Tensor:
        return (y.squeeze(2) - targets).pow(2)

    def right(self, y: Tensor, targets: Tensor) -> Tensor:
        return ((y.squeeze(2) - targets).abs() < 0.04).all(0)

    def text(self, y: Tensor) -> str:
        return f"{float(y[0, 0]):.3f}"

    def target_text(self, targets: Tensor) -> str:
        return f"{float(targets[0]):.3f}"


class Copy(Problem):
    """Copying memory (Arjovsky et al. 2016, sec. 4.1): ``symbols`` to remember, T - 1 blanks, a
    sign, and as many blanks as there were symbols. Wanted are T + ``symbols`` blanks, then the
    symbols. Every step counts for the loss."""

    about = "give back the first symbols after the sign"

    def __init__(self, config: SyntheticConfig) -> None:
        super().__init__(config)
        self.blank, self.sign = config.categories, config.categories + 1
        self.inputs, self.outputs = config.categories + 2, config.categories + 1
        self.answers = self.longest
        self.baseline = config.symbols * math.log(config.categories) / self.answers

    @property
    def longest(self) -> int:
        return self.config.lag + 2 * self.config.symbols

    def batch(self, rng: np.random.Generator, rows: int) -> Batch:
        T, S = self.config.lag, self.config.symbols
        symbols = rng.integers(0, self.config.categories, (S, rows))
        stream = np.full((T + 2 * S, rows), self.blank)
        targets = stream.copy()
        stream[:S] = symbols
        stream[S + T - 1] = self.sign
        targets[T + S :] = symbols
        return _classes(stream, self.inputs, targets)

    def _names(self, classes: Tensor) -> str:
        return super()._names(classes[-self.config.symbols :])


class Order(Problem):
    """Temporal order (Pascanu et al. 2013, sec. 4.1.1, after Hochreiter and Schmidhuber 1997, task
    6a): noise of four symbols, and an A or a B in the second tenth and in the fifth. Which of AA,
    AB, BA, BB was it?"""

    inputs, outputs = 6, 4
    baseline = math.log(4)
    about = "tell in which order two symbols came, AA, AB, BA or BB"

    def batch(self, rng: np.random.Generator, rows: int) -> Batch:
        T = self._length(rng)
        stream = rng.integers(2, 6, (T, rows))
        columns = np.arange(rows)
        marks = rng.integers(0, 2, (2, rows))
        for mark, low, high in zip(marks, (T // 10, 4 * T // 10), (T // 5, T // 2), strict=True):
            stream[rng.integers(low, high, rows), columns] = mark
        return _classes(stream, self.inputs, 2 * marks[:1] + marks[1:])

    def _names(self, classes: Tensor) -> str:
        return " ".join(("AA", "AB", "BA", "BB")[int(c)] for c in classes)


class Recall(Problem):
    """Delayed recall, the noise of Hochreiter and Schmidhuber 1997, sec. 5.2, between one symbol
    and the question for it: a symbol, T others that never matter, the question."""

    about = "name the first symbol when asked"

    def __init__(self, config: SyntheticConfig) -> None:
        super().__init__(config)
        K = config.categories
        self.inputs, self.outputs = 2 * K + 1, K
        self.baseline = math.log(K)

    @property
    def longest(self) -> int:
        return self.config.lag + 2

    def batch(self, rng: np.random.Generator, rows: int) -> Batch:
        K = self.config.categories
        stream = rng.integers(K, 2 * K, (self.longest, rows))
        stream[0] = rng.integers(0, K, rows)
        stream[-1] = 2 * K
        return _classes(stream, self.inputs, stream[:1])


class Permutations(Problem):
    """State tracking (after Merrill et al. 2024): T times two of five things change places, or none
    do; after each time, in which of their 120 orders are they? That is the word problem of the
    group S_5, which is not solvable (Barrington 1989), for words of its identity and transpositions
    instead of all its elements. Every step counts for the loss."""

    things = 5
    about = "tell after every swap in which order the five things are"

    def __init__(self, config: SyntheticConfig) -> None:
        super().__init__(config)
        n = self.things
        self.orders = np.array(list(permutations(range(n))))
        """(G, n), lexicographic, the identity first: which thing is at each place."""
        moved = (self.orders != np.arange(n)).sum(1)
        self.letters = np.flatnonzero(moved <= 2)
        """(I,), the identity first: the orders that one letter of a word leads to."""
        digits = n ** np.arange(n)[::-1]  # an order as a number, so that they ascend
        self.products = np.searchsorted(self.orders @ digits, self.orders[:, self.orders] @ digits)
        """(G, G): [p, q] is the order that p becomes by q, p[q[k]] at place k."""
        self.inputs, self.outputs = len(self.letters), len(self.orders)
        self.answers = config.lag
        self.baseline = self._mean_entropy()

    @property
    def longest(self) -> int:
        return self.config.lag

    def _mean_entropy(self) -> float:
        """Of the order after each step, in nats."""
        before = self.products[:, self.letters]  # every letter is its own inverse
        shares = np.eye(1, self.outputs)[0]
        total = 0.0
        for _ in range(self.answers):
            shares = shares[before].mean(1)
            total -= float((shares * np.log(np.maximum(shares, 1e-300))).sum())
        return total / self.answers

    def batch(self, rng: np.random.Generator, rows: int) -> Batch:
        stream = rng.integers(0, self.inputs, (self.config.lag, rows))
        orders, order = np.empty_like(stream), np.zeros(rows, np.int64)
        for t, letter in enumerate(self.letters[stream]):
            orders[t] = order = self.products[order, letter]
        return _classes(stream, self.inputs, orders)

    def _names(self, classes: Tensor) -> str:
        """The last order."""
        return "".join("ABCDE"[thing] for thing in self.orders[int(classes[-1])])


class Parity(Permutations):
    """After each of T bits, whether the ones so far are odd in number: the word problem of S_2, in
    which a one is the swap."""

    things = 2
    about = "tell after every bit whether the ones so far are odd in number"

    def _names(self, classes: Tensor) -> str:
        return "odd" if classes[-1] else "even"


def _classes(stream: np.ndarray, inputs: int, targets: np.ndarray) -> Batch:
    """stream: (T, B) of symbols, as one-hot vectors."""
    x = F.one_hot(torch.from_numpy(stream), inputs).to(torch.float32)
    return Batch(x, torch.from_numpy(targets.copy()))


PROBLEMS: dict[str, type[Problem]] = {
    "adding": Adding,
    "copy": Copy,
    "order": Order,
    "parity": Parity,
    "permutations": Permutations,
    "recall": Recall,
}


def open_problem(config: Config) -> Problem:
    """The problem that ``config.task``, such as ``synthetic:adding``, names."""
    return PROBLEMS[config.task.removeprefix(PREFIX)](config.synthetic)

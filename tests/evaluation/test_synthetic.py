"""The long-lag problems: what is asked and what is right, by brute force."""

import math
from collections import Counter
from itertools import combinations

import numpy as np
import pytest
import torch

from rnncli.config import TASKS, Config
from rnncli.evaluation.synthetic import PREFIX, PROBLEMS, open_problem

ROWS = 60


def problem(name: str, lag: int = 40, **values: int):
    settings = {f"synthetic.{key}": value for key, value in values.items()}
    return open_problem(
        Config().with_values({"task": f"synthetic:{name}", "synthetic.lag": lag, **settings})
    )


def batches(name: str, count: int = 20, **values: int):
    made = problem(name, **values)
    return made, [made.batch(np.random.default_rng(n), ROWS) for n in range(count)]


def symbols(x: torch.Tensor) -> torch.Tensor:
    """The one-hot vectors (T, B, I) as symbols (T, B)."""
    assert bool(((x == 0) | (x == 1)).all())
    assert bool((x.sum(2) == 1).all())
    return x.argmax(2)


def test_every_problem_is_a_task():
    assert [task for task in TASKS if task.startswith(PREFIX)] == [PREFIX + n for n in PROBLEMS]


@pytest.mark.parametrize("lag", [10, 40, 100])
def test_adding(lag):
    made, found = batches("adding", count=8, lag=lag)
    lengths = Counter()
    for batch in found:
        T = len(batch.x)
        lengths[T] += 1
        for row in range(ROWS):
            total, marked = 0.0, []
            for t in range(T):
                number, mark = batch.x[t, row].tolist()
                assert 0 <= number < 1
                assert mark in (0, 1)
                if mark:
                    total += number
                    marked.append(t)
            assert len(marked) == 2
            assert marked[0] < max(1, T // 10) <= marked[1] < T // 2
            assert batch.targets[0, row].item() == pytest.approx(total, abs=1e-6)
    assert lag <= min(lengths) < max(lengths) <= made.longest == lag + lag // 10
    y = batch.targets.unsqueeze(2).clone()
    y[0, 3], y[0, 4] = y[0, 3] + 0.0401, y[0, 4] - 0.0399
    assert made.right(y, batch.targets).tolist() == [row != 3 for row in range(ROWS)]
    assert made.losses(y, batch.targets)[0, 3] == pytest.approx(0.0401**2, rel=1e-3)


@pytest.mark.parametrize("lag", [10, 40, 100])
def test_order(lag):
    made, found = batches("order", count=8, lag=lag)
    answers, places = Counter(), set()
    for batch in found:
        stream, T = symbols(batch.x), len(batch.x)
        assert lag <= T <= made.longest
        for row in range(ROWS):
            marked = [(t, int(s)) for t, s in enumerate(stream[:, row]) if s < 2]
            (first, a), (second, b) = marked
            assert T // 10 <= first < T // 5 <= 4 * T // 10 <= second < T // 2
            word = "AB"[a] + "AB"[b]
            assert made.target_text(batch.targets[:, row]) == word
            answers[word] += 1
            places.add(second)
        assert set(stream.unique().tolist()) == set(range(6))
    assert len(answers) == 4
    assert min(answers.values()) > 0.6 * ROWS * len(found) / 4
    assert len(places) > 1 or lag == 10


def test_copy():
    made, found = batches("copy", lag=15, symbols=4, categories=3)
    assert (made.inputs, made.outputs, made.answers) == (5, 4, 23)
    for batch in found:
        stream = symbols(batch.x)
        assert stream.shape == batch.targets.shape == (23, ROWS)
        for row in range(ROWS):
            read, wanted = stream[:, row].tolist(), batch.targets[:, row].tolist()
            word = read[:4]
            assert all(symbol < 3 for symbol in word)
            assert read[4:] == [3] * 14 + [4] + [3] * 4  # blanks, the sign, blanks
            assert wanted == [3] * 19 + word
    right = torch.nn.functional.one_hot(batch.targets, 4).float()
    right[-1, 5] = right[-1, 5].roll(1)
    right[0, 6] = right[0, 6].roll(1)
    assert (~made.right(right, batch.targets)).nonzero().flatten().tolist() == [5, 6]


def test_recall():
    made, found = batches("recall", lag=12, categories=5)
    assert (made.inputs, made.outputs, made.answers) == (11, 5, 1)
    for batch in found:
        stream = symbols(batch.x)
        assert len(stream) == 14
        assert torch.equal(stream[0], batch.targets[0])
        assert bool((stream[0] < 5).all())
        assert bool(((stream[1:-1] >= 5) & (stream[1:-1] < 10)).all())
        assert bool((stream[-1] == 10).all())


def test_parity():
    made, found = batches("parity", lag=15)
    assert (made.inputs, made.outputs, made.answers, made.longest) == (2, 2, 15, 15)
    for batch in found:
        bits = symbols(batch.x)
        assert bits.shape == batch.targets.shape == (15, ROWS)
        for row in range(ROWS):
            for t in range(15):
                ones = bits[: t + 1, row].tolist().count(1)
                word = "odd" if ones % 2 else "even"
                assert made.target_text(batch.targets[: t + 1, row]) == word


def test_permutations():
    made, found = batches("permutations", lag=15)
    assert (made.inputs, made.outputs, made.answers, made.longest) == (11, 120, 15, 15)
    stream = torch.cat([symbols(batch.x) for batch in found], 1)
    targets = torch.cat([batch.targets for batch in found], 1)
    assert stream.shape == targets.shape == (15, ROWS * len(found))
    one = {int(s): made.target_text(t) for s, t in zip(stream[0], targets[:1].T, strict=True)}
    places = {s: [k for k in range(5) if word[k] != "ABCDE"[k]] for s, word in one.items()}
    assert sorted(places.values()) == sorted([[], *map(list, combinations(range(5), 2))])
    assert places[0] == []
    for row in range(stream.shape[1]):
        things = list("ABCDE")
        for t, letter in enumerate(stream[:, row].tolist()):
            for i, j in [places[letter]] if letter else []:
                things[i], things[j] = things[j], things[i]
            assert made.target_text(targets[: t + 1, row]) == "".join(things)
    assert len(targets[-1].unique()) == 120


@pytest.mark.parametrize("name", PROBLEMS)
def test_what_guessing_costs(name):
    """The best answer of each step, whatever was read, on average over many sequences."""
    made, found = batches(name, count=200, lag=10)
    if name == "adding":
        sums = torch.cat([batch.targets[0] for batch in found])
        expected = float(sums.var())
    elif name == "copy":
        blanks, S = made.answers - 10, 10
        expected = (blanks * 0.0 + S * math.log(8)) / made.answers
    else:
        steps = torch.cat([batch.targets for batch in found], 1).tolist()
        shares = [n / len(step) for step in steps for n in Counter(step).values()]
        expected = -sum(p * math.log(p) for p in shares) / len(steps)
    assert made.baseline == pytest.approx(expected, rel=0.02)


@pytest.mark.parametrize("name", PROBLEMS)
def test_the_same_numbers_make_the_same_batch(name):
    made = problem(name)
    one, same, other = (made.batch(np.random.default_rng([7, n]), 5) for n in (1, 1, 2))
    assert torch.equal(one.x, same.x)
    assert torch.equal(one.targets, same.targets)
    assert one.x.shape != other.x.shape or not torch.equal(one.x, other.x)
    assert (one.x.dtype, one.x.shape[1:]) == (torch.float32, (5, made.inputs))
    assert one.targets.shape == (made.answers, 5)


@pytest.mark.parametrize("name", [n for n in PROBLEMS if n != "adding"])
def test_losses_are_nats(name):
    made = problem(name)
    batch = made.batch(np.random.default_rng(0), 4)
    y = torch.randn(made.answers, 4, made.outputs)
    found = made.losses(y, batch.targets)
    p = torch.softmax(y, 2)
    for a in (0, made.answers - 1):
        for b in range(4):
            expected = -math.log(p[a, b, batch.targets[a, b]])
            assert float(found[a, b]) == pytest.approx(expected, rel=1e-4)

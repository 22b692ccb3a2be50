"""Choices that are the same on every machine and in every Python.

Only ``random.Random.random`` is promised to give the same numbers in later versions of Python, so
everything else is made from it here.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Hashable, Sequence
from typing import TypeVar

T = TypeVar("T")


class Draw:
    """A seeded source of choices."""

    def __init__(self, seed: str) -> None:
        self._random = random.Random(seed)

    def below(self, count: int) -> int:
        """A whole number from 0 to ``count`` - 1."""
        return int(self._random.random() * count)

    def one(self, options: Sequence[T]) -> T:
        """One of the options."""
        return options[self.below(len(options))]

    def chance(self, percent: int) -> bool:
        """True in ``percent`` of 100 cases."""
        return self.below(100) < percent

    def weighted(self, options: Sequence[tuple[T, int]]) -> T:
        """One of (option, weight)."""
        rest = self.below(sum(weight for _, weight in options))
        for option, weight in options:
            rest -= weight
            if rest < 0:
                return option
        raise AssertionError("unreachable: rest starts below the sum of the weights")


def split(
    make: Callable[[], T],
    key: Callable[[T], Hashable],
    parts: Callable[[T], Sequence[str]],
    train_count: int,
    valid_count: int,
) -> tuple[list[T], list[T]]:
    """Draw items with ``make`` until both parts are full: (train, valid).

    No ``key`` comes twice in both together, and every one of the ``parts`` of a validation item
    (its words, its labels) occurs in a training item.
    """
    train: list[T] = []
    valid: list[T] = []
    seen: set[Hashable] = set()
    known: set[str] = set()
    while len(valid) < valid_count:
        item = make()
        if key(item) in seen:
            continue
        if len(train) < train_count:
            train.append(item)
            known.update(parts(item))
        elif known.issuperset(parts(item)):
            valid.append(item)
        else:
            continue
        seen.add(key(item))
    return train, valid

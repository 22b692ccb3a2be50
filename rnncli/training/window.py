"""What is added up between two reports of a run."""

from __future__ import annotations

import time


class Window:
    """The steps since the last report, without those that were skipped. ``norm`` and ``lr`` are
    those of the last one."""

    def __init__(self) -> None:
        self.nats = 0.0
        self.tokens = 0
        self.steps = 0
        self.norm = 0.0
        self.norms: list[float] = []
        self.clipped_steps = 0
        self.lr = 0.0
        self.began = time.monotonic()

    def add(self, nats: float, tokens: int, norm: float, lr: float, *, clipped: bool) -> None:
        """A step; ``clipped``: its gradient's norm was above ``optimizer.clip_norm``."""
        self.nats += nats
        self.tokens += tokens
        self.steps += 1
        self.norm, self.lr = norm, lr
        self.norms.append(norm)
        self.clipped_steps += clipped

    def seconds(self) -> float:
        return time.monotonic() - self.began

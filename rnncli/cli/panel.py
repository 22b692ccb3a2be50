"""What a user sees of a training run: a live panel on a terminal, plain lines elsewhere."""

from __future__ import annotations

import math
import sys
import time
from collections import deque
from collections.abc import Generator, Iterable, Sequence
from typing import TYPE_CHECKING, Protocol

from rnncli.cli.console import is_terminal, note, printable
from rnncli.training.events import (
    EvalReport,
    Event,
    Finished,
    Quantity,
    Sample,
    Skipped,
    Started,
    StepReport,
)

if TYPE_CHECKING:
    from rich.panel import Panel

PLAIN_SECONDS = 10.0
READING_SECONDS = 5.0
CURVE = "▁▂▃▄▅▆▇█"


class View(Protocol):
    def show(self, event: Event) -> None: ...
    def close(self) -> None: ...


def show(events: Generator[Event, None, None], more: Sequence[View] = ()) -> None:
    """Render every event of a run on stderr, to its end; ``more`` see the events, too."""
    views: list[View] = [LivePanel() if is_terminal(sys.stderr) else PlainLines(), *more]
    try:
        for event in events:
            for view in views:
                view.show(event)
    finally:
        for view in views:
            view.close()
        events.close()


class ReadingNotes:
    """Says every few seconds how far the reading of a large text is."""

    def __init__(self) -> None:
        self._last = time.monotonic()

    def __call__(self, done_bytes: int, total_bytes: int) -> None:
        if time.monotonic() - self._last >= READING_SECONDS:
            self._last = time.monotonic()
            share = 100 * done_bytes / max(1, total_bytes)
            note(f"reading the text: {share:.0f} % of {total_bytes / 1e6:,.0f} MB of work")


class PlainLines:
    """One line at the start, every ten seconds, at every validation and at the end, each after
    ``prefix``; at a validation of translations some of them, too."""

    def __init__(self, prefix: str = "") -> None:
        self._prefix = prefix
        self._last = -math.inf
        self._shows_samples = False
        self._kept: EvalReport | None = None

    def show(self, event: Event) -> None:
        if isinstance(event, Started):
            for text in opening(event):
                self._note(text)
            self._shows_samples = event.config.task == "translate"
        elif isinstance(event, Sample) and self._shows_samples:
            for text in event.text.split("\n") if event.text else ():
                self._note(f"  {printable(text)}")
        elif isinstance(event, StepReport) and event.seconds - self._last >= PLAIN_SECONDS:
            self._last = event.seconds
            self._note(step_line(event))
        elif isinstance(event, EvalReport):
            self._kept = event if event.best else self._kept
            self._note(eval_line(event))
        elif isinstance(event, Skipped):
            self._note(f"step {event.step}: skipped, {event.reason} ({event.batch})")
        elif isinstance(event, Finished):
            self._note(finish_line(event, self._kept))

    def _note(self, text: str) -> None:
        note(self._prefix + text)

    def close(self) -> None:
        """Nothing is left open."""


class LivePanel:
    """Loss so far with a small curve, speed, time left, the last validation, a fresh sample."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.live import Live

        self._console = Console(stderr=True)
        self._live = Live(console=self._console, refresh_per_second=4, transient=False)
        self._losses: deque[float] = deque(maxlen=4000)
        self._step: StepReport | None = None
        self._valid: EvalReport | None = None
        self._kept: EvalReport | None = None
        self._sample = ""
        self._started = False

    def show(self, event: Event) -> None:
        from rich.text import Text

        if isinstance(event, Started):
            for text in opening(event):
                self._console.print(Text(text, style="dim"))
            self._live.start()
            self._started = True
        elif isinstance(event, StepReport):
            self._step = event
            self._losses.append(event.nats)
        elif isinstance(event, EvalReport):
            self._valid = event
            self._kept = event if event.best else self._kept
        elif isinstance(event, Sample):
            self._sample = "\n".join(printable(line) for line in event.text.split("\n"))
        elif isinstance(event, Skipped):
            self._console.print(Text(f"step {event.step}: skipped, {event.reason}", style="red"))
        elif isinstance(event, Finished):
            self._live.update(self._panel(), refresh=True)
            self.close()
            self._console.print(Text(finish_line(event, self._kept), style="bold"))
            return
        if self._started:
            self._live.update(self._panel())

    def close(self) -> None:
        if self._started:
            self._live.stop()
            self._started = False

    def _panel(self) -> Panel:
        from rich.console import Group
        from rich.panel import Panel
        from rich.progress_bar import ProgressBar
        from rich.table import Table
        from rich.text import Text

        grid = Table.grid(padding=(0, 2))
        grid.add_column(style="bold")
        grid.add_column()
        step = self._step
        if step is None:
            return Panel(Text("starting ..."), title="rnncli train", title_align="left")
        sampled = " (sampled softmax)" if step.sampled else ""
        grid.add_row("train", f"{loss(step.nats, step.quantity)} a {step.quantity.unit}{sampled}")
        grid.add_row("", Text(curve(self._losses, 48), style="cyan"))
        if self._valid is not None:
            best = ", the best so far" if self._valid.best else ""
            grid.add_row(
                "valid",
                f"{loss(self._valid.score, self._valid.quantity)}{_others(self._valid)} "
                f"at step {self._valid.step:,}{best}",
            )
        speed = f"{step.tokens_per_second:,.0f} {step.quantity.unit}s/s"
        grid.add_row("speed", f"{speed}, lr {step.lr:.2e}")
        left = step.seconds * (1 - step.progress) / max(1e-6, step.progress)
        grid.add_row(
            "time", f"{clock(step.seconds)} gone, {clock(left)} left; step {step.step:,}, "
            f"epoch {step.epoch:.2f}"
        )  # fmt: skip
        bar = ProgressBar(total=1.0, completed=step.progress, width=50)
        sample = Text(self._sample.strip() or "...", style="italic")
        return Panel(
            Group(grid, bar, Text(""), sample), title="rnncli train", title_align="left", width=78
        )


def opening(event: Started) -> list[str]:
    """What is about to happen, in a few lines."""
    model = event.config.model
    lines = [*event.notes]
    what, kind = "data", ""
    if event.quantity.unit == "token":
        what, kind = "text", f" ({event.config.tokenizer.kind})"
    lines.append(
        f"model: {model.layers} x {model.hidden_size} {model.cell}, {event.parameters:,} "
        f"parameters; {what}: {event.train_tokens:,} training and {event.valid_tokens:,} "
        f"validation {event.quantity.unit}s{kind}; {event.machine}"
    )
    if event.resumed_step:
        lines.append(f"going on after step {event.resumed_step:,}")
    return lines


def step_line(event: StepReport) -> str:
    sampled = " (sampled)" if event.sampled else ""
    train = loss(event.nats, event.quantity, " ppl")
    return (
        f"step {event.step} epoch {event.epoch:.2f} train {train}{sampled} lr {event.lr:.2e} "
        f"{event.tokens_per_second:,.0f} {event.quantity.unit}s/s "
        f"{clock(event.seconds)} ({100 * event.progress:.0f} %)"
    )


def eval_line(event: EvalReport) -> str:
    valid = loss(event.score, event.quantity, " ppl")
    return (
        f"step {event.step} epoch {event.epoch:.2f} valid {valid}{_others(event)}"
        f"{' averaged' if event.averaged else ''}{' best' if event.best else ''}"
    )


def _others(event: EvalReport) -> str:
    """ ", success 0.997", or nothing."""
    return "".join(f", {name} {value:.3f}" for name, value in event.scores.items())


def finish_line(event: Finished, kept: EvalReport | None) -> str:
    """``kept``: the validation of the model that is kept, where it was seen; it may be chosen by
    something else than its loss."""
    best = "no validation text"
    if math.isfinite(event.best_score):
        best = f"best validation {loss(event.best_score, event.quantity)}"
        if kept is not None and kept.score != event.best_score:
            own = loss(kept.score, kept.quantity)
            best += f"; kept: that of epoch {kept.epoch:.2f}, {own}{_others(kept)}"
    return f"done after {event.step:,} steps, {clock(event.seconds)} ({event.reason}); {best}"


def loss(value: float, quantity: Quantity, sign: str = ", perplexity") -> str:
    """ "1.2345 nats, perplexity 3.44", or without the perplexity where there is none."""
    text = f"{value:.4f} {quantity.name}"
    return f"{text}{sign} {math.exp(min(value, 50.0)):.2f}" if quantity.perplexity else text


def clock(seconds: float) -> str:
    """ "1:02:03" or "2:03"."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def curve(values: Iterable[float], width: int) -> str:
    """A line of blocks, each the mean of its share of ``values``."""
    points = list(values)
    if not points:
        return ""
    width = min(width, len(points))
    means = []
    for k in range(width):
        part = points[k * len(points) // width : (k + 1) * len(points) // width]
        means.append(sum(part) / len(part))
    low, high = min(means), max(means)
    span = (high - low) or 1.0
    return "".join(CURVE[round((m - low) / span * (len(CURVE) - 1))] for m in means)

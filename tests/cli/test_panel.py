"""What is shown of a run, from events made by hand."""

import dataclasses
import io
import math

import pytest
from rich.console import Console
from rich.live import Live

from rnncli.cli import panel
from rnncli.cli.panel import LivePanel, PlainLines, clock, curve, loss, show
from rnncli.config import Config
from rnncli.training.events import (
    NATS_A_TOKEN,
    EvalReport,
    Finished,
    Quantity,
    Sample,
    Saved,
    Skipped,
    Started,
    StepReport,
)

STARTED = Started(Config(), 1234567, 1000, 50, 10, 100, "auto", "cpu", 40, ("a note",))
STEP = StepReport(50, 0.5, 2.0, 640, 12345.6, 1e-3, 1.5, 62.0, 0.25, False, 0)
EVAL = EvalReport(60, 0.6, 1.5, 50, 0.1, True, False)
SKIPPED = Skipped(61, 0.61, "tokens 0 to 9", "the loss is nan")
FINISHED = Finished(100, 1.0, "100 steps are done", 1.5, 3725.0, "ab")


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0:00"), (59.9, "0:59"), (61, "1:01"), (3600, "1:00:00")]
)
def test_clock(seconds, text):
    assert clock(seconds) == text


def test_curve():
    assert curve([], 10) == ""
    assert curve([3.0], 10) == "▁"
    assert curve([2.0, 2.0], 10) == "▁▁"
    assert curve([0, 1, 2, 3, 4, 5, 6, 7], 8) == "▁▂▃▄▅▆▇█"
    assert curve([7, 0], 8) == "█▁"
    assert curve([0, 0, 7, 7], 2) == "▁█"
    for count in range(1, 200):
        assert len(curve(range(count), 48)) == min(count, 48)


def test_perplexity_too_large_for_a_number_is_none_the_less_shown():
    assert loss(2.0, NATS_A_TOKEN) == "2.0000 nats, perplexity 7.39"
    assert float(loss(1e6, NATS_A_TOKEN, "").split()[-1]) == pytest.approx(math.exp(50))


def test_what_is_no_likelihood_has_no_perplexity():
    assert loss(2.0, Quantity("squared error", "sequence", perplexity=False)) == (
        "2.0000 squared error"
    )


def events(*more):
    yield from more


def test_plain_lines(capsys):
    later = dataclasses.replace(STEP, step=55, seconds=65.0)
    last = dataclasses.replace(STEP, step=70, seconds=73.0, sampled=True)
    show(events(STARTED, STEP, later, EVAL, Sample(60, "x"), Saved(60, True), SKIPPED, last,
                FINISHED))  # fmt: skip
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.splitlines() == [
        "rnncli: a note",
        "rnncli: model: 2 x 512 lstm, 1,234,567 parameters; text: 1,000 training and 50 "
        "validation tokens (char); cpu",
        "rnncli: going on after step 40",
        "rnncli: step 50 epoch 0.50 train 2.0000 nats ppl 7.39 lr 1.00e-03 12,346 tokens/s 1:02 "
        "(25 %)",
        "rnncli: step 60 epoch 0.60 valid 1.5000 nats ppl 4.48 best",
        "rnncli: step 61: skipped, the loss is nan (tokens 0 to 9)",
        "rnncli: step 70 epoch 0.50 train 2.0000 nats ppl 7.39 (sampled) lr 1.00e-03 12,346 "
        "tokens/s 1:13 (25 %)",
        "rnncli: done after 100 steps, 1:02:05 (100 steps are done); best validation 1.5000 nats, "
        "perplexity 4.48",
    ]


def live(monkeypatch, **options) -> tuple[LivePanel, io.StringIO]:
    """The panel on a recorded terminal."""
    output = io.StringIO()
    view = LivePanel()
    view._console = Console(file=output, force_terminal=True, width=100, **options)
    view._live = Live(console=view._console, refresh_per_second=4)
    return view, output


@pytest.mark.parametrize("sample", ["the boat went [home]", "", "a\x1b]0;title\x07\n\n[/red]b"])
def test_live_panel(sample, monkeypatch):
    monkeypatch.delenv("NO_COLOR", raising=False)
    view, output = live(monkeypatch)
    for event in (STARTED, SKIPPED, Sample(40, sample), STEP, EVAL, Saved(60, True), FINISHED):
        view.show(event)
    view.close()
    text = output.getvalue()
    for part in ("2.0000 nats, perplexity 7.39 a token", "12,346 tokens/s, lr 1.00e-03", "a note",
                 "1.5000 nats, perplexity 4.48", "the best so far", "3:06 left", "epoch 0.50",
                 "step 61: skipped, the loss is nan", "done after 100 steps"):  # fmt: skip
        assert part in text
    assert "\x1b]0;" not in text  # what a terminal would obey
    if "boat" in sample:
        assert "the boat went [home]" in text
    assert "\x1b[36m" in text  # the curve is coloured


def test_no_color(monkeypatch):
    monkeypatch.setenv("NO_COLOR", "1")
    view, output = live(monkeypatch)
    for event in (STARTED, STEP, FINISHED):
        view.show(event)
    assert "perplexity 7.39" in output.getvalue()
    assert "\x1b[36m" not in output.getvalue()


def test_the_end_of_a_run_that_fails(monkeypatch):
    """The panel is closed before the error is told, and the run is closed when showing fails."""
    view, output = live(monkeypatch)
    monkeypatch.setattr(panel, "LivePanel", lambda: view)
    monkeypatch.setattr(panel, "is_terminal", lambda stream: True)

    def failing():
        yield STARTED
        raise RuntimeError("broken")

    with pytest.raises(RuntimeError, match="broken"):
        show(failing())
    assert output.getvalue().endswith("\x1b[?25h")  # the cursor is back

    closed = []

    def watched():
        try:
            yield STARTED
        finally:
            closed.append(True)

    class Broken(PlainLines):
        def show(self, event):
            raise BrokenPipeError

    with pytest.raises(BrokenPipeError):
        show(watched(), [Broken()])
    assert closed

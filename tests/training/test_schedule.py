"""The learning rate, by numbers."""

import math

import pytest

from rnncli.sections import ScheduleConfig
from rnncli.training.events import StepReport
from rnncli.training.schedule import Schedule
from tests.training.runs import run, tiny_config


def test_constant_and_warmup():
    schedule = Schedule(ScheduleConfig("constant", warmup_steps=4))
    assert [schedule.factor(step, 0, 0.5) for step in range(6)] == [0.25, 0.5, 0.75, 1, 1, 1]
    assert Schedule(ScheduleConfig("constant")).factor(0, 0, 0.0) == 1.0


def test_cosine():
    schedule = Schedule(ScheduleConfig("cosine", final_fraction=0.1))
    progress = (0.0, 0.25, 0.5, 1.0, 1.5)
    expected = (1.0, 0.1 + 0.45 * (1 + math.sqrt(0.5)), 0.55, 0.1, 0.1)
    assert [schedule.factor(9, 0, p) for p in progress] == pytest.approx(expected)
    warm = Schedule(ScheduleConfig("cosine", warmup_steps=10))
    assert warm.factor(4, 0, 0.5) == pytest.approx(0.25)


def test_step():
    """pytorch/examples divides by 4 when ..., Zaremba et al. 2014 every epoch after the sixth."""
    schedule = Schedule(ScheduleConfig("step", decay=0.5, decay_after_epochs=6))
    factors = [schedule.factor(0, epoch, 0.0) for epoch in range(9)]
    assert factors == [1, 1, 1, 1, 1, 1, 0.5, 0.25, 0.125]
    schedule = Schedule(
        ScheduleConfig("step", decay=0.1, decay_after_epochs=1, decay_every_epochs=2)
    )
    factors = [schedule.factor(0, epoch, 0.0) for epoch in range(6)]
    assert factors == pytest.approx([1, 0.1, 0.1, 0.01, 0.01, 0.001])


def test_newbob():
    schedule = Schedule(ScheduleConfig("newbob", decay=0.5, newbob_threshold=1.01))
    best, factors = math.inf, []
    for score in (5.0, 4.0, 3.99, 3.9, 4.5):
        schedule.validated(score, best)
        best = min(best, score)
        factors.append(schedule.factor(0, 0, 0.0))
    assert factors == [1, 1, 0.5, 0.5, 0.25]
    other = Schedule(ScheduleConfig("constant"))
    other.validated(9.0, 1.0)
    assert other.factor(0, 0, 0.0) == 1.0


def test_the_rate_that_is_used(text, tmp_path, monkeypatch):
    """Of each step; a piece of variable length scales it (Merity et al. 2017, sec. 4.1)."""
    monkeypatch.setattr("rnncli.training.loop.REPORT_SECONDS", 0.0)
    config = tiny_config(text, schedule__name="cosine", schedule__warmup_steps=2,
                         training__max_steps=8)  # fmt: skip
    reports = [e for e in run(config, tmp_path / "a") if isinstance(e, StepReport)]
    cosine = [0.5 * (1 + math.cos(math.pi * k / 8)) for k in range(8)]
    expected = [0.01 * min(1, (k + 1) / 2) * c for k, c in enumerate(cosine)]
    assert [r.lr for r in reports] == pytest.approx(expected)
    config = tiny_config(text, training__bptt_variable=True, training__epochs=1)
    reports = [e for e in run(config, tmp_path / "b") if isinstance(e, StepReport)]
    assert [r.lr for r in reports] == pytest.approx([0.01 * r.tokens / 40 for r in reports])
    assert len({r.tokens for r in reports}) > 3

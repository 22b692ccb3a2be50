"""Events survive the line that one process hands to another."""

from __future__ import annotations

import math
import typing

import pytest

from rnncli.config import Config
from rnncli.training.events import (
    EvalReport,
    Event,
    Finished,
    Quantity,
    Sample,
    Saved,
    Skipped,
    Started,
    StepReport,
    from_json,
    to_json,
)

SQUARES = Quantity("squared error", "sequence", perplexity=False)
CONFIG = Config().with_values({"model.cell": "gru", "data.train": ["a b"]})
EVENTS: tuple[Event, ...] = (
    Started(CONFIG, 5, 4, 3, 2, 1, "auto", "cpu", 0, ("a note", "übrigens\n"), SQUARES),
    StepReport(
        3, 0.5, 2.5, 64, 1e3, 1e-3, math.inf, 2.0, 0.1, True, 1, SQUARES, 7, 9.5, 2, (9.5, 1.25)
    ),
    EvalReport(3, 0.5, 2.5, 64, 0.1, True, False, scores={"bleu": 31.5}, quantity=SQUARES),
    Sample(3, "line\nU+2028\u2028 and \ud800"),
    Saved(3, best=False),
    Skipped(3, 0.5, "tokens 0 to 9", "the loss is nan"),
    Finished(3, 0.5, "3 steps are done", 2.5, 1.0, "ab"),
)


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: type(event).__name__)
def test_an_event_comes_back_from_its_one_line(event: Event) -> None:
    line = to_json(event)
    assert len(line.splitlines()) == 1
    assert from_json(line.encode()) == event


def test_every_kind_of_event_is_tried() -> None:
    assert {type(event) for event in EVENTS} == set(typing.get_args(Event))


def test_what_was_not_measured_stays_so() -> None:
    event = from_json(to_json(Finished(1, 1.0, "", math.nan, 1.0, "")))
    assert isinstance(event, Finished) and math.isnan(event.best_score)


@pytest.mark.parametrize("line", ["", "[]", "{}", '{"event": "Saved"}', '{"event": "Bomb"}'])
def test_what_is_no_event_is_refused(line: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        from_json(line)

"""What a run gave, as its folder tells it."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rnncli.checkpoint import read_header
from rnncli.errors import DataError, FileError
from rnncli.training.run_folder import METRICS_FILE


@dataclass(frozen=True)
class Outcome:
    """What a run gave. ``score`` is the best validation, as ``score_name`` says; nan without one.
    ``success``: the share of a synthetic task's sequences that the kept model answers right; nan of
    other tasks. ``failure``: why there is none of all this, or empty. ``peak_bytes`` 0: not known.
    """

    score: float = math.nan
    score_name: str = "perplexity"
    tokens_per_second: float = math.nan
    peak_bytes: int = 0
    steps: int = 0
    seconds: float = math.nan
    success: float = math.nan
    failure: str = ""
    diverged: bool = False


def read_outcome(folder: Path) -> Outcome | None:
    """What the run in ``folder`` gave; None when it is not there or not over."""
    events = _metrics(folder)
    last = events[-1] if events else {}
    if last.get("event") == "Failed":
        return Outcome(failure=str(last["reason"]), diverged=True)
    if last.get("event") != "Finished":
        return None
    reports = [event for event in events if event.get("event") == "StepReport"]
    tokens = sum(report["tokens"] for report in reports)
    spent = sum(report["tokens"] / report["tokens_per_second"] for report in reports)
    scores = read_header(folder).scores
    name, score = _score(scores, last["best_score"])
    return Outcome(
        score=score,
        score_name=name,
        tokens_per_second=tokens / spent if spent else math.nan,
        peak_bytes=int(last.get("peak_bytes", 0)),
        steps=int(last["step"]),
        seconds=float(last["seconds"]),
        success=float(scores.get("valid_success", math.nan)),
    )


def _metrics(folder: Path) -> list[dict[str, Any]]:
    """What metrics.jsonl records, without a last line that a kill has cut."""
    try:
        lines = (folder / METRICS_FILE).read_bytes().split(b"\n")
    except FileNotFoundError:
        return []
    except OSError as error:
        raise FileError.of("read", folder / METRICS_FILE, error) from None
    try:
        return [json.loads(line) for line in lines[:-1]]
    except ValueError:
        raise DataError(f"{folder / METRICS_FILE} is damaged: a line is not JSON") from None


def _score(scores: Mapping[str, Any], best: float | None) -> tuple[str, float]:
    """What the best validation is called and was: the perplexity where a model's file tells it,
    else ``best`` by its name there: what is learned, not the share of successes."""
    valid = {n.removeprefix("valid_"): v for n, v in scores.items() if n.startswith("valid_")}
    if "perplexity" in valid or best is None:
        return "perplexity", float(valid.get("perplexity", math.nan))
    return next((n for n in valid if n != "success"), "loss"), best

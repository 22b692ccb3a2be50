"""Several models on one corpus under equal conditions: ``rnncli compare``.

A comparison is a folder of runs, one for each candidate and seed. Each is trained in a process of
its own, one after the other, the candidates in turn for every seed, so that a machine that gets
slower does so for all. What a run gave is read from its folder: a finished run is never run again,
and one that was stopped goes on.
"""

from __future__ import annotations

import dataclasses
import json
import math
import re
import statistics
from collections.abc import Callable, Collection, Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rnncli import runtime as machine
from rnncli.cell_table import CELLS
from rnncli.config import Config, load_toml, parse_assignment
from rnncli.errors import DataError, FileError, Interrupted, UsageError, choices_hint
from rnncli.files import append, write_atomically
from rnncli.heeded import unheeded
from rnncli.model_section import cell_names
from rnncli.training.events import Event
from rnncli.training.outcome import Outcome, read_outcome
from rnncli.training.run_folder import CONFIG_FILE, METRICS_FILE, flat, read_run_config
from rnncli.training.sizes import Maker, count_parameters, equal_model, model_maker, resized
from rnncli.training.tasks import REQUIRED, choose
from rnncli.training.worker import Failed, run_apart

EQUAL = ("parameters", "hidden", "none")
BASE_FILE = "base.toml"
FREE = frozenset({"training.threads", "training.save_every_seconds"})
"""What may differ between the parts of one comparison."""

Trainer = Callable[[Config, Path], Iterator[Event | Failed]]


@dataclass(frozen=True)
class Candidate:
    """A model to compare. ``label`` names it in the table, and its folders."""

    label: str
    config: Config
    parameters: int = 0

    @property
    def folder_name(self) -> str:
        return re.sub(r"[^\w.=+-]+", "-", self.label)


@dataclass(frozen=True)
class Run:
    """One candidate with one seed: ``name`` is that of its folder."""

    candidate: Candidate
    config: Config
    folder: Path

    @property
    def name(self) -> str:
        return self.folder.name


_SCORES = {"synthetic:adding": "squared_error"}
"""What is learned in a task that has no perplexity, if it is not nats."""


@dataclass(frozen=True)
class Row:
    """A candidate with the outcomes of its seeds, the failed ones among them."""

    candidate: Candidate
    outcomes: tuple[Outcome, ...]

    @property
    def finished(self) -> list[Outcome]:
        return [outcome for outcome in self.outcomes if not outcome.failure]

    @property
    def failures(self) -> list[Outcome]:
        return [outcome for outcome in self.outcomes if outcome.failure]

    def mean(self, name: str) -> float:
        """The mean of a field over the finished runs; nan when there is none."""
        values = [float(getattr(outcome, name)) for outcome in self.finished]
        return statistics.fmean(values) if values else math.nan

    @property
    def spread(self) -> float:
        """The sample standard deviation of the score; nan for fewer than two finished runs, or
        where nothing was validated."""
        scores = [outcome.score for outcome in self.finished]
        known = len(scores) > 1 and all(map(math.isfinite, scores))
        return statistics.stdev(scores) if known else math.nan

    @property
    def score_name(self) -> str:
        if self.finished:
            return self.finished[0].score_name
        task = self.candidate.config.task
        return Outcome.score_name if task in ("lm", "translate") else _SCORES.get(task, "nats")

    @property
    def peak_bytes(self) -> int:
        return max((outcome.peak_bytes for outcome in self.finished), default=0)

    def to_dict(self) -> dict[str, Any]:
        """The object that ``compare --json`` prints."""
        model = self.candidate.config.model
        success = self.mean("success")
        return {
            "name": self.candidate.label,
            "cell": model.cell,
            "layers": model.layers,
            "hidden_size": model.hidden_size,
            "parameters": self.candidate.parameters,
            "runs": len(self.outcomes),
            "failures": [outcome.failure for outcome in self.failures],
            f"valid_{self.score_name}": self.mean("score"),
            "spread": self.spread,
            "scores": [outcome.score for outcome in self.finished],
            **({} if math.isnan(success) else {"valid_success": success}),
            "tokens_per_second": self.mean("tokens_per_second"),
            "peak_bytes": self.peak_bytes,
            "steps": self.mean("steps"),
            "seconds": self.mean("seconds"),
        }


# -- what is compared ------------------------------------------------------------------------


def base_config(
    fixed: Mapping[str, Any], cells: Sequence[str], out: Path
) -> tuple[Config, list[str]]:
    """What all runs in ``out`` share, chosen when the comparison begins and kept in its folder
    afterwards; and the reasons. ``fixed``: what was given.

    Whichever of ``cells`` comes first: it is chosen for the one that heeds most settings, and what
    ``auto`` means for the precision is settled. Options of cells are theirs alone.
    """
    path = out / BASE_FILE
    cell = _heeding_most(cells)
    name = {"model.cell": cell}
    if path.exists():
        # "auto" was settled when the comparison began.
        given = {n: v for n, v in fixed.items() if (n, v) != ("training.precision", "auto")}
        values = {**_left_out(cell, fixed), **given, **name}
        saved = Config.from_dict(load_toml(path)).with_values(values)
        reasons = [f"settings: those in {path}, and what is given now"]
        return _with_precision(saved, _precision(saved)), reasons
    needed = REQUIRED.get(str(fixed.get("task", "lm")), {})
    for text in cells:  # complain about wrong values before looking at the data
        Config().with_values({**needed, **fixed, **cell_values(text, fixed)})
    values = {**needed, **fixed, **name}
    chosen, reasons = choose(Config().with_values(values).data, values)
    base = Config().with_values({**needed, **chosen, **fixed, **name})
    return _with_precision(base, _precision(base)), reasons


def _heeding_most(cells: Sequence[str]) -> str:
    """The name of the cell that heeds the most settings, of one layer's where they differ; of
    several, one that learns all of its weights. (What they heed is nested: nothing, recurrent
    matrices, forget gates too.)"""

    def rank(name: str) -> tuple[int, bool]:
        rows = [CELLS.get(one) for one in cell_names(name)]
        return len(unheeded(cell_names(name))), any(row and row.frozen for row in rows)

    names = [name for text in cells for name in cell_names(cell_values(text)["model.cell"])]
    return min(names, key=rank)


def keep_base(config: Config, out: Path) -> None:
    """Write what ``base_config`` finds again."""
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise FileError.of("write", out, error) from None
    if not (out / BASE_FILE).exists():
        write_atomically(out / BASE_FILE, [config.to_toml().encode()])


def split_items(text: str, separators: str) -> list[str]:
    """``text`` at each of ``separators`` that is in no brackets."""
    items, depth = [""], 0
    for char in text:
        depth += (char in "[{") - (char in "]}")
        if char in separators and depth == 0:
            items.append("")
        else:
            items[-1] += char
    return [item.strip() for item in items]


def cell_values(text: str, given: Collection[str] = ()) -> dict[str, Any]:
    """The settings of ``lstm`` or of ``elman nonlinearity=relu``, a cell with its options; of
    ``lstm+gru``, a cell for each layer, and so many layers unless they are ``given``. Raises
    UsageError for an option that is none."""
    name, *options = [item for item in split_items(text, " \t") if item] or [""]
    values: dict[str, Any] = {"model.cell": name.replace("+", ",")}
    if "+" in name and "model.layers" not in given:
        values["model.layers"] = len(name.split("+"))
    for option in options:
        if "=" not in option:
            raise UsageError(
                f"--cells: {option!r} in {text!r} is no option of a cell; write name=value"
            )
        key, value = parse_assignment(option)
        values[key if "." in key else f"model.{key}"] = value
    return values


def cell_candidates(
    base: Config, cells: Sequence[str], given: Collection[str] = ()
) -> list[Candidate]:
    """``base`` with each of ``cells`` in turn, without what was chosen for another one and this one
    does not heed. ``given``: names that the user has set; those stay, and are refused."""
    candidates = []
    for text in cells:
        values = cell_values(text, given)
        config = base.with_values({**_left_out(values["model.cell"], given), **values})
        candidates.append(Candidate(" ".join(text.split()), config))
    return candidates


def _left_out(cell: str, given: Collection[str]) -> dict[str, None]:
    """What ``cell`` does not heed and nobody has ``given``, for ``Config.with_values``."""
    return dict.fromkeys(unheeded(cell_names(cell)) - {*given})


def settle(candidates: Sequence[Candidate], equal: str) -> list[Candidate]:
    """The candidates as they are run: their sizes made ``equal`` to the first one's, parameters
    counted.

    Raises UsageError for a size that cannot be matched, or names that are not distinct.
    """
    if equal not in EQUAL:
        raise UsageError(f"--equal: unknown value {equal!r}{choices_hint(equal, EQUAL)}")
    names = [candidate.folder_name for candidate in candidates]
    for name in names:
        if names.count(name) > 1:
            raise UsageError(f"--cells: {name!r} is there twice; each needs a name of its own")
    settled: list[Candidate] = []
    makers = _Makers()
    for candidate in candidates:
        config = candidate.config
        make, model = makers(config), config.model
        if settled and equal == "hidden":
            model = resized(model, settled[0].config.model.hidden_size)
        elif settled and equal == "parameters":
            model = equal_model(make, model, settled[0].parameters, candidate.label)
        config = dataclasses.replace(config, model=model)
        settled.append(Candidate(candidate.label, config, count_parameters(make, model)))
    return settled


class _Makers:
    """How the model of each configuration is made; every text is read once."""

    def __init__(self) -> None:
        self._known: dict[tuple[Any, ...], Maker] = {}

    def __call__(self, config: Config) -> Maker:
        own = config.source_tokenizer
        key = (config.task, config.data, config.tokenizer, own, config.synthetic)
        if key not in self._known:
            self._known[key] = model_maker(config)
        return self._known[key]


def with_one_precision(candidates: Sequence[Candidate], out: Path) -> list[Candidate]:
    """The candidates with one precision where theirs is ``auto``: what that means is measured, and
    must be one for all runs. That of a run that was begun in ``out`` stands."""
    undecided = [c for c in candidates if c.config.training.precision == "auto"]
    folders = [_run_folder(c, c.config.seed, out) for c in undecided]
    begun = [read_run_config(folder) for folder in folders if (folder / CONFIG_FILE).exists()]
    configs = [*begun, *(c.config for c in undecided)]
    precision = _precision(configs[0]) if configs else ""
    return [
        dataclasses.replace(c, config=_with_precision(c.config, precision)) if c in undecided else c
        for c in candidates
    ]


def _precision(config: Config) -> str:
    """That of ``config``, or what its ``auto`` means on this machine."""
    training = config.training
    if training.precision != "auto":
        return training.precision
    dtype = machine.prepare(training.device, "auto", training.threads).dtype
    return str(dtype).removeprefix("torch.")


def _with_precision(config: Config, precision: str) -> Config:
    return config.with_values({"training.precision": precision})


# -- the runs --------------------------------------------------------------------------------


def plan_runs(candidates: Sequence[Candidate], seeds: int, out: Path) -> list[Run]:
    """Every candidate for the first seed, then every one for the second, ..."""
    return [
        Run(
            candidate,
            candidate.config.with_values({"seed": candidate.config.seed + k}),
            _run_folder(candidate, candidate.config.seed + k, out),
        )
        for k in range(seeds)
        for candidate in candidates
    ]


def _run_folder(candidate: Candidate, seed: int, out: Path) -> Path:
    return out / f"{candidate.folder_name}-{seed}"


def compare(
    runs: Iterable[Run], train: Trainer | None = None
) -> Generator[tuple[Run, Event | Outcome], None, None]:
    """Do the runs, or read what those gave that are done: their events, and of each its outcome.
    ``train`` does a run; None: a process of its own.

    Raises UsageError for a folder that holds another run, Interrupted after Ctrl-C, once the run
    that it stopped is saved.
    """
    runs = list(runs)
    for run in runs:
        _require_same(run)
    for run in runs:
        if (outcome := read_outcome(run.folder)) is None:
            try:
                outcome = yield from _trained(run, train or run_apart)
            except KeyboardInterrupt:
                raise stopped_during(run) from None
        yield run, outcome


def stopped_during(run: Run) -> Interrupted:
    """What Ctrl-C ends a comparison with, once ``run`` is saved."""
    return Interrupted(f"stopped during {run.name}; the same command goes on from there")


def _trained(run: Run, train: Trainer) -> Generator[tuple[Run, Event | Outcome], None, Outcome]:
    events = train(run.config, run.folder)
    try:
        for event in events:
            if isinstance(event, Failed):
                if event.diverged:
                    line = {"event": "Failed", "reason": event.reason}
                    append(run.folder / METRICS_FILE, json.dumps(line).encode() + b"\n")
                return Outcome(failure=event.reason, diverged=event.diverged)
            yield run, event
    finally:
        if isinstance(events, Generator):
            events.close()
    outcome = read_outcome(run.folder)
    if outcome is None:
        raise DataError(f"{run.folder}: the run is over, but {METRICS_FILE} does not say so")
    return outcome


def _require_same(run: Run) -> None:
    """Raise UsageError when the run's folder holds one with other settings."""
    if not (run.folder / CONFIG_FILE).exists():
        return
    old = flat(read_run_config(run.folder).to_dict())
    new = flat(run.config.to_dict())
    for name in (*new, *old):
        if name not in FREE and old.get(name) != new.get(name):
            raise UsageError(
                f"{run.folder} holds a run with {name} = {old.get(name)!r}, and now it would be "
                f"{new.get(name)!r}; give another --out, or remove that folder"
            )


def make_rows(
    candidates: Sequence[Candidate], outcomes: Iterable[tuple[Run, Outcome]]
) -> list[Row]:
    """One row a candidate, in order."""
    found: dict[str, list[Outcome]] = {candidate.label: [] for candidate in candidates}
    for run, outcome in outcomes:
        found[run.candidate.label].append(outcome)
    return [Row(candidate, tuple(found[candidate.label])) for candidate in candidates]

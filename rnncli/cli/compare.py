"""``rnncli compare``: several cells or configurations on one corpus, in one table."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from typer import Argument, Option

from rnncli.cli.console import note, print_columns, print_json
from rnncli.cli.models import require_text, text_of
from rnncli.cli.train import parse_time
from rnncli.config import TASKS, Config, load_toml, parse_assignment
from rnncli.errors import RnncliError, UsageError
from rnncli.heeded import require_rules

if TYPE_CHECKING:
    from rnncli.training.compare import Candidate, Row, Run
    from rnncli.training.outcome import Outcome

EXAMPLES = """
rnncli compare book.txt --cells elman,lstm --out by-time --max-time 20s
rnncli compare book.txt --cells "gru,lstm forget_bias=0" --out by-steps --max-steps 20 --json
rnncli compare book.txt --cells lstm,gru --out sizes --hidden-size 256 --dry-run
"""


def _option(help_text: str, *names: str, **more: Any) -> Any:
    return Option(*names, help=help_text, show_default=False, **more)


def compare(
    corpus: Annotated[
        list[str] | None,
        Argument(metavar="[CORPUS]...", help="Training text, or music: files.", show_default=False),
    ] = None,
    out: Annotated[Path | None, _option("Folder for the runs.", "--out", "-o")] = None,
    cells: Annotated[
        str | None,
        _option('Cells with commas between, each with its options: "gru,elman x=y,lstm+gru".'),
    ] = None,
    presets: Annotated[
        list[str] | None, _option("A zoo entry to compare (repeatable).", "--preset")
    ] = None,
    configs: Annotated[
        list[Path] | None, _option("A configuration to compare (repeatable).", "--config")
    ] = None,
    equal: Annotated[
        str | None,
        _option(
            "Sizes made equal to the first one's. Default: parameters for cells, else none.",
            metavar="parameters|hidden|none",
        ),
    ] = None,
    seeds: Annotated[int, Option(metavar="N", min=1, help="Runs of each, for the spread.")] = 1,
    task: Annotated[str | None, _option(f"{', '.join(TASKS)}.")] = None,
    valid: Annotated[
        str | None, _option("Validation text; else the last 5 % of the lines, 1 MB of much.")
    ] = None,
    lag: Annotated[int | None, _option("Lag T of a synthetic task.")] = None,
    layers: Annotated[int | None, _option("Recurrent layers.")] = None,
    hidden_size: Annotated[int | None, _option("Units a layer (of the first cell).")] = None,
    embedding_size: Annotated[int | None, _option("Size of the input vectors.")] = None,
    tokenizer: Annotated[str | None, _option("byte, char, word, bpe or unigram.")] = None,
    epochs: Annotated[int | None, _option("Passes over the text, each.")] = None,
    max_steps: Annotated[int | None, _option("Updates, each.")] = None,
    max_time: Annotated[str | None, _option("Wall-clock time of each run: 90s, 10m.")] = None,
    lr: Annotated[float | None, _option("Learning rate.")] = None,
    seed: Annotated[int | None, _option("The first seed.")] = None,
    threads: Annotated[int | None, _option("Processor threads; 0: all cores.")] = None,
    device: Annotated[str | None, _option("auto, cpu or cuda.")] = None,
    precision: Annotated[str | None, _option("auto, float32 or bfloat16 products.")] = None,
    settings: Annotated[
        list[str] | None, _option("section.key=value for all; repeatable.", "--set")
    ] = None,
    as_json: Annotated[bool, Option("--json", help="Print one JSON object a row.")] = False,
    dry_run: Annotated[bool, _option("Print the sizes; train nothing.", "--dry-run")] = False,
) -> None:
    """Train several cells on one corpus and print what each reached.

    Settings that are not given are chosen once, from the text and the time, and are the same for
    all. Every run is a folder in --out. The same command goes on where it was stopped: what is
    finished is not run again.
    """
    if out is None:
        raise UsageError("--out: missing; give the folder for the runs, as in --out comparison")
    fixed: dict[str, Any] = {
        "task": task,
        "seed": seed,
        "data.valid": None if valid is None else os.path.abspath(valid),
        "synthetic.lag": lag,
        "model.layers": layers,
        "model.hidden_size": hidden_size,
        "model.embedding_size": embedding_size,
        "tokenizer.kind": tokenizer,
        "training.epochs": epochs,
        "training.max_steps": max_steps,
        "training.max_seconds": None if max_time is None else parse_time(max_time),
        "training.threads": threads,
        "training.device": device,
        "training.precision": precision,
        "optimizer.lr": lr,
    }
    fixed = {name: value for name, value in fixed.items() if value is not None}
    fixed |= dict(parse_assignment(text) for text in settings or ())
    if corpus:
        fixed["data.train"] = [os.path.abspath(path) for path in corpus]
    if "-" in (corpus or ()):
        raise UsageError("compare reads the text once a run, and standard input only once: a file")

    from rnncli.training.compare import (
        keep_base,
        make_rows,
        plan_runs,
        settle,
        with_one_precision,
    )

    if cells is not None:
        if presets or configs:
            raise UsageError("--cells, --preset and --config: cells, or whole configurations")
        base, candidates = _cells(fixed, cells, out)
    else:
        base = None
        candidates = _configurations(fixed, presets or [], configs or [])
    candidates = with_one_precision(candidates, out)
    settled = settle(candidates, equal or ("parameters" if cells else "none"))
    if base is not None and not dry_run:
        keep_base(base, out)
    outcomes = [] if dry_run else list(_run_all(plan_runs(settled, seeds, out)))
    rows = make_rows(settled, outcomes)
    if as_json:
        for row in rows:
            print_json(row.to_dict())
    else:
        success = any(not math.isnan(row.mean("success")) for row in rows)
        print_columns(_columns(rows, success), [_cells_of(row, success) for row in rows])
    if outcomes and all(outcome.failure for _, outcome in outcomes):
        raise RnncliError("no run came to its end")


def _cells(fixed: dict[str, Any], cells: str, out: Path) -> tuple[Config, list[Candidate]]:
    """Settings chosen for the text, and the cells of the option on them."""
    from rnncli.training.comparable import require_comparable
    from rnncli.training.compare import BASE_FILE, base_config, cell_candidates, split_items

    items = split_items(cells, ",")
    if not (out / BASE_FILE).exists():
        require_text(fixed.get("task", "lm"), fixed)
    base, reasons = base_config(fixed, items, out)
    for text in reasons:
        note(text)
    candidates = cell_candidates(base, items, fixed)
    _require_rules(fixed, candidates)
    require_comparable(candidates)
    return base, candidates


def _require_rules(given: dict[str, Any], candidates: list[Candidate]) -> None:
    """Raise UsageError for what was given and none of the candidates heeds."""
    for name in given:
        refused = []
        for candidate in candidates:
            try:
                require_rules([name], vars(candidate.config))
            except UsageError as error:
                refused.append(error)
        if refused and len(refused) == len(candidates):
            raise refused[0]


def _configurations(
    fixed: dict[str, Any], presets: list[str], configs: list[Path]
) -> list[Candidate]:
    """Zoo entries, then files, each by its name."""
    from rnncli.training.comparable import require_comparable
    from rnncli.training.compare import Candidate
    from rnncli.zoo import load_entry

    found = [(name, load_entry(name).config) for name in presets]
    found += [(path.stem, Config.from_dict(load_toml(path))) for path in configs]
    if not found:
        raise UsageError("nothing to compare; give --cells lstm,gru, or --preset or --config twice")
    candidates = [Candidate(name, config.with_values(fixed)) for name, config in found]
    for candidate in candidates:
        require_text(candidate.config.task, text_of(candidate.config.data))
    _require_rules(fixed, candidates)
    require_comparable(candidates)
    return candidates


def _run_all(runs: list[Run]) -> Iterator[tuple[Run, Outcome]]:
    """Do the runs, with a line on stderr every ten seconds, at every validation and at the end."""
    from rnncli.cli.panel import PlainLines
    from rnncli.training.compare import compare, stopped_during
    from rnncli.training.outcome import Outcome

    views: dict[str, PlainLines] = {}
    current = runs[0]
    try:
        with closing(compare(runs)) as events:
            for run, event in events:
                current = run
                prefix = f"{run.name} ({runs.index(run) + 1} of {len(runs)}): "
                if isinstance(event, Outcome):
                    if event.failure:
                        note(f"{prefix}failed: {event.failure}")
                    elif run.name not in views:
                        note(f"{prefix}is done already, in {run.folder}")
                    yield run, event
                else:
                    views.setdefault(run.name, PlainLines(prefix)).show(event)
    except KeyboardInterrupt:  # while an event was shown; closing has saved the run
        raise stopped_during(current) from None


def _columns(rows: list[Row], success: bool) -> tuple[str, ...]:
    """``success``: whether a synthetic task's has a column."""
    score = next((row for row in rows if row.finished), rows[0]).score_name.replace("_", " ")
    scores = (f"valid {score}", *(("success",) if success else ()))
    return ("cell", "hidden", "parameters", *scores, "tokens/s", "peak MB", "steps", "s")


def _cells_of(row: Row, success: bool) -> tuple[str, ...]:
    """A row as text; what was not measured is a dash."""
    model = row.candidate.config.model
    score = _measured(row.mean("score"), row.spread)
    if row.failures:
        what = "diverged" if row.failures[0].diverged else "failed"
        count = f"{len(row.failures)} of {len(row.outcomes)} {what}"
        score = f"{score} ({count})" if row.finished else what
    return (
        row.candidate.label,
        str(model.hidden_size),
        f"{row.candidate.parameters:,}",
        score,
        *((_number(row.mean("success"), ".3f"),) if success else ()),
        _number(row.mean("tokens_per_second"), ",.0f"),
        f"{row.peak_bytes / 1e6:,.0f}" if row.peak_bytes else "-",
        _number(row.mean("steps"), ",.0f"),
        _number(row.mean("seconds"), ",.1f"),
    )


def _measured(mean: float, spread: float) -> str:
    """ "5.69 ± 0.80": as many decimals as the spread has two figures; four without one."""
    if abs(mean) >= 1e7:
        return f"{mean:.4g}"
    if not spread > 0:  # nan, too
        return _number(mean, ".4f")
    decimals = min(6, max(0, 1 - math.floor(math.log10(spread))))
    return f"{mean:.{decimals}f} ± {spread:.{decimals}f}"


def _number(value: float, form: str) -> str:
    return "-" if math.isnan(value) else format(value, form)

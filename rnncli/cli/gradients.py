"""``rnncli gradients``: how errors travel back through time in a model, in numbers and pictures."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from typer import Argument, Option

from rnncli.cli.console import note, print_columns, print_json, printable
from rnncli.cli.models import Threads
from rnncli.cli.outputs import require_writable, write_output
from rnncli.errors import UsageError

if TYPE_CHECKING:
    from rnncli.cli.svg import Panel
    from rnncli.evaluation.gradients import Layer, Report, TrainingNorms
    from rnncli.evaluation.subjects import Subject

EXAMPLES = """
rnncli gradients run book.txt --svg gradients.svg
rnncli gradients char-rnn --steps 30 --json
"""

BAR_WIDTH = 24
BAR_RANGE = 8.0
"""Powers of ten that a whole bar spans."""

CURVE_WIDTH = 40
EIGHTHS = " ▏▎▍▌▋▊▉█"
REST = "·"
"""What a bar leaves; blanks at its end would be lost in a table."""


def gradients(
    model: Annotated[
        str,
        Argument(
            metavar="MODEL_OR_CONFIG",
            help="A model's file or a run's folder; or a TOML file or zoo entry: a fresh model.",
            show_default=False,
        ),
    ],
    text: Annotated[
        str | None,
        Argument(
            metavar="[TEXT]",
            help="Text or music for the model to read; without it, what it reads is drawn.",
            show_default=False,
        ),
    ] = None,
    steps: Annotated[
        int | None,
        Option(
            "--steps",
            metavar="N",
            min=3,
            help="Time steps of a window. Default: 100; a synthetic task has its own.",
            show_default=False,
        ),
    ] = None,
    windows: Annotated[
        int, Option("--windows", metavar="N", min=1, help="Windows, spread over the text.")
    ] = 16,
    seed: Annotated[
        int | None,
        Option(
            "--seed",
            metavar="N",
            min=0,
            max=2**63 - 1,
            help="Draws what is read without a text. Default: 1.",
            show_default=False,
        ),
    ] = None,
    svg: Annotated[
        str | None,
        Option(
            "--svg", metavar="FILE", help="Also draw all curves into this file; -: nothing else."
        ),
    ] = None,
    as_json: Annotated[bool, Option("--json", help="Print one JSON object.")] = False,
    threads: Threads = 0,
) -> None:
    """Show how gradients vanish or explode through time in a model.

    For each layer: the norm of the gradient of the loss at step t by the state at every earlier
    step k; the norms of the Jacobians between them, with their bounds; singular values and spectral
    radius of the recurrent matrices; how many units and gates are saturated. For a run's folder
    also the gradient's norm during training. docs/gradients.md says how to read it.
    """
    if text is not None and seed is not None:
        raise UsageError("--seed: with a text nothing is drawn; leave one of them out")
    if svg == "-" and as_json:
        raise UsageError(
            "--svg -: standard output takes the picture or JSON; leave out one of them"
        )
    require_writable(svg)

    from rnncli.evaluation.gradients import look_into
    from rnncli.evaluation.subjects import DRAWN, Reading, open_subject
    from rnncli.runtime import prepare

    prepare("cpu", "float32", threads)
    subject = open_subject(model, text, Reading(steps, windows, 1 if seed is None else seed))
    if subject.source.endswith(DRAWN):
        note(f"{model} reads {subject.source}; give a text to see it at work")
    report = look_into(subject, _training(subject))
    if svg != "-":
        if as_json:
            print_json(report.to_dict())
        else:
            _print(report)
    if svg is not None:
        from rnncli.cli.svg import draw

        picture = draw(_title(report), list(_panels(report)))
        write_output(svg, [picture.encode(errors="replace")])


def _training(subject: Subject) -> TrainingNorms | None:
    from rnncli.evaluation.gradients import read_training_norms
    from rnncli.training.run_folder import METRICS_FILE

    folder = Path(subject.name)
    if not (subject.trained and folder.is_dir()):
        return None
    return read_training_norms(folder / METRICS_FILE, subject.config.optimizer.clip_norm)


# -- text ------------------------------------------------------------------------------------


def _title(report: Report) -> str:
    state = "" if report.trained else ", untrained"
    return f"{report.model}{state}: {report.source}"


def _print(report: Report) -> None:
    _say(_title(report))
    for layer in report.layers:
        _say("", f"layer {layer.layer}, {layer.cell}, {layer.units} units, {layer.direction}")
        if layer.state != "h":
            _say(f"h below is the whole state: {layer.state}")
        _print_norms(layer)
        _say(_verdict(layer))
        if layer.matrices:
            _say("")
            _print_matrices(layer)
        if layer.saturation:
            _say("")
            _print_saturation(layer)
    if report.training is not None:
        _say("", *_training_lines(report.training))


def _say(*lines: str) -> None:
    for line in lines:
        sys.stdout.write(printable(line) + "\n")


def _print_norms(layer: Layer) -> None:
    from rnncli.evaluation.gradients import spread_lags

    curve, jacobians = layer.gradient, layer.jacobians
    columns = {"|dL(t)/dh(k)|": dict(zip(curve.lags, curve.median, strict=True))}
    if jacobians is not None:
        lags, weights = jacobians.norm.lags, jacobians.bound_of_weights
        columns["|dh(t)/dh(k)|"] = dict(zip(lags, jacobians.norm.median, strict=True))
        columns["bound"] = dict(zip(lags, jacobians.bound_of_steps.median, strict=True))
        if weights is not None:
            columns["by W_hh"] = dict(zip(lags, weights, strict=True))
    rows = []
    for lag in spread_lags(len(curve.lags)):
        values = [f"{column[lag]:.1e}" for column in columns.values()]
        rows.append([f"{lag}", *values, bar(curve.median[lag], max(curve.median))])
    print_columns(["t-k", *columns, "the gradient, logarithmic".ljust(BAR_WIDTH)], rows)
    if jacobians is not None and not jacobians.exact:
        _say("|dh(t)/dh(k)| and its bound are estimates from below, of one window")
    if jacobians is None:
        _say("read backward: h(t) is the first state, and depends on no h(k)")


def bar(value: float, largest: float) -> str:
    """A bar of ``BAR_WIDTH`` characters, full for ``largest``, empty from 10^-BAR_RANGE of it."""
    if not (value > 0 and largest > 0 and math.isfinite(value / largest)):
        return REST * BAR_WIDTH
    share = 1 + math.log10(value / largest) / BAR_RANGE
    eighths = round(8 * BAR_WIDTH * min(1.0, max(0.0, share)))
    full, part = divmod(eighths, 8)
    return (EIGHTHS[8] * full + (EIGHTHS[part] if part else "")).ljust(BAR_WIDTH, REST)


def _verdict(layer: Layer) -> str:
    factor, curve = layer.gradient_factor, layer.gradient
    if len(curve.lags) < 3:
        return "too few steps to tell whether the gradient vanishes"
    if factor == math.inf:
        reach = next(lag for lag in curve.lags if not math.isfinite(curve.median[lag]))
        return f"the gradient explodes: {reach} steps back it is no number any more"
    if not factor > 0:
        return "the gradient does not reach back"
    rate = f"the gradient is multiplied by {factor:.3f} with every step further back"
    if 0.999 < factor < 1.001:
        return f"{rate}: it neither vanishes nor explodes"
    steps = math.log(2) / abs(math.log(factor))
    return f"{rate}: it {'halves' if factor < 1 else 'doubles'} in {steps:.1f}"


def _print_matrices(layer: Layer) -> None:
    rows = []
    for matrix in layer.matrices:
        values = matrix.singular_values
        radius = "-" if matrix.spectral_radius is None else f"{matrix.spectral_radius:.3f}"
        middle = values[len(values) // 2]
        rows.append(
            [matrix.name, f"{matrix.rows} x {matrix.columns}", radius]
            + [f"{value:.3f}" for value in (values[0], middle, values[-1])]
        )
    names = ["matrix", "size", "spectral radius", "largest σ", "median σ", "smallest σ"]
    print_columns(names, rows)


def _print_saturation(layer: Layer) -> None:
    rows = [[s.name, _percent(s.low), _percent(s.high)] for s in layer.saturation]
    print_columns(["saturated", "at its lower end", "at its upper end"], rows)


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.1f} %"


def _training_lines(training: TrainingNorms) -> Iterator[str]:
    from rnncli.cli.panel import curve

    drawn = curve(peaks(training.largest, CURVE_WIDTH), CURVE_WIDTH)
    yield f"largest gradient norms in training, to step {training.steps[-1]:,}: {drawn}"
    norms = sorted(training.norms)
    few = len(norms) < training.counted_steps
    clipped = 100 * training.clipped_steps / training.counted_steps
    limit = f", {clipped:.0f} % above clip_norm {training.clip_norm:g}"
    yield (
        f"  of {training.counted_steps:,} steps: largest {max(training.largest):.3g}"
        f"{limit if training.clip_norm else ''}; "
        f"median {norms[len(norms) // 2]:.3g}{f' of {len(norms):,} recorded' if few else ''}"
    )


def peaks(values: Sequence[float], count: int) -> list[float]:
    """The largest of each of ``count`` shares of ``values``, or all of them if they are fewer."""
    count = min(count, len(values))
    bounds = [k * len(values) // count for k in range(count + 1)]
    return [max(values[start:stop]) for start, stop in pairwise(bounds)]


# -- picture ---------------------------------------------------------------------------------


def _panels(report: Report) -> Iterator[Panel]:
    from rnncli.cli.svg import Line, Panel

    layers = list(enumerate(report.layers))

    def name(layer: Layer) -> str:
        return f"layer {layer.layer}" + (" backward" if layer.direction == "backward" else "")

    yield Panel(
        "|dL(t)/dh(k)|: median, and eight tenths of the windows",
        "t - k",
        [
            Line(
                name(layer),
                _points(layer.gradient.lags, layer.gradient.median),
                n,
                band=list(
                    zip(layer.gradient.lags, layer.gradient.low, layer.gradient.high, strict=True)
                ),
            )
            for n, layer in layers
        ],
        log=True,
    )
    lines = []
    for n, layer in layers:
        found = layer.jacobians
        if found is None:
            continue
        lags = found.norm.lags
        lines.append(Line(name(layer), _points(lags, found.norm.median), n))
        lines.append(Line("product of norms", _points(lags, found.bound_of_steps.median), n, True))
        if found.bound_of_weights is not None:
            lines.append(Line("by W_hh", _points(lags, found.bound_of_weights), n + 1, True))
    if lines:
        yield Panel("|dh(t)/dh(k)| and its bounds", "t - k", lines, log=True)
    shown = [(n, layer, m) for n, layer in layers for m in layer.matrices]
    if shown:
        yield Panel(
            "singular values of the recurrent matrices",
            "number",
            [
                Line(
                    f"{layer.layer}: {m.name}",
                    _points(_count(m.singular_values), m.singular_values),
                    k,
                )
                for k, (_, layer, m) in enumerate(shown)
            ],
        )
    if report.training is not None:
        points = _points(report.training.steps, report.training.largest)
        title = "gradient norm in training, before clipping"
        yield Panel(title, "step", [Line("norm", points)], log=True)


def _points(xs: Iterable[float], ys: Sequence[float]) -> list[tuple[float, float]]:
    return list(zip(xs, ys, strict=True))


def _count(values: Sequence[float]) -> range:
    return range(1, len(values) + 1)

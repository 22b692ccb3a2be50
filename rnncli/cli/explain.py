"""``rnncli explain``: a text coloured by surprisal, or by what a unit or a gate does."""

from __future__ import annotations

import json
import math
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from typer import Argument, Option

from rnncli.cli.console import is_terminal, note, print_columns, print_json
from rnncli.cli.models import BadInput, Device, InputFile, StripLines, Threads
from rnncli.cli.outputs import require_writable, write_output
from rnncli.cli.streams import LineWriter, OnBadInput, open_lines
from rnncli.errors import UsageError

if TYPE_CHECKING:
    from rnncli.cli.colouring import Scale
    from rnncli.evaluation.explain import Explained, Unit
    from rnncli.loading import Loaded

EXAMPLES = """
echo "The night was clear." | rnncli explain run
rnncli explain run test.txt --top-units 5
rnncli explain run test.txt --unit 1:7 --gate forget --state carried --html unit.html
"""

_LINES_READ = 256
_FULL_BITS, _FULL_ACTIVATION = 10.0, 1.0


def explain(
    model: Annotated[
        Path,
        Argument(metavar="MODEL", help="A model's file or a run's folder.", show_default=False),
    ],
    file: InputFile = None,
    unit: Annotated[
        str | None,
        Option(
            "--unit", metavar="LAYER:UNIT", help="Show this unit's output; from 1, as in 2:137."
        ),
    ] = None,
    gate: Annotated[
        str | None,
        Option(
            "--gate",
            metavar="NAME",
            help="Of that unit: input, forget, candidate, output, cell; reset, update (GRU); "
            "a wrong name is answered with the cell's own.",
        ),
    ] = None,
    state: Annotated[
        str | None,
        Option(
            "--state",
            metavar="reset|carried",
            help="At a line's start: as score (the default), or go on.",
            show_default=False,
        ),
    ] = None,
    scale: Annotated[
        float | None,
        Option("--scale", metavar="X", help="Value of the deepest colour. Default: 10 bits, or 1."),
    ] = None,
    html: Annotated[
        str | None, Option("--html", metavar="FILE", help="Write a page; - is standard output.")
    ] = None,
    as_json: Annotated[bool, Option("--json", help="One JSON object a line.")] = False,
    top_units: Annotated[
        int,
        Option(
            "--top-units", metavar="N", min=0, help="List N units that follow something simple."
        ),
    ] = 0,
    strip_lines: StripLines = None,
    on_bad_input: BadInput = OnBadInput.REPLACE,
    device: Device = "auto",
    threads: Threads = 0,
) -> None:
    """Show what a model makes of each token of a text.

    On a terminal the text is coloured; a pipe gets every token with its value, tabs between, one
    line for each line. The value is the surprisal in bits, or what a unit is once it has read the
    token. --top-units finds units worth looking at.
    """
    if gate and not unit:
        raise UsageError("--gate: of which unit? Give --unit LAYER:UNIT too")
    if html is not None and as_json:
        raise UsageError("--html and --json: give one of them")
    require_writable(html)
    if scale is not None and as_json:
        raise UsageError("--scale: it is for colours, and --json has none; leave one of them out")
    if scale is not None and not 0 < scale < float("inf"):
        raise UsageError(f"--scale {scale:g}: it must be above 0")

    if top_units and (unit or html is not None or scale is not None or state is not None):
        raise UsageError("--top-units: --unit, --html, --scale and --state are not for the list")

    from rnncli.evaluation.explain import explain as explained
    from rnncli.evaluation.explain import parse_unit
    from rnncli.loading import load_language_model
    from rnncli.runtime import prepare

    loaded = load_language_model(model, prepare(device, "float32", threads).device)
    shown = parse_unit(unit, gate or "", loaded.model) if unit else None
    strip = loaded.config.data.strip_lines if strip_lines is None else strip_lines
    any_bytes = loaded.tokenizer.kind == "byte"
    with open_lines(file, on_bad_input=on_bad_input, any_bytes=any_bytes) as reader:
        batches = reader.batches(_LINES_READ)
        if top_units:
            if strip:
                batches = ([line.strip() for line in lines] for lines in batches)
            _print_units(loaded, batches, top_units, as_json)
            return
        carried = state or "reset"
        lines = explained(loaded, batches, unit=shown, state=carried, strip_lines=strip)
        colours = _scale(shown, scale)
        if html is not None:
            _write_page(html, f"{model}: {file or 'standard input'}", loaded, lines, colours)
        elif as_json or not is_terminal(sys.stdout) or os.environ.get("NO_COLOR"):
            writer, write = LineWriter(), _json if as_json else _plain
            for batch in lines:
                writer.write(write(loaded, one) for one in batch)
        else:
            _print_coloured(loaded, lines, colours)


def _scale(unit: Unit | None, full: float | None) -> Scale:
    from rnncli.cli.colouring import Scale

    if unit is None:
        return Scale("surprisal in bits", full or _FULL_BITS, signed=False, additive=True)
    what = f"{unit.gate} gate" if unit.gate and unit.gate != "cell" else unit.gate or "output"
    subject = f"{what} of unit {unit.number + 1} in layer {unit.layer + 1}"
    signed = unit.gate in ("", "cell") or unit.gate.startswith("candidate")
    return Scale(subject, full or _FULL_ACTIVATION, signed=signed)


def _pieces(loaded: Loaded, one: Explained) -> list[str]:
    from rnncli.text.protocol import LINE_END

    return [*loaded.tokenizer.pieces(one.tokens[:-1]), LINE_END]


def _plain(loaded: Loaded, one: Explained) -> str:
    """``piece value`` for each token, tabs between: as ``rnncli score --level word`` writes."""
    pairs = zip(_pieces(loaded, one), one.values.tolist(), strict=True)
    return "\t".join(f"{piece} {round(value, 4) + 0.0:.4f}" for piece, value in pairs)


def _json(loaded: Loaded, one: Explained) -> str:
    found = one.values.tolist()
    values = [round(value, 4) + 0.0 if math.isfinite(value) else None for value in found]
    both = {"pieces": _pieces(loaded, one), "values": values}
    return json.dumps(both, ensure_ascii=False, allow_nan=False)


def _print_coloured(loaded: Loaded, lines: Iterator[list[Explained]], scale: Scale) -> None:
    from rich.console import Console

    from rnncli.cli.colouring import coloured_line, segments

    note(scale.legend)
    console = Console(highlight=False)
    for batch in lines:
        for one in batch:
            parts = segments(loaded.tokenizer, one, scale)
            console.print(coloured_line(parts, scale), soft_wrap=True)
        sys.stdout.flush()


def _write_page(
    target: str, title: str, loaded: Loaded, lines: Iterator[list[Explained]], scale: Scale
) -> None:
    from rnncli.cli.colouring import page, segments

    parts = (segments(loaded.tokenizer, one, scale) for batch in lines for one in batch)
    text = page(title, scale, parts)
    write_output(target, (part.encode(errors="replace") for part in text))


def _print_units(
    loaded: Loaded, batches: Iterable[Sequence[str]], count: int, as_json: bool
) -> None:
    from rnncli.evaluation.units import top_units

    found = top_units(loaded, batches, count)
    if as_json:
        for one in found:
            print_json({"unit": f"{one.layer}:{one.unit}", "follows": one.feature,
                        "correlation": one.correlation})  # fmt: skip
        return
    rows = [(f"{one.layer}:{one.unit}", one.feature, f"{one.correlation:.3f}") for one in found]
    print_columns(("unit", "follows", "correlation"), rows)

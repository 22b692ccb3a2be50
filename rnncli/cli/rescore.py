"""``rnncli rescore``: n-best lists with a model's opinion added."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

from typer import Context, Option

from rnncli.cli.models import (
    BadInput,
    Device,
    InputFile,
    Model,
    MoreModels,
    StripLines,
    Threads,
    all_options_but,
    models_and_file,
    refuse_options,
    task_of,
)
from rnncli.cli.score import BatchSize, Precision, ScorePrecision, load_pair_scorer, load_scorer
from rnncli.cli.streams import LineReader, LineWriter, OnBadInput, open_lines
from rnncli.errors import DataError, UsageError

if TYPE_CHECKING:
    from rnncli.evaluation.nbest import BestOfEach, Rescorer

EXAMPLES = """
printf '0\\tThe night was clear.\\t-4.1\\n0\\tThe night was cheer.\\t-4.0\\n' | rnncli rescore run
printf '0 ||| The night ||| lm= -1 ||| -2\\n' | rnncli rescore run --weight 0.3 --best
printf '0 ||| ein Kind ||| ||| -2\\n' | rnncli rescore translator --source sources.txt
"""

_LINES_READ = 256


def rescore(
    context: Context,
    model: Model = None,
    file: InputFile = None,
    more: MoreModels = None,
    source: Annotated[
        str | None,
        Option("--source", metavar="F", help="Of a model of translation: line N is that of id N."),
    ] = None,
    weight: Annotated[
        float,
        Option("--weight", metavar="X", min=0.0, max=1.0, help="The model's part of the score."),
    ] = 0.5,
    best: Annotated[bool, Option("--best", help="Write only the best line of each id.")] = False,
    format: Annotated[
        str, Option("--format", metavar="auto|moses|tsv", help="auto: by the first line.")
    ] = "auto",
    log_base: Annotated[
        str, Option("--log-base", metavar="e|2|10", help="Of the model's logarithms.")
    ] = "e",
    strip_lines: StripLines = None,
    batch_size: BatchSize = 32,
    precision: Precision = ScorePrecision.FLOAT64,
    on_bad_input: BadInput = OnBadInput.REPLACE,
    device: Device = "auto",
    threads: Threads = 0,
) -> None:
    """Add a model's log-probability to each line of n-best lists, and combine it with the score.

    Lines are 'id ||| text ||| features ||| score' (Moses) or 'id TAB text TAB score'; features and
    score may be missing. The new score is (1 - weight) * score + weight * log-probability; the
    log-probability itself is added as the feature rnncli= or as the last column. Order and ids stay
    as they are.

    Under a model of translation it is the text's given its source: the line of --source that the
    id names, from 0.
    """
    from rnncli.evaluation.nbest import BestOfEach, BySource, ByText, EntryScorer, Rescorer
    from rnncli.evaluation.score_formats import log_unit

    unit = log_unit(log_base)
    paths, name = models_and_file(model, file, more)
    by: EntryScorer
    if task_of(paths[0]) == "translate":
        refuse_options(context, all_options_but(context, "strip_lines"), "a model of translation")
        pair_scorer = load_pair_scorer(paths, batch_size, precision, device, threads)
        any_bytes = pair_scorer.reads_any_bytes
        by = BySource(pair_scorer, _sources(source, name, on_bad_input, any_bytes), str(source))
    else:
        refuse_options(context, all_options_but(context, "source"), "a language model")
        scorer = load_scorer(paths, strip_lines, batch_size, precision, device, threads)
        by, any_bytes = ByText(scorer), scorer.tokenizer.kind == "byte"
    rescorer = Rescorer(by, weight=weight, unit=unit, format=format)
    keep, writer = BestOfEach() if best else None, LineWriter()
    with open_lines(name, on_bad_input=on_bad_input, any_bytes=any_bytes) as reader:
        reader.repair = "repaired with U+FFFD or, where they are no entry, passed on as they are"
        for lines in reader.batches(_LINES_READ):
            writer.write(_rescored(reader, lines, rescorer, keep))
    writer.write(keep.finish() if keep else ())


def _sources(
    source: str | None, lists: str | None, on_bad_input: OnBadInput, any_bytes: bool
) -> list[str]:
    """The lines of ``source``, which is not to be where the n-best ``lists`` come from."""
    if source is None:
        raise UsageError(
            "--source: a model of translation needs the text that the n-best lists translate"
        )
    if source == "-" and lists in (None, "-"):
        raise UsageError("--source -: standard input has the n-best lists; give a file")
    with open_lines(source, on_bad_input=on_bad_input, any_bytes=any_bytes) as reader:
        return [line for lines in reader.batches(_LINES_READ) for line in lines]


def _rescored(
    reader: LineReader, lines: list[str], rescorer: Rescorer, keep: BestOfEach | None
) -> Iterator[str]:
    """A line for each of ``lines``, or those that ``keep`` lets go; a bad one as it is. Raises
    DataError with file:line for an entry of another source."""
    from rnncli.evaluation.nbest import NoSource

    for number, (line, one) in enumerate(
        zip(lines, rescorer(lines), strict=True), reader.lines - len(lines) + 1
    ):
        if isinstance(one, NoSource):
            raise DataError(f"{reader.name}:{number}: {one}")
        if isinstance(one, DataError):
            as_it_is = reader.bad_line(number, str(one), line) if line else ""
            if not keep:
                yield as_it_is
        elif keep:
            try:
                yield from keep.push(one)
            except DataError as error:
                raise DataError(f"{reader.name}:{number}: {error}") from None
        else:
            yield one.line

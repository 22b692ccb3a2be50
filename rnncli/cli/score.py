"""``rnncli score``: one line in, one log-probability out."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from enum import StrEnum
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
from rnncli.cli.pairs import SourceFile, TargetFile, open_pairs
from rnncli.cli.streams import LineWriter, OnBadInput, open_lines
from rnncli.errors import UsageError

if TYPE_CHECKING:
    from pathlib import Path

    from rnncli.evaluation.pair_scoring import PairScorer
    from rnncli.evaluation.score_formats import ScoreFormat
    from rnncli.evaluation.scoring import LineScore, LineScorer
    from rnncli.text.pairs import Pair

EXAMPLES = """
head -n 20 book.txt | rnncli score run
echo "The night was clear." | rnncli score run --level word
rnncli score run book.txt --format srilm --level summary
paste sources.txt targets.txt | rnncli score translator --level word
rnncli score translator --source sources.txt --target targets.txt --format json
"""

PAIR_FORMATS = ("plain", "json")
"""Those that say nothing of words without a source."""

_LINES_READ = 256


class ScorePrecision(StrEnum):
    FLOAT64 = "float64"
    FLOAT32 = "float32"


Precision = Annotated[
    ScorePrecision,
    Option("--precision", help="float32 is faster; its last digits may depend on the batch."),
]
BatchSize = Annotated[
    int, Option("--batch-size", metavar="N", min=1, help="Lines run at once; the text is the same.")
]


def score(
    context: Context,
    model: Model = None,
    file: InputFile = None,
    more: MoreModels = None,
    source: SourceFile = None,
    target: TargetFile = None,
    level: Annotated[
        str,
        Option("--level", metavar="sentence|word|summary", help="Sums, every token, or the whole."),
    ] = "sentence",
    format: Annotated[
        str, Option("--format", metavar="plain|srilm|kenlm|json", help="How it is written.")
    ] = "plain",
    log_base: Annotated[
        str | None,
        Option(
            "--log-base",
            metavar="e|2|10",
            help="Of the logarithms. Default: e; 10 for srilm and kenlm.",
            show_default=False,
        ),
    ] = None,
    strip_lines: StripLines = None,
    batch_size: BatchSize = 32,
    precision: Precision = ScorePrecision.FLOAT64,
    on_bad_input: BadInput = OnBadInput.REPLACE,
    device: Device = "auto",
    threads: Threads = 0,
) -> None:
    """Write the log-probability of each line under a model.

    Each line is scored by itself, its end included; a blank line has a log-probability, too. Words
    are the model's tokens. Several models are an ensemble: the mean of their probabilities.

    A model of translation scores pairs, 'source TAB target' on a line or --source and --target: the
    log-probability of the target given the source. A line that is no pair gives a blank one.
    Several are an ensemble as in translate: the mean of their log-probabilities, normalised.
    """
    from rnncli.evaluation.score_formats import score_format

    paths, name = models_and_file(model, file, more)
    if task_of(paths[0]) == "translate":
        refuse_options(context, all_options_but(context, "strip_lines"), "a model of translation")
        pair_scorer = load_pair_scorer(paths, batch_size, precision, device, threads)
        written = score_format(format, pair_scorer.tokenizer, level=level, log_base=log_base)
        if format not in PAIR_FORMATS:
            raise UsageError(
                f"--format {format}: for a language model; pairs are written as "
                f"{' or '.join(PAIR_FORMATS)}"
            )
        any_bytes = pair_scorer.reads_any_bytes
        with open_pairs(
            name, source, target, on_bad_input=on_bad_input, any_bytes=any_bytes
        ) as pairs:
            found = (_scores_of(pair_scorer, some) for some in pairs.batches(_LINES_READ))
            _write(found, written, pairs.name)
        return
    refuse_options(context, all_options_but(context, "source", "target"), "a language model")
    scorer = load_scorer(paths, strip_lines, batch_size, precision, device, threads)
    written = score_format(format, scorer.tokenizer, level=level, log_base=log_base)
    any_bytes = scorer.tokenizer.kind == "byte"
    with open_lines(name, on_bad_input=on_bad_input, any_bytes=any_bytes) as reader:
        _write((scorer(lines) for lines in reader.batches(_LINES_READ)), written, name or "-")


def _write(batches: Iterable[Sequence[LineScore | None]], written: ScoreFormat, name: str) -> None:
    """Write the scores of each batch as it comes, None for a line without one, and the end."""
    from rnncli.evaluation.score_formats import ScoreTotals

    totals, writer = ScoreTotals(), LineWriter()
    for scores in batches:
        totals.add(one for one in scores if one)
        writer.write(
            text for one in scores for text in (written.texts(one) if one else written.missing())
        )
    writer.write(written.end(totals, name))


def _scores_of(scorer: PairScorer, pairs: Sequence[Pair | None]) -> list[LineScore | None]:
    scores = iter(scorer([pair for pair in pairs if pair]))
    return [next(scores) if pair else None for pair in pairs]


def load_scorer(
    paths: list[Path],
    strip_lines: bool | None,
    batch_size: int,
    precision: ScorePrecision,
    device: str,
    threads: int,
) -> LineScorer:
    """The models in ``paths``, made ready to score lines as the options of the command say."""
    import torch

    from rnncli.evaluation.ensemble import load_ensemble
    from rnncli.evaluation.scoring import LineScorer
    from rnncli.runtime import prepare

    runtime = prepare(device, "float32", threads)
    models = load_ensemble(paths, runtime.device)
    trained = models[0].config.data.strip_lines
    return LineScorer(
        models,
        dtype=getattr(torch, precision),
        lines_at_once=batch_size,
        strip_lines=trained if strip_lines is None else strip_lines,
    )


def load_pair_scorer(
    paths: list[Path], batch_size: int, precision: ScorePrecision, device: str, threads: int
) -> PairScorer:
    """The models of translation in ``paths``, made ready to score pairs."""
    import torch

    from rnncli.evaluation.pair_scoring import PairScorer
    from rnncli.loading import load_translators
    from rnncli.runtime import prepare

    models = load_translators(paths, prepare(device, "float32", threads).device)
    return PairScorer(models, dtype=getattr(torch, precision), pairs_at_once=batch_size)

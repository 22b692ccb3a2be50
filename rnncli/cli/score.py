"""``rnncli score``: one line in, one log-probability out."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

from typer import Option

from rnncli.cli.models import (
    BadInput,
    Device,
    InputFile,
    Model,
    MoreModels,
    StripLines,
    Threads,
    models_and_file,
)
from rnncli.cli.streams import LineWriter, OnBadInput, open_lines

if TYPE_CHECKING:
    from pathlib import Path

    from rnncli.evaluation.scoring import LineScorer

EXAMPLES = """
head -n 20 book.txt | rnncli score run
echo "The night was clear." | rnncli score run --level word
rnncli score run book.txt --format srilm --level summary
"""

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
    model: Model = None,
    file: InputFile = None,
    more: MoreModels = None,
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
    """
    from rnncli.evaluation.score_formats import ScoreTotals, score_format

    paths, name = models_and_file(model, file, more)
    scorer = load_scorer(paths, strip_lines, batch_size, precision, device, threads)
    written = score_format(format, scorer.tokenizer, level=level, log_base=log_base)
    totals, writer = ScoreTotals(), LineWriter()
    any_bytes = scorer.tokenizer.kind == "byte"
    with open_lines(name, on_bad_input=on_bad_input, any_bytes=any_bytes) as reader:
        for lines in reader.batches(_LINES_READ):
            scores = scorer(lines)
            totals.add(scores)
            writer.write(text for one in scores for text in written.texts(one))
    writer.write(written.end(totals, name or "-"))


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

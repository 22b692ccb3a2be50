"""``rnncli evaluate``: perplexity and bits of a text under a model, in every unit."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from typer import Context, Option

from rnncli.cli.console import is_terminal, note, print_json, print_table
from rnncli.cli.evaluate_pairs import FOR_PAIRS, SHARED, PairOptions, evaluate_translation
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
from rnncli.cli.music import EVALUATE_OPTIONS, evaluate_music
from rnncli.cli.pairs import SourceFile, TargetFile
from rnncli.cli.streams import OnBadInput
from rnncli.errors import UsageError
from rnncli.sections import STATES

if TYPE_CHECKING:
    from rnncli.evaluation.cache import CacheConfig
    from rnncli.evaluation.dynamic import DynamicConfig
    from rnncli.evaluation.text import Evaluation
    from rnncli.loading import Loaded
    from rnncli.metrics import LanguageModelScores
    from rnncli.text.corpus import TokenStream

EXAMPLES = """
rnncli evaluate run book.txt
rnncli evaluate run book.txt --columns 16 --json
rnncli evaluate tunes music.txt
rnncli evaluate tunes music.txt --cache-window 400 --cache-theta 0.3 --cache-lambda 0.1
paste sources.txt targets.txt | rnncli evaluate translator --beam-size 1 --confidence
rnncli evaluate translator --source sources.txt --target targets.txt --against-output other.txt
tail -n 20 book.txt | rnncli evaluate run --cache-window 500 --cache-theta 0.3 --cache-lambda 0.1
"""


class Precision(StrEnum):
    FLOAT32 = "float32"
    BFLOAT16 = "bfloat16"


def evaluate(
    context: Context,
    model: Model = None,
    file: InputFile = None,
    more: MoreModels = None,
    as_json: Annotated[bool, Option("--json", help="Print one JSON object.")] = False,
    source: SourceFile = None,
    target: TargetFile = None,
    beam_size: Annotated[
        int, Option("--beam-size", metavar="N", min=1, help="Of translate; 1: greedy.")
    ] = 5,
    length_penalty: Annotated[
        float, Option("--length-penalty", metavar="X", min=0.0, help="Of translate; 0: none.")
    ] = 1.0,
    batch_size: Annotated[
        int, Option("--batch-size", metavar="N", min=1, help="Pairs run at once.")
    ] = 32,
    lowercase: Annotated[
        bool, Option("--lowercase", help="BLEU and chrF of lower-cased text.")
    ] = False,
    confidence: Annotated[
        bool, Option("--confidence", help="BLEU's and chrF's 95 % intervals, by resampling.")
    ] = False,
    against: Annotated[
        Path | None,
        Option("--against", metavar="MODEL", help="Test the difference from this translator."),
    ] = None,
    against_output: Annotated[
        str | None,
        Option("--against-output", metavar="F", help="The same from these translations."),
    ] = None,
    state: Annotated[
        str | None,
        Option(
            "--state",
            metavar="|".join(STATES),
            help="Carry the state from line to line, or reset it. Default: as in training.",
            show_default=False,
        ),
    ] = None,
    columns: Annotated[
        int,
        Option("--columns", metavar="N", min=1, help="Cut into N parallel streams: faster."),
    ] = 1,
    strip_lines: StripLines = None,
    cache_window: Annotated[
        int, Option("--cache-window", metavar="N", min=0, help="Continuous cache of N tokens.")
    ] = 0,
    cache_theta: Annotated[
        float | None, Option("--cache-theta", metavar="X", help="Its flatness; else 0.3.")
    ] = None,
    cache_lambda: Annotated[
        float | None, Option("--cache-lambda", metavar="X", help="Its weight; else 0.1.")
    ] = None,
    dynamic: Annotated[
        bool, Option("--dynamic", help="Dynamic evaluation: learn from what was predicted.")
    ] = False,
    dynamic_lr: Annotated[
        float | None,
        Option("--dynamic-lr", metavar="X", help="Its rate; else 0.1, or 5e-5 with statistics."),
    ] = None,
    dynamic_decay: Annotated[
        float | None,
        Option(
            "--dynamic-decay", metavar="X", help="Towards the trained weights; else 0 or 0.002."
        ),
    ] = None,
    dynamic_segment: Annotated[
        int | None, Option("--dynamic-segment", metavar="N", help="Tokens a step; else 5.")
    ] = None,
    dynamic_train: Annotated[
        str | None,
        Option(
            "--dynamic-train", metavar="FILE", help="Training text, best all, for its statistics."
        ),
    ] = None,
    mc_dropout: Annotated[
        int, Option("--mc-dropout", metavar="N", min=0, help="Also the mean over N dropout masks.")
    ] = 0,
    seed: Annotated[
        int, Option("--seed", metavar="N", min=0, max=2**63 - 1, help="Draws those masks.")
    ] = 1,
    precision: Annotated[
        Precision, Option("--precision", help="Of the operands of products.")
    ] = Precision.FLOAT32,
    on_bad_input: BadInput = OnBadInput.REPLACE,
    device: Device = "auto",
    threads: Threads = 0,
) -> None:
    """Measure a model on a text: perplexity, bits per character and per byte.

    Every token of the text is predicted once, line ends included. Figures of models that adapt to
    the text (cache, dynamic evaluation) or are averaged over dropout masks stand apart from the
    static ones. Several models are an ensemble: the mean of their probabilities.

    A model of translation is measured in BLEU and chrF (sacreBLEU's), on a table of pairs or on
    --source and --target, and by the perplexity of the given targets; several are an ensemble as
    in translate, the mean of their log-probabilities. --against another system is
    a paired bootstrap test: whether the difference is more than chance.

    A model of music is measured in nats a frame, on one piece a line; of the options it takes
    --model, --json, --precision, --device, --threads and those of the cache, in which a piece's
    frames are the tokens. Several are an ensemble: the chance of each key is the mean of its
    chances.
    """
    from rnncli.evaluation.ensemble import load_ensemble
    from rnncli.evaluation.text import Extras, evaluate_text
    from rnncli.nn.stack import Run
    from rnncli.runtime import prepare

    paths, name = models_and_file(model, file, more)
    task = task_of(paths[0])
    if task == "translate":
        refuse_options(context, FOR_PAIRS | SHARED, "a model of translation")
        pairs = PairOptions(
            source=source, target=target, beam_size=beam_size, length_penalty=length_penalty,
            batch_size=batch_size, lowercase=lowercase, confidence=confidence, against=against,
            against_output=against_output,
        )  # fmt: skip
        evaluate_translation(
            paths, name, pairs, as_json=as_json, on_bad_input=on_bad_input, device=device,
            threads=threads,
        )  # fmt: skip
        return
    if task == "music":
        refuse_options(context, EVALUATE_OPTIONS, "a model of music")
        evaluate_music(
            paths, name or "-", as_json=as_json, precision=precision, device=device,
            threads=threads, cache=_cache(cache_window, cache_theta, cache_lambda),
        )  # fmt: skip
        return
    refuse_options(context, all_options_but(context, *FOR_PAIRS), "a language model")
    cache = _cache(cache_window, cache_theta, cache_lambda)
    if dynamic_train == "-" and name in (None, "-"):
        raise UsageError("--dynamic-train -: standard input has the text that is evaluated; a file")
    adaptation = _dynamic(dynamic, dynamic_lr, dynamic_decay, dynamic_segment, dynamic_train)
    runtime = prepare(device, precision, threads)
    models = load_ensemble(paths, runtime.device)
    data = models[0].config.data
    strip = data.strip_lines if strip_lines is None else strip_lines
    texts = [_read(models[0], n, strip, on_bad_input) for n in (name or "-", dynamic_train) if n]
    with _progress() as progress:
        result = evaluate_text(
            models,
            texts[0],
            state=state or models[0].config.training.state,
            columns=columns,
            run_as=Run(dtype=runtime.dtype),
            extras=Extras(cache, adaptation, texts[1] if dynamic_train else None, mc_dropout, seed),
            notes=("lines:stripped",) if strip else (),
            progress=progress,
        )
    if as_json:
        print_json(result.to_dict())
    else:
        title = f"{name or 'standard input'} under {', '.join(map(str, paths))}"
        print_table(_rows(result), title)


def _cache(window: int, theta: float | None, weight: float | None) -> CacheConfig | None:
    from rnncli.evaluation.cache import CacheConfig

    given = _given(theta=theta, weight=weight)
    if window == 0 and given:
        raise UsageError("--cache-theta and --cache-lambda need --cache-window N")
    return CacheConfig(window, **given) if window else None


def _dynamic(
    wanted: bool,
    lr: float | None,
    decay: float | None,
    segment: int | None,
    train: str | None,
) -> DynamicConfig | None:
    from rnncli.evaluation.dynamic import DynamicConfig

    given = _given(lr=lr, decay=decay, segment=segment)
    if not wanted and (given or train):
        raise UsageError("--dynamic-lr, -decay, -segment and -train need --dynamic")
    return DynamicConfig(**given) if wanted else None


def _given(**values: Any) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}


def _read(model: Loaded, name: str, strip_lines: bool, on_bad_input: OnBadInput) -> TokenStream:
    """The text of a file as the model's tokens; bad lines are counted on stderr."""
    from rnncli.text.corpus import encode_file
    from rnncli.text.music import begins_like_music

    if begins_like_music(name):
        note(
            f"{name}: looks like music; {model.path} is a language model and reads it as text "
            "(--task music trains a model of music)"
        )
    text = encode_file(
        model.tokenizer, name, strip_lines=strip_lines, on_bad_input=str(on_bad_input)
    )
    if text.counts.bad_lines:
        what = "left empty" if on_bad_input == OnBadInput.EMPTY else "repaired with U+FFFD"
        note(f"{name}: {text.counts.bad_lines:,} lines were not UTF-8 and are {what}")
    return text


@contextmanager
def _progress() -> Iterator[Callable[[int, int], None] | None]:
    """What shows on a terminal how much is done; None where stderr is none."""
    if not is_terminal(sys.stderr):
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    done = TextColumn("{task.completed:,.0f} of {task.total:,.0f} tokens")
    columns = (BarColumn(), done, TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=1)
        yield lambda tokens, total: bar.update(task, completed=tokens, total=total)


def _rows(result: Evaluation) -> Iterator[tuple[str, str]]:
    scores, counts = result.scores, result.scores.counts
    yield from _figures(scores)
    yield "perplexity without OOV", _number(scores.perplexity_without_oov)
    yield "nats", f"{scores.nats:,.2f}"
    yield "tokens", f"{counts.tokens:,} ({scores.tokenizer}; line ends and unknown ones counted)"
    yield "OOV", f"{counts.oov:,} ({counts.oov / counts.tokens:.2%} of the tokens)"
    yield "words", f"{counts.words:,}, line ends counted"
    yield "characters", f"{counts.characters:,}, line ends counted"
    yield "bytes", f"{counts.bytes:,}, line ends counted"
    yield "state", _state(scores.state, result.columns)
    yield "signature", scores.signature
    for name, apart in result.apart.items():
        yield "", ""
        label = _APART[name]
        for figure, value in _figures(apart):
            yield f"{label}: {figure}", value
        yield f"{label}: signature", apart.signature


_APART = {"cache": "with cache", "dynamic": "dynamic", "mc_dropout": "MC dropout"}


def _figures(scores: LanguageModelScores) -> Iterator[tuple[str, str]]:
    yield "perplexity", _number(scores.perplexity)
    yield "word perplexity", _number(scores.word_perplexity)
    yield "bits per character", _number(scores.bits_per_character)
    yield "bits per byte", _number(scores.bits_per_byte)


def _number(value: float) -> str:
    return f"{value:,.4f}"


def _state(state: str, columns: int) -> str:
    if state == "reset":
        return "reset at every line"
    if columns == 1:
        return "carried from the first token to the last"
    return f"carried in each of {columns} columns"

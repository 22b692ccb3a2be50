"""What ``evaluate`` does with a model of translation."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rnncli.cli.console import note, print_json, print_table
from rnncli.cli.pairs import open_pairs
from rnncli.cli.streams import OnBadInput, open_lines
from rnncli.errors import DataError, UsageError

if TYPE_CHECKING:
    from rnncli.evaluation.significance import Estimate
    from rnncli.evaluation.translation import Quality
    from rnncli.loading import LoadedTranslator
    from rnncli.metrics import PairScores, Score
    from rnncli.text.pairs import Pair

FOR_PAIRS = frozenset(
    {"source", "target", "beam_size", "length_penalty", "batch_size", "lowercase", "confidence",
     "against", "against_output"}
)  # fmt: skip
"""Options of ``evaluate`` that no other model has."""

SHARED = frozenset({"model", "file", "more", "as_json", "on_bad_input", "device", "threads"})

_LINES_READ = 256


@dataclass(frozen=True)
class PairOptions:
    """The options of ``FOR_PAIRS``, as ``evaluate`` has them."""

    source: str | None
    target: str | None
    beam_size: int
    length_penalty: float
    batch_size: int
    lowercase: bool
    confidence: bool
    against: Path | None
    against_output: str | None


def evaluate_translation(
    models: list[Path],
    table: str | None,
    options: PairOptions,
    *,
    as_json: bool,
    on_bad_input: OnBadInput,
    device: str,
    threads: int,
) -> None:
    """Translate the sources of a table, or of a file, and print what the translations are worth."""
    from rnncli.evaluation.translation import measure
    from rnncli.loading import load_translators
    from rnncli.runtime import prepare

    if options.against is not None and options.against_output is not None:
        raise UsageError("--against and --against-output: give one of them")
    pairs_at = [table or "-"] if options.source is None else [options.source, options.target]
    if options.against_output == "-" and "-" in pairs_at:
        raise UsageError("--against-output -: standard input has the pairs; give a file")
    where = prepare(device, "float32", threads).device
    loaded = load_translators(models, where)
    other = [] if options.against is None else load_translators([options.against], where)
    with open_pairs(
        table, options.source, options.target, on_bad_input=on_bad_input, strict=True
    ) as reader:
        lines = [pair for some in reader.batches(_LINES_READ) for pair in some]
    pairs = [pair for pair in lines if pair]
    if not pairs:
        raise DataError(f"{reader.name}: no pairs to translate")
    given = options.against_output
    outputs = []
    if given is not None:
        each = _lines(given, len(lines), reader.name, on_bad_input)
        outputs = [[one for one, pair in zip(each, lines, strict=True) if pair]]
    systems = [*outputs, *(_translations(one, pairs, options) for one in (other, loaded) if one)]
    *baseline, quality = measure(
        systems,
        [target for _, target in pairs],
        lowercase=options.lowercase,
        confidence=options.confidence,
    )
    references = _references(loaded, pairs, options.batch_size)
    if not as_json:
        rows = _rows(quality, references, len(pairs), options, *baseline)
        print_table(rows, f"{reader.name} under {', '.join(map(str, models))}")
        return
    values = {
        **quality.to_dict(), **references.to_dict(), "pairs": len(pairs),
        "beam_size": options.beam_size, "length_penalty": options.length_penalty,
    }  # fmt: skip
    if baseline:
        values["against"] = {"name": _rival(options), **baseline[0].to_dict()}
    print_json(values)


def _translations(
    models: Sequence[LoadedTranslator], pairs: Sequence[Pair], options: PairOptions
) -> list[str]:
    import torch

    from rnncli.decoding.search_options import SearchOptions
    from rnncli.translation import translator_of

    search = SearchOptions(options.beam_size, options.batch_size, options.length_penalty)
    translator = translator_of(models, search, workers=torch.get_num_threads())
    found = translator([source for source, _ in pairs])
    cut = sum(bool(some) and not some[0].finished for some in found)
    if cut:
        note(f"{cut:,} of {len(pairs):,} translations were cut at their greatest length")
    return [some[0].text if some else "" for some in found]


def _references(
    models: Sequence[LoadedTranslator], pairs: Sequence[Pair], batch_size: int
) -> PairScores:
    """What the given targets cost under the models, in float32."""
    import torch

    from rnncli.evaluation.pair_scoring import PairScorer
    from rnncli.metrics import PairScores

    scorer = PairScorer(models, dtype=torch.float32, pairs_at_once=batch_size)
    scores = scorer(pairs)
    return PairScores(
        nats=sum(one.total_nats for one in scores),
        tokens=sum(len(one.tokens) for one in scores),
        oov=sum(one.oov for one in scores),
        tokenizer=scorer.tokenizer.kind,
        notes=(f"models:{len(models)}",) if len(models) > 1 else (),
    )


def _lines(name: str, count: int, pairs: str, on_bad_input: OnBadInput) -> list[str]:
    """The translations in the file ``name``. Raises DataError when they are not ``count``."""
    with open_lines(name, on_bad_input=on_bad_input) as reader:
        lines = [line for some in reader.batches(_LINES_READ) for line in some]
    if len(lines) != count:
        raise DataError(
            f"--against-output: {reader.name} has {len(lines):,} lines for the {count:,} of "
            f"{pairs}; it must have one translation for each"
        )
    return lines


def _rival(options: PairOptions) -> str:
    return str(options.against or options.against_output)


def _rows(
    quality: Quality,
    references: PairScores,
    pairs: int,
    options: PairOptions,
    baseline: Quality | None = None,
) -> Iterator[tuple[str, str]]:
    yield from _figures(quality)
    yield "reference perplexity", f"{references.perplexity:,.4f} a token"
    yield "nats", f"{references.nats:,.2f}"
    yield "tokens", f"{references.tokens:,} ({references.tokenizer}; ends and unknown ones counted)"
    yield "OOV", f"{references.oov:,}"
    yield "pairs", f"{pairs:,}"
    yield "beam size", f"{options.beam_size}"
    yield "length penalty", f"{options.length_penalty:g}"
    yield "signature", quality.bleu.signature
    yield "chrF's signature", quality.chrf.signature
    yield "perplexity's signature", references.signature
    if baseline is not None:
        yield "", ""
        yield "against", _rival(options)
        for name, value in _figures(baseline):
            yield f"against: {name}", value
        for name, one in zip(("BLEU", "chrF"), quality.estimates or (), strict=True):
            yield f"p-value of {name}", f"{one.p_value:.4f} (paired bootstrap resampling)"


def _figures(quality: Quality) -> Iterator[tuple[str, str]]:
    bleu, chrf = quality.estimates or (None, None)
    yield "BLEU", _score(quality.bleu, bleu)
    yield "chrF", _score(quality.chrf, chrf)
    yield "exact match", f"{quality.exact_match:.2%}"
    yield "word error rate", f"{quality.token_error_rate:.2%}"


def _score(score: Score, estimate: Estimate | None) -> str:
    """As sacreBLEU prints it."""
    if estimate is None:
        return f"{score.value:.2f}"
    return f"{score.value:.2f} (μ = {estimate.mean:.2f} ± {estimate.half_width:.2f})"

"""``rnncli translate``: one line in, its translation out."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from typer import Context, Option

from rnncli.cli.decoding_options import Seed, Temperature, TopK, TopP, Weights
from rnncli.cli.models import (
    BadInput,
    Device,
    InputFile,
    Model,
    MoreModels,
    Threads,
    models_and_file,
)
from rnncli.cli.streams import LineReader, LineWriter, OnBadInput, open_lines
from rnncli.cli.translations import TranslationFormat, Warnings, read_requests, renderer
from rnncli.errors import UsageError

if TYPE_CHECKING:
    from rnncli.cli.attention_map import AttentionMaps
    from rnncli.cli.translations import Request
    from rnncli.decoding.search_options import SearchOptions
    from rnncli.loading import LoadedTranslator
    from rnncli.translation import Translated, Translator

EXAMPLES = """
echo "a child will work ." | rnncli translate translator
rnncli translate translator sources.txt --beam-size 1 --alignments sources.align
rnncli translate translator sources.txt --n-best 2 --json
rnncli translate translator sources.txt --n-best 5 --format moses > list.txt
rnncli translate translator sources.txt --sample --temperature 0.7 --seed 1
echo "a child will work ." | rnncli translate translator --explain --explain-svg attention.svg
"""

_BATCHES_READ = 16
"""So many batches of lines are read at once where they come fast: enough of each length."""

_OF_SAMPLING = ("temperature", "top_k", "top_p", "seed")
_OF_BEAMS = (
    "beam_size", "patience", "length_penalty", "length_normalization", "coverage_penalty",
)  # fmt: skip


def translate(
    context: Context,
    model: Model = None,
    file: InputFile = None,
    more: MoreModels = None,
    beam_size: Annotated[
        int, Option("--beam-size", metavar="N", min=1, help="Hypotheses kept; 1: greedy.")
    ] = 5,
    patience: Annotated[
        float,
        Option(
            "--patience",
            metavar="X",
            help="Over after X times --beam-size ends; inf: when none can win.",
        ),
    ] = 1.0,
    n_best: Annotated[
        int, Option("--n-best", metavar="N", min=1, help="Translations a line; not as plain text.")
    ] = 1,
    length_penalty: Annotated[
        float,
        Option("--length-penalty", metavar="X", min=0.0, help="Power of the length; 0: none."),
    ] = 1.0,
    length_normalization: Annotated[
        str,
        Option("--length-normalization", metavar="wu|avg", help="(5 + length) / 6, or the length."),
    ] = "wu",
    coverage_penalty: Annotated[
        float,
        Option("--coverage-penalty", metavar="X", min=0.0, help="Beta of Wu et al. 2016, eq. 14."),
    ] = 0.0,
    min_new_tokens: Annotated[
        int, Option("--min-new-tokens", metavar="N", min=0, help="Shortest translation.")
    ] = 0,
    max_new_tokens: Annotated[
        int | None,
        Option(
            "--max-new-tokens",
            metavar="N",
            min=1,
            show_default=False,
            help="Longest translation. Default: 500, or what training's targets suggest.",
        ),
    ] = None,
    max_ratio: Annotated[
        float | None,
        Option(
            "--max-ratio",
            metavar="X",
            min=0.0,
            show_default=False,
            help="Nor longer than X times its source (default: 2, or as in training) ...",
        ),
    ] = None,
    max_extra: Annotated[
        int, Option("--max-extra", metavar="N", min=0, help="... and N tokens more.")
    ] = 10,
    no_repeat_ngram: Annotated[
        int,
        Option("--no-repeat-ngram", metavar="N", min=0, help="No N tokens twice; 0: they may."),
    ] = 0,
    prefix: Annotated[
        str, Option("--prefix", metavar="TEXT", help="Every translation begins with TEXT.")
    ] = "",
    replace_unk: Annotated[
        bool, Option("--replace-unk", help="For <unk> the source word that was looked at most.")
    ] = False,
    sample: Annotated[
        bool, Option("--sample", help="Draw every token instead of searching for the best.")
    ] = False,
    temperature: Temperature = 1.0,
    top_k: TopK = 0,
    top_p: TopP = 1.0,
    seed: Seed = None,
    batch_size: Annotated[
        int, Option("--batch-size", metavar="N", min=1, help="Lines translated at once.")
    ] = 32,
    weights: Weights = "float32",
    format: Annotated[
        TranslationFormat, Option("--format", help="moses and tsv: n-best lists; ids from 0.")
    ] = TranslationFormat.TEXT,
    as_json: Annotated[bool, Option("--json", help="One JSON object for each line.")] = False,
    explain: Annotated[
        bool, Option("--explain", help="Draw on stderr where each translation looked.")
    ] = False,
    explain_svg: Annotated[
        str | None, Option("--explain-svg", metavar="FILE", help="The same as a picture.")
    ] = None,
    json_input: Annotated[
        bool,
        Option("--json-input", help='Lines are JSON objects: "source", perhaps "prefix".'),
    ] = False,
    alignments: Annotated[
        str | None,
        Option("--alignments", metavar="FILE", help="Also the words aligned: 0-0 1-2 ..."),
    ] = None,
    on_bad_input: BadInput = OnBadInput.REPLACE,
    device: Device = "auto",
    threads: Threads = 0,
) -> None:
    """Translate line by line: exactly one line out for each line in, blank for blank.

    A line typed at a terminal is answered at once, a fast pipe is worked through in batches.
    Several models (-m) with one vocabulary are an ensemble.

    --json writes each translation with its scores, whole, by token and by word, and its alignment
    if the model attends; with --json-input all other fields of a line's object are passed on. With
    --format moses or tsv, for rnncli rescore, a line in has up to --n-best lines out.
    """
    from rnncli.decoding.filters import Filters
    from rnncli.decoding.search_options import SearchOptions
    from rnncli.loading import load_translators
    from rnncli.runtime import prepare
    from rnncli.translation import translator_of

    if as_json and format not in (TranslationFormat.TEXT, TranslationFormat.JSON):
        raise UsageError(f"--json and --format {format}: give one of them")
    if as_json:
        format = TranslationFormat.JSON
    _check(context, n_best, beam_size, format, alignments, sample)
    options = SearchOptions(
        beam_size=beam_size, batch_size=batch_size, length_penalty=length_penalty,
        max_ratio=max_ratio, max_extra=max_extra, max_new_tokens=max_new_tokens,
        min_new_tokens=min_new_tokens, length_normalization=length_normalization,
        coverage_penalty=coverage_penalty, no_repeat_ngram=no_repeat_ngram, patience=patience,
        n_best=n_best,
        sampling=Filters(temperature, top_k, top_p) if sample else None,
        seed=secrets.randbits(63) if seed is None else seed,
        align=format == TranslationFormat.JSON or alignments is not None, replace_unk=replace_unk,
    )  # fmt: skip
    paths, name = models_and_file(model, file, more)
    runtime = prepare(device, "float32", threads)
    models = load_translators(paths, runtime.device)
    translator = translator_of(models, options, weights=weights, workers=runtime.threads)
    if alignments is not None and not translator.attends:
        raise UsageError(f"--alignments: {paths[0]} has no attention, so nothing aligns its words")
    maps = None
    if explain or explain_svg is not None:
        from rnncli.cli.attention_map import AttentionMaps

        maps = AttentionMaps(models, explain, explain_svg)
    longest = _longest(models[0])
    with open_lines(name, on_bad_input=on_bad_input) as reader:
        aligned = _run(reader, translator, options, format, json_input, prefix, longest, maps)
        if alignments is None:
            for _ in aligned:
                pass
        else:
            from rnncli.files import write_atomically

            write_atomically(Path(alignments), aligned)
    if maps:
        maps.finish()


def _check(
    context: Context,
    n_best: int,
    beam_size: int,
    format: TranslationFormat,
    alignments: str | None,
    sample: bool,
) -> None:
    """Raise UsageError for options that do not go together."""
    if n_best > 1 and format == TranslationFormat.TEXT:
        raise UsageError(
            "--n-best: needs --json, or --format moses or tsv, since a line in is a line out"
        )
    if n_best > beam_size and not sample:
        raise UsageError(f"--n-best {n_best}: a beam of {beam_size} has no more; raise --beam-size")
    if alignments == "-":
        raise UsageError("--alignments -: standard output has the translations; give a file")
    for name in _OF_BEAMS if sample else _OF_SAMPLING:
        source = context.get_parameter_source(name)
        if source is not None and source.name == "COMMANDLINE":
            what = "samples are drawn, not searched for" if sample else "it needs --sample"
            raise UsageError(f"--{name.replace('_', '-')}: {what}")


def _run(
    reader: LineReader,
    translator: Translator,
    options: SearchOptions,
    format: TranslationFormat,
    json_input: bool,
    prefix: str,
    longest: tuple[int, str],
    maps: AttentionMaps | None,
) -> Iterator[bytes]:
    """Translate all lines; what the alignments' file gets for them as they are written."""
    writer, warnings, write = LineWriter(), Warnings(), renderer(format)
    prefix = " ".join(prefix.split("\n"))
    if json_input:
        reader.repair = "repaired with U+FFFD or, where they are no request, left empty"
    most = options.batch_size * _BATCHES_READ
    for requests in read_requests(reader, most, prefix, as_json=json_input):
        answers = translator(
            [request.source for request in requests],
            prefixes=[request.prefix for request in requests],
            first=reader.lines - len(requests),
        )
        pairs = list(zip(requests, answers, strict=True))
        for request, found in pairs:
            _warn(warnings, translator, request, found, longest)
            if found and maps:
                maps.add(request.source, found[0])
        writer.write(line for request, found in pairs for line in write(request, found))
        if options.align:
            yield "".join(_pharaoh(found) for found in answers).encode()
    warnings.finish()


def _pharaoh(found: list[Translated]) -> str:
    from rnncli.decoding.alignment import pharaoh

    return (pharaoh(found[0].alignment or ()) if found else "") + "\n"


def _longest(model: LoadedTranslator) -> tuple[int, str]:
    """The most tokens of a source that needs no warning, 0 if that is not known, and the
    warning."""
    if most := model.config.data.max_length:
        return most, f"longer than any line in training ({most} tokens)"
    most = model.header.longest_source
    return 2 * most, f"more than twice as long as any line in training ({most} tokens)"


def _warn(
    warnings: Warnings,
    translator: Translator,
    request: Request,
    found: list[Translated],
    longest: tuple[int, str],
) -> None:
    """``longest``: as ``_longest`` gives it."""
    most, too_long = longest
    if found and not found[0].finished:
        warnings.about(request, "the translation was cut at its greatest length")
    if translator.knows_nothing_of(request.source):
        warnings.about(request, "nothing in it was seen in training")
    elif most and translator.source_length(request.source) > most:
        warnings.about(request, too_long)

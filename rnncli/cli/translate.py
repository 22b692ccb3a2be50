"""``rnncli translate``: one line in, its translation out."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

from typer import Option

from rnncli.cli.console import note
from rnncli.cli.models import (
    BadInput,
    Device,
    InputFile,
    Model,
    MoreModels,
    Threads,
    models_and_file,
)
from rnncli.cli.streams import LineWriter, OnBadInput, open_lines

if TYPE_CHECKING:
    from rnncli.cli.attention_map import AttentionMaps
    from rnncli.translation import Translated, Translator

EXAMPLES = """
echo "a child will work ." | rnncli translate translator
rnncli translate translator sources.txt --beam-size 1
rnncli translate translator sources.txt --n-best 2 --json
echo "a child will work ." | rnncli translate translator --explain --explain-svg attention.svg
"""


def translate(
    model: Model = None,
    file: InputFile = None,
    more: MoreModels = None,
    beam_size: Annotated[
        int, Option("--beam-size", metavar="N", min=1, help="Hypotheses kept; 1: greedy.")
    ] = 5,
    n_best: Annotated[
        int, Option("--n-best", metavar="N", min=1, help="With --json: translations a line.")
    ] = 1,
    length_penalty: Annotated[
        float, Option("--length-penalty", metavar="X", min=0.0, help="Wu et al. 2016; 0: none.")
    ] = 1.0,
    max_new_tokens: Annotated[
        int, Option("--max-new-tokens", metavar="N", min=1, help="Longest translation.")
    ] = 500,
    batch_size: Annotated[
        int, Option("--batch-size", metavar="N", min=1, help="Lines translated at once.")
    ] = 32,
    as_json: Annotated[bool, Option("--json", help="One JSON object for each line.")] = False,
    explain: Annotated[
        bool, Option("--explain", help="Draw on stderr where each translation looked.")
    ] = False,
    explain_svg: Annotated[
        str | None, Option("--explain-svg", metavar="FILE", help="The same as a picture.")
    ] = None,
    on_bad_input: BadInput = OnBadInput.REPLACE,
    device: Device = "auto",
    threads: Threads = 0,
) -> None:
    """Translate line by line: exactly one line out for each line in, blank for blank.

    A line typed at a terminal is answered at once, a fast pipe is worked through in batches.
    Several models (-m) with one vocabulary are an ensemble.
    """
    from rnncli.errors import UsageError
    from rnncli.loading import load_translators
    from rnncli.runtime import prepare
    from rnncli.translation import SearchOptions, Translator

    if n_best > 1 and not as_json:
        raise UsageError("--n-best: needs --json, since a line in is a line out")
    if n_best > beam_size:
        raise UsageError(f"--n-best {n_best}: a beam of {beam_size} has no more; raise --beam-size")
    paths, name = models_and_file(model, file, more)
    runtime = prepare(device, "float32", threads)
    models = load_translators(paths, runtime.device)
    options = SearchOptions(beam_size, batch_size, length_penalty, max_new_tokens=max_new_tokens)
    translator = Translator(
        [one.model for one in models], models[0].tokenizer, options,
        reverse_source=models[0].config.model.reverse_source,
        source_tokenizer=models[0].source_tokenizer,
    )  # fmt: skip
    maps = None
    if explain or explain_svg is not None:
        from rnncli.cli.attention_map import AttentionMaps

        maps = AttentionMaps(models, explain, explain_svg)
    writer = LineWriter()
    with open_lines(name, on_bad_input=on_bad_input) as reader:
        for lines in reader.batches(batch_size * 8):
            writer.write(_answers(translator, lines, n_best, as_json, maps))
    if maps:
        maps.finish()


def _answers(
    translator: Translator,
    lines: list[str],
    n_best: int,
    as_json: bool,
    maps: AttentionMaps | None = None,
) -> Iterator[str]:
    import json

    for line, found in zip(lines, translator(lines), strict=True):
        if found and not found[0].finished:
            note(f"a translation was cut at its greatest length: {line[:60]!r}")
        if found and maps:
            maps.add(line, found[0])
        if not as_json:
            yield found[0].text if found else ""
            continue
        yield json.dumps(
            {"source": line, "translations": [_plain(one) for one in found[:n_best]]},
            ensure_ascii=False,
        )


def _plain(one: Translated) -> dict[str, object]:
    # Rounded: the last digits of a line depend on those that it is run with.
    return {"text": one.text, "logprob": round(one.logprob, 4), "score": round(one.score, 4)}

"""What ``evaluate`` does with a model of translation."""

from __future__ import annotations

from pathlib import Path

from rnncli.cli.console import print_json, print_table
from rnncli.errors import DataError, UsageError

TRANSLATION_OPTIONS = frozenset(
    {"model", "file", "more", "source", "target", "as_json", "device", "threads"}
)
BEAM_SIZE = 5


def evaluate_translation(
    models: list[Path],
    table: str | None,
    source: str | None,
    target: str | None,
    *,
    as_json: bool,
    device: str,
    threads: int,
) -> None:
    """Translate the sources of a table, or of a file, and print what the translations are worth."""
    from rnncli.evaluation.translation import bleu_and_chrf, exact_match, token_error_rate
    from rnncli.loading import load_translators
    from rnncli.runtime import prepare
    from rnncli.text.pairs import PairFiles, read_pairs
    from rnncli.translation import SearchOptions, Translator

    if (source is None) != (target is None):
        raise UsageError("--source and --target: give both, or a table of pairs")
    if source is not None and table is not None:
        raise UsageError("give a table of pairs, or --source and --target, not both")
    runtime = prepare(device, "float32", threads)
    loaded = load_translators(models, runtime.device)
    files = PairFiles(table or (None if source else "-"), source, target)
    pairs = list(read_pairs(files))
    if not pairs:
        raise DataError(f"{files.name}: no pairs to translate")
    translator = Translator(
        [one.model for one in loaded], loaded[0].tokenizer, SearchOptions(beam_size=BEAM_SIZE),
        reverse_source=loaded[0].config.model.reverse_source,
        source_tokenizer=loaded[0].source_tokenizer,
    )  # fmt: skip
    found = translator.best([left for left, _ in pairs])
    references = [right for _, right in pairs]
    bleu, chrf = bleu_and_chrf(found, references)
    exact, errors = exact_match(found, references), token_error_rate(found, references)
    if as_json:
        print_json(
            {"bleu": bleu.value, "chrf": chrf.value, "exact_match": exact,
             "token_error_rate": errors, "pairs": len(pairs),
             "beam_size": BEAM_SIZE, "signature": bleu.signature,
             "chrf_signature": chrf.signature}
        )  # fmt: skip
        return
    rows = [
        ("BLEU", f"{bleu.value:.2f}"),
        ("chrF", f"{chrf.value:.2f}"),
        ("exact match", f"{exact:.2%}"),
        ("word error rate", f"{errors:.2%}"),
        ("pairs", f"{len(pairs):,}"),
        ("beam size", f"{BEAM_SIZE}"),
        ("signature", bleu.signature),
        ("chrF's signature", chrf.signature),
    ]
    print_table(rows, f"{files.name} under {', '.join(map(str, models))}")

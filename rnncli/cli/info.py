"""``rnncli info``: what a model's file says about itself, from its header alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from typer import Argument, Option

from rnncli.checkpoint import NO_TOKENIZER
from rnncli.cli.console import print_json, print_table

if TYPE_CHECKING:
    from rnncli.checkpoint import Header

EXAMPLES = """
rnncli info run
rnncli info run/model.safetensors --json
"""

OF_WORDS = ("output", "adaptive cutoffs")
"""Settings of a model that mean nothing where there is no vocabulary, but for the keys of music."""


def info(
    model: Annotated[
        Path,
        Argument(metavar="MODEL", help="A model's file or a run's folder.", show_default=False),
    ],
    as_json: Annotated[bool, Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Tell what is in a model's file. The weights are not read."""
    from rnncli.checkpoint import read_header

    header = read_header(model)
    if as_json:
        print_json(_values(header))
    else:
        print_table(_rows(header), title=str(model))


def _values(header: Header) -> dict[str, Any]:
    return {
        "task": header.config.get("task"),
        "parameters": header.parameters,
        "bytes": header.bytes,
        "format": header.format,
        "rnncli_version": header.rnncli_version,
        "weights_sha256": header.weights_sha256,
        "tokenizer": {"kind": header.tokenizer_kind, "vocab_size": header.vocab_size},
        "source_tokenizer": {
            "kind": header.source_tokenizer_kind,
            "vocab_size": header.source_vocab_size,
        },
        "config": header.config,
        "scores": header.scores,
        "provenance": header.provenance,
        "tensors": {
            name: {"dtype": dtype, "shape": list(shape)}
            for name, (dtype, shape) in header.tensors.items()
        },
    }


def _rows(header: Header) -> Iterator[tuple[str, str]]:
    yield "task", str(header.config.get("task"))
    reads_text = header.tokenizer_kind != NO_TOKENIZER
    for name, value in _flat("", header.config.get("model", {})):
        if reads_text or name not in OF_WORDS or value == "nade":
            yield name, value
    yield "parameters", f"{header.parameters:,}"
    yield "types", ", ".join(sorted({dtype for dtype, _ in header.tensors.values()}))
    if reads_text:
        yield "tokenizer", f"{header.tokenizer_kind}, {header.vocab_size:,} tokens"
    if header.source_tokenizer_kind != NO_TOKENIZER:
        source = f"{header.source_tokenizer_kind}, {header.source_vocab_size:,} tokens"
        yield "source tokenizer", source
    yield from _flat("", header.scores)
    yield from _flat("", header.provenance)
    yield "weights sha256", header.weights_sha256
    yield "file", f"{header.bytes:,} bytes, format {header.format}, rnncli {header.rnncli_version}"


def _flat(prefix: str, values: Any) -> Iterator[tuple[str, str]]:
    """Names and values as text, one level after the other."""
    for name, value in values.items() if isinstance(values, Mapping) else ():
        label = f"{prefix}{name}".replace("_", " ")
        if isinstance(value, Mapping):
            yield from _flat(f"{label} ", value)
        elif isinstance(value, list):
            yield label, ", ".join(map(str, value)) or "none"
        else:
            text = f"{value:.6g}" if isinstance(value, float) else str(value)
            yield label, text or "none"

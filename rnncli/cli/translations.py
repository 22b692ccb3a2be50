"""How ``translate`` reads its lines and writes what was found: text, n-best lists, JSON."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from rnncli.cli.console import note
from rnncli.cli.streams import LineReader
from rnncli.text.protocol import without_surrogates

if TYPE_CHECKING:
    from rnncli.translation import Translated

_NOTES = 3
"""So many warnings of a kind are written out, the others counted."""
_SHOWN = 60


class TranslationFormat(StrEnum):
    """How translations are written."""

    TEXT = "text"  # the best one
    MOSES = "moses"  # id ||| text ||| features ||| score
    TSV = "tsv"  # id TAB text TAB score
    JSON = "json"  # one object a line in


@dataclass(frozen=True)
class Request:
    """A line to translate. ``number``: from 0; ``prefix``: what the translation begins with;
    ``fields``: all of the object that it came in."""

    number: int
    source: str
    prefix: str = ""
    fields: dict[str, Any] = field(default_factory=dict)


def read_requests(
    reader: LineReader, max_lines: int, prefix: str, *, as_json: bool
) -> Iterator[list[Request]]:
    """What the lines of ``reader`` ask for, as they come; ``prefix``: of those that name none. With
    ``as_json`` they are objects with a string "source" and perhaps a string "prefix"; one that is
    not is a bad line, and empty. Raises DataError as ``LineReader.bad_line``, after the lines
    before."""

    def parse(number: int, line: str) -> Request:
        return _parse(reader, number, line, prefix)

    def plain(number: int, line: str) -> Request:
        return Request(number - 1, line, prefix)

    return reader.parsed(max_lines, parse if as_json else plain)


def _refuse_constant(name: str) -> float:
    """What Python's parser takes and JSON has not."""
    raise ValueError(f"{name} is no number in it")


def _number(text: str) -> float:
    value = float(text)
    return value if math.isfinite(value) else _refuse_constant(text)


def _parse(reader: LineReader, line_number: int, line: str, prefix: str) -> Request:
    number = line_number - 1
    if not line.strip():
        return Request(number, "")
    try:
        fields = json.loads(line, parse_constant=_refuse_constant, parse_float=_number)
        wrong = "" if isinstance(fields, dict) else "not a JSON object"
    except (ValueError, RecursionError) as error:
        wrong = f"not JSON ({error})"
    if not wrong and not isinstance(fields.get("source"), str):
        wrong = 'no string "source" in its JSON object'
    if not wrong and not isinstance(fields.get("prefix", ""), str):
        wrong = 'the "prefix" in its JSON object is no string'
    if wrong:
        return Request(number, reader.bad_line(line_number, wrong, ""))
    source, prefix = (
        " ".join(text.split("\n")) for text in (fields["source"], fields.get("prefix", prefix))
    )
    return Request(number, source, prefix, fields)


Renderer = Callable[[Request, "Sequence[Translated]"], Iterator[str]]


def renderer(format: TranslationFormat) -> Renderer:
    """What writes the lines for one request."""
    return {
        TranslationFormat.TEXT: _text,
        TranslationFormat.MOSES: _moses,
        TranslationFormat.TSV: _tsv,
        TranslationFormat.JSON: _json,
    }[format]


def _text(request: Request, found: Sequence[Translated]) -> Iterator[str]:
    yield found[0].text if found else ""


def _moses(request: Request, found: Sequence[Translated]) -> Iterator[str]:
    for one in found:
        text = one.text.replace("|||", "&#124;&#124;&#124;")  # as Moses spells a bar
        logprob, score = _rounded(one.logprob), _rounded(one.score)
        yield f"{request.number} ||| {text} ||| logprob= {logprob:.4f} ||| {score:.4f}"
    if not found:
        yield f"{request.number} |||  ||| logprob= 0.0000 ||| 0.0000"


def _tsv(request: Request, found: Sequence[Translated]) -> Iterator[str]:
    for one in found:
        text = one.text.replace("\t", " ")
        yield f"{request.number}\t{text}\t{_rounded(one.score):.4f}"
    if not found:
        yield f"{request.number}\t\t0.0000"


def _json(request: Request, found: Sequence[Translated]) -> Iterator[str]:
    values = {"source": request.source, **request.fields, "translations": list(map(_plain, found))}
    text = json.dumps(values, ensure_ascii=False, allow_nan=False)
    try:
        text.encode()
    except UnicodeEncodeError:  # half a character in a field can only be passed on as its number
        text = json.dumps(values, allow_nan=False)
    yield text


def _plain(one: Translated) -> dict[str, object]:
    values: dict[str, object] = {
        "text": _spelled(one.text),
        "logprob": _rounded(one.logprob),
        "score": _rounded(one.score),
        "tokens": len(one.pieces),
        "pieces": list(one.pieces),
        "logprobs": [_rounded(value) for value in one.logprobs],
        "word_logprobs": [_rounded(value) for value in one.word_logprobs()],
    }
    if one.alignment is not None:
        values["alignment"] = [list(pair) for pair in one.alignment]
    return values


def _spelled(text: str) -> str:
    """``text`` without lone surrogates: those that stand for bytes as what the bytes spell, others
    (of a prefix in JSON) as U+FFFD."""
    try:
        return text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    except UnicodeEncodeError:
        return without_surrogates(text)


def _rounded(value: float) -> float:
    """The last digits of a line depend on those that it is run with; never -0.0."""
    return round(value, 4) + 0.0


class Warnings:
    """Notes on stderr about lines: the first few of each kind as they come, then how many more."""

    def __init__(self) -> None:
        self._counts: dict[str, int] = {}

    def about(self, request: Request, what: str) -> None:
        self._counts[what] = self._counts.get(what, 0) + 1
        if self._counts[what] <= _NOTES:
            shown = request.source[:_SHOWN]
            note(f"line {request.number + 1}: {what}: {shown!r}{'...' * (shown != request.source)}")

    def finish(self) -> None:
        for what, count in self._counts.items():
            if count > _NOTES:
                more = "1 more line" if count == _NOTES + 1 else f"{count - _NOTES:,} more lines"
                note(f"{more}: {what}")

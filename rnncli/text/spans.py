"""Parts of files as one text: measured, read chunk by chunk, and cut into a training part and a
held-out part."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rnncli.errors import DataError
from rnncli.text.lines import BOM, CHUNK_BYTES, Source, Span
from rnncli.text.tasks import Chunk, TextOptions

_NEAR = 1000  # bytes within which a cut through a line looks for a space


@dataclass(frozen=True)
class Text:
    """Parts of files, one after another. ``size`` in bytes and ``sha256`` are of whole lines: as if
    the last one were ended and there were no byte-order mark (unless bytes are tokens)."""

    spans: tuple[Span, ...]
    lines: int
    size: int
    sha256: str

    @property
    def name(self) -> str:
        return ", ".join(span.source.name for span in self.spans)

    def chunks(self, options: TextOptions, cut_lines: bool, number: int = 0) -> Iterator[Chunk]:
        """The text in chunks that carry ``number``. Raises DataError after the last one when they
        are not what was measured."""
        digest = hashlib.sha256()
        for span in self.spans:
            line = span.first_line
            for data in span.chunks(options.byte_exact, cut_lines):
                digest.update(data)
                yield Chunk(data, span.source.name, line, number)
                line += data.count(b"\n")
        if digest.hexdigest() != self.sha256:
            raise DataError(f"{self.name}: it was changed while it was read; run this again")


def measure(spans: Sequence[Span], options: TextOptions) -> Text:
    """Reads the spans once."""
    digest = hashlib.sha256()
    lines = size = 0
    for span in spans:
        for data in span.chunks(options.byte_exact, cut_lines=True):
            digest.update(data)
            lines += data.count(b"\n")
            size += len(data)
    return Text(tuple(spans), lines, size, digest.hexdigest())


def hold_out(
    texts: Sequence[Text], fraction: float, options: TextOptions
) -> tuple[list[Text], Text | None, str]:
    """``texts`` (whole files) without the last ``fraction`` of their lines, that part as a text of
    its own, and a sentence that says what was done. At least one line is held out, and one that is
    not blank if any is; of a single line the last part; of a text too small for that, nothing
    (None)."""
    total = sum(text.lines for text in texts)
    if total < 2:
        return _hold_out_of_line(texts, fraction, options)
    held = max(1, int(total * fraction))
    train, valid = _without_last(texts, total - held, options)
    while _is_blank(valid, options) and held < total - 1:
        held = min(total - 1, 2 * held)
        train, valid = _without_last(texts, total - held, options)
    note = (
        f"The last {valid.lines:,} of {total:,} lines are held out for validation "
        f"(data.valid_fraction = {fraction:g}; data.valid names a file of its own)."
    )
    return train, valid, note


def _is_blank(text: Text, options: TextOptions) -> bool:
    return not any(chunk.data.strip() for chunk in text.chunks(options, cut_lines=True))


def _without_last(
    texts: Sequence[Text], kept: int, options: TextOptions
) -> tuple[list[Text], Text]:
    """The first ``kept`` lines of ``texts``, a text of each, and the others as one."""
    train: list[Text] = []
    held: list[Span] = []
    for text in texts:
        span = text.spans[0]
        if kept >= text.lines:
            train.append(text)
        elif kept == 0:
            train.append(measure((), options))
            held.append(span)
        else:
            place = _place_of_line(span.source, kept)
            train.append(measure((Span(span.source, 0, place),), options))
            held.append(Span(span.source, place, None, kept + 1))
        kept = max(0, kept - text.lines)
    return train, measure(held, options)


def _hold_out_of_line(
    texts: Sequence[Text], fraction: float, options: TextOptions
) -> tuple[list[Text], Text | None, str]:
    number = next(i for i, text in enumerate(texts) if text.lines)
    source = texts[number].spans[0].source
    place = _place_in_line(source, fraction)
    if place is None:
        note = "The corpus is too small to hold any of it out: there is no validation."
        return list(texts), None, note
    train = list(texts)
    train[number] = measure((Span(source, 0, place),), options)
    valid = measure((Span(source, place),), options)
    note = (
        f"The corpus is one line: its last {valid.size - 1:,} bytes are held out for validation "
        f"(data.valid_fraction = {fraction:g}; data.valid names a file of its own)."
    )
    return train, valid, note


def _place_of_line(source: Source, lines: int) -> int:
    """Where, in bytes, the line after the first ``lines`` lines begins."""
    place = 0
    with source.open() as stream:
        while block := stream.read(CHUNK_BYTES):
            found = block.count(b"\n")
            if found >= lines:
                end = 0
                for _ in range(lines):
                    end = block.index(b"\n", end) + 1
                return place + end
            lines -= found
            place += len(block)
    return place


def _place_in_line(source: Source, fraction: float) -> int | None:
    """Where to cut the only line of ``source``: after the last white space before its last
    ``fraction`` where one is near, else between two characters; None if a part would be blank."""
    with source.open() as stream:
        size = stream.seek(0, io.SEEK_END)
        if size:
            stream.seek(size - 1)
            size -= stream.read(1) == b"\n"
        if size < 2:
            return None
        place = size - max(1, int(size * fraction))
        start = max(0, place - _NEAR)
        stream.seek(start)
        before, after = stream.read(place - start), stream.read(min(_NEAR, size - place))
    space = max(before.rfind(space) for space in (b" ", b"\t")) + 1
    if before[:space].strip():
        cut = space
    else:
        cut = len(before)
        window = before + after
        while cut > 0 and window[cut] & 0xC0 == 0x80:  # inside a UTF-8 character
            cut -= 1
    head, tail = before[:cut].removeprefix(BOM), before[cut:] + after
    return start + cut if head.strip() and tail.strip() else None

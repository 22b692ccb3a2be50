"""Text files as token ids: what to train on, what to validate on, and what was counted."""

from __future__ import annotations

import contextlib
import itertools
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from rnncli.errors import DataError, UsageError
from rnncli.sections import DataConfig, TokenizerConfig
from rnncli.text.byte_char import CharTokenizer
from rnncli.text.cache import IdWriter, cache_key, load_ids, load_tokenizer, save_tokenizer
from rnncli.text.lines import Source, Span, bad_lines_note, read_lines
from rnncli.text.parallel import map_chunks, worker_count
from rnncli.text.protocol import Ids, Tokenizer, id_dtype
from rnncli.text.spans import Text, hold_out, measure
from rnncli.text.tasks import Chunk, CountTask, EncodeTask, TextOptions
from rnncli.text.tokenizers import train_tokenizer
from rnncli.text.word import WordTokenizer

__all__ = ["Corpus", "Counts", "TokenStream", "encode_file", "load_corpus", "read_lines"]

CACHED_BYTES = 4_000_000  # smaller texts are tokenised faster than they are found
PARALLEL_BYTES = 8_000_000

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Counts:
    """What was counted in a text. ``bytes`` and ``characters`` include each line's end; ``words``
    are what stands between white space, plus one line end a line; ``tokens`` include the boundary
    of each line; ``oov`` are the tokens that are the unknown one; ``bad_lines`` were not UTF-8."""

    lines: int = 0
    words: int = 0
    characters: int = 0
    bytes: int = 0
    tokens: int = 0
    oov: int = 0
    bad_lines: int = 0

    def plus(self, tally: Mapping[str, int], again: bool) -> Counts:
        """With a chunk's tally added; ``again``: its first bad line is already counted."""
        return Counts(
            lines=self.lines + tally["lines"],
            words=self.words + tally["words"],
            characters=self.characters + tally["characters"],
            bytes=self.bytes + tally["bytes"],
            tokens=self.tokens + tally["tokens"],
            oov=self.oov + tally["oov"],
            bad_lines=self.bad_lines + tally["bad"] - again,
        )


@dataclass(frozen=True)
class TokenStream:
    """Token ids, (N,), uint16 or uint32, perhaps mapped from a file: every line's tokens, then the
    boundary. ``fingerprint``: SHA-256 (hexadecimal) of the text."""

    ids: Ids
    counts: Counts
    fingerprint: str


@dataclass(frozen=True)
class Corpus:
    """``train``: one stream for each training file, in order (empty where all of a file was held
    out). ``notes``: sentences for the user about what was held out or replaced."""

    tokenizer: Tokenizer
    train: tuple[TokenStream, ...]
    valid: TokenStream | None
    notes: tuple[str, ...]


def load_corpus(
    data: DataConfig,
    tokenizer: TokenizerConfig | Tokenizer,
    *,
    on_bad_input: str = "replace",
    progress: Progress | None = None,
) -> Corpus:
    """The training and validation text of ``data`` as ids.

    Without ``data.valid`` the last ``data.valid_fraction`` of the training lines is held out. A
    tokenizer that is not given is trained on what remains. ``progress`` hears of the bytes done and
    all bytes to do. Raises FileError for a file that cannot be read; DataError for an empty one, or
    for bad UTF-8 if ``on_bad_input`` is ``error``; UsageError for no file at all.
    """
    if not data.train:
        raise UsageError("data.train: no training text; give at least one file, or - for stdin")
    options = TextOptions(data.strip_lines, tokenizer.kind == "byte", on_bad_input)
    train = [measure((Span(Source.of(path)),), options) for path in data.train]
    if not any(text.size for text in train):
        raise _empty(", ".join(text.name for text in train))
    notes = [f"{text.name} is empty." for text in train if not text.size]
    valid: Text | None = None
    if data.valid is not None:
        valid = measure((Span(Source.of(data.valid)),), options)
        if not valid.size:
            raise _empty(valid.name)
    elif data.valid_fraction:
        train, valid, note = hold_out(train, data.valid_fraction, options)
        notes.append(note)
    texts = [*train, valid] if valid else train
    work = _Work(progress, sum(text.size for text in texts))
    if isinstance(tokenizer, TokenizerConfig):
        tokenizer = _trained(tokenizer, train, options, work)
    streams = _encode(tokenizer, texts, options, work)
    for text, stream in zip(texts, streams, strict=True):
        if stream.counts.bad_lines:
            bad, lines = stream.counts.bad_lines, stream.counts.lines
            notes.append(bad_lines_note(text.name, bad, lines, on_bad_input))
    return Corpus(
        tokenizer,
        train=tuple(streams[: len(train)]),
        valid=streams[-1] if valid else None,
        notes=tuple(notes),
    )


def count_tokens(corpus: Corpus) -> npt.NDArray[np.int64]:
    """How often each token occurs in the training text: (V,)."""
    size = corpus.tokenizer.vocab_size
    counts = np.zeros(size, np.int64)
    for stream in corpus.train:
        for start in range(0, len(stream.ids), 1 << 24):
            counts += np.bincount(stream.ids[start : start + (1 << 24)], minlength=size)
    return counts


def encode_file(
    tokenizer: Tokenizer,
    path: str | Path,
    *,
    strip_lines: bool = False,
    on_bad_input: str = "replace",
    progress: Progress | None = None,
) -> TokenStream:
    """A whole file as ids. Raises as ``load_corpus`` does."""
    options = TextOptions(strip_lines, tokenizer.kind == "byte", on_bad_input)
    text = measure((Span(Source.of(path)),), options)
    if not text.size:
        raise _empty(text.name)
    return _encode(tokenizer, [text], options, _Work(progress, text.size))[0]


class _Work:
    """Tells ``progress`` how much is done."""

    def __init__(self, progress: Progress | None, total: int) -> None:
        self._progress = progress
        self._total = total
        self._done = 0

    def expect(self, size: int) -> None:
        self._total += size

    def advance(self, size: int) -> None:
        self._done += size
        if self._progress and size:
            self._progress(self._done, self._total)


def _trained(
    config: TokenizerConfig, texts: Sequence[Text], options: TextOptions, work: _Work
) -> Tokenizer:
    """The tokenizer of ``config`` for ``texts``, from the cache if it has it."""
    if config.kind == "byte" or config.model is not None:
        return train_tokenizer(config, ())
    size = sum(text.size for text in texts)
    work.expect(size)
    key = cache_key("tokenizer", asdict(config), asdict(options), [t.sha256 for t in texts])
    if size >= CACHED_BYTES and (known := load_tokenizer(key)):
        work.advance(size)
        return known
    tokenizer: Tokenizer
    if config.kind in ("char", "word"):
        counts = _counted(config.kind, texts, options, work)
        kind = CharTokenizer if config.kind == "char" else WordTokenizer
        tokenizer = kind.from_counts(counts, config)
    else:
        tokenizer = train_tokenizer(config, _lines(texts, options, work))
    if size >= CACHED_BYTES:
        save_tokenizer(key, tokenizer)
    return tokenizer


def _counted(kind: str, texts: Sequence[Text], options: TextOptions, work: _Work) -> Counter[str]:
    counts: Counter[str] = Counter()
    chunks = _chunks(texts, range(len(texts)), options, options.cuts_lines)
    for chunk, header, _ in map_chunks(CountTask(kind, options), chunks, _workers(texts)):
        counts.update(dict(zip(header["keys"], header["counts"], strict=True)))
        work.advance(len(chunk.data))
    return counts


def _lines(texts: Sequence[Text], options: TextOptions, work: _Work) -> Iterator[str]:
    for chunk in _chunks(texts, range(len(texts)), options, cut_lines=False):
        yield from options.decode(chunk).text.split("\n")[:-1]
        work.advance(len(chunk.data))


def _chunks(
    texts: Sequence[Text], numbers: Iterable[int], options: TextOptions, cut_lines: bool
) -> Iterator[Chunk]:
    for number in numbers:
        yield from texts[number].chunks(options, cut_lines, number)


def _workers(texts: Sequence[Text]) -> int:
    return worker_count() if sum(text.size for text in texts) > PARALLEL_BYTES else 1


def _encode(
    tokenizer: Tokenizer, texts: Sequence[Text], options: TextOptions, work: _Work
) -> list[TokenStream]:
    """A stream for each text: from the cache, or tokenised and kept there."""
    dtype = id_dtype(tokenizer.vocab_size)
    streams = [TokenStream(np.empty(0, dtype), Counts(), text.sha256) for text in texts]
    keys: dict[int, str | None] = {}
    for number, text in enumerate(texts):
        key = cache_key("ids", tokenizer.fingerprint, asdict(options), text.sha256)
        if text.size < CACHED_BYTES:
            keys[number] = None
        elif (known := load_ids(key, dtype)) is None:
            keys[number] = key
        else:
            ids, header = known
            streams[number] = TokenStream(ids, Counts(**header["counts"]), text.sha256)
            work.advance(text.size)
    workers = _workers([texts[number] for number in keys])
    cut_lines = options.cuts_lines and tokenizer.splits_at_spaces
    chunks = _chunks(texts, keys, options, cut_lines)
    results = map_chunks(EncodeTask(tokenizer, options), chunks, workers)
    for number, group in itertools.groupby(results, key=lambda result: result[0].text):
        with contextlib.closing(IdWriter(keys[number], dtype)) as writer:
            counts = Counts()
            last_bad = ("", 0)
            for chunk, header, payload in group:
                writer.write(payload)
                first_bad = (chunk.name, header["first_bad"])
                counts = counts.plus(header, again=bool(header["bad"]) and first_bad == last_bad)
                if header["bad"]:
                    last_bad = (chunk.name, header["last_bad"])
                work.advance(len(chunk.data))
            ids = writer.finish({"tokens": counts.tokens, "counts": asdict(counts)})
        streams[number] = TokenStream(ids, counts, texts[number].sha256)
    return streams


def _empty(name: str) -> DataError:
    return DataError(f"{name}: empty; give a text file (UTF-8, or .gz of it) with some lines")

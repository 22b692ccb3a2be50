"""Parallel text: lines of a source and their translations, as token ids; numpy only."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import zip_longest

import numpy as np
import numpy.typing as npt

from rnncli.errors import DataError, UsageError
from rnncli.text.batching import LENGTH_SPREAD
from rnncli.text.lines import read_lines
from rnncli.text.tokenizers import Tokenizer

Line = npt.NDArray[np.int64]
Pair = tuple[str, str]


@dataclass(frozen=True)
class PairFiles:
    """Where pairs are: a two-column ``table`` (source TAB target), or the files of the two sides,
    line by line."""

    table: str | None = None
    source: str | None = None
    target: str | None = None

    @property
    def name(self) -> str:
        return self.table or f"{self.source} and {self.target}"


def read_pairs(files: PairFiles, notes: list[str] | None = None) -> Iterator[Pair]:
    """The pairs in order, U+FFFD in them for what is not UTF-8; once all are read, ``notes`` has a
    sentence about each file with such lines. Raises FileError for what cannot be read; DataError,
    with file:line, for a line of a table that has not two columns, and for an empty side; with both
    counts for files of unequal length."""
    if files.table is not None:
        pairs = _from_table(files.table, notes)
    else:
        assert files.source is not None and files.target is not None
        pairs = _from_files(files.source, files.target, notes)
    for number, (source, target) in enumerate(pairs, 1):
        for side, text in (("source", source), ("target", target)):
            if not text.strip():
                raise DataError(
                    f"{files.name}:{number}: the {side} is empty; give both sides of every pair, "
                    "or leave the line out"
                )
        yield source, target


def _from_table(path: str, notes: list[str] | None) -> Iterator[Pair]:
    for number, line in enumerate(read_lines(path, notes=notes), 1):
        try:
            yield split_pair(line)
        except DataError as error:
            raise DataError(f"{path}:{number}: {error}") from None


def split_pair(line: str) -> Pair:
    """The two columns of a table's line. Raises DataError, without a place, when there are not
    two."""
    columns = line.split("\t")
    if len(columns) != 2:
        what = "1 column" if len(columns) == 1 else f"{len(columns)} columns"
        raise DataError(f"{what}; expected two, source TAB target")
    return columns[0], columns[1]


def _from_files(source: str, target: str, notes: list[str] | None) -> Iterator[Pair]:
    lines = zip_longest(read_lines(source, notes=notes), read_lines(target, notes=notes))
    for number, (left, right) in enumerate(lines):
        if left is None or right is None:
            longer = number + 1 + sum(1 for _ in lines)
            counts = (number, longer) if left is None else (longer, number)
            raise unequal_files((source, target), counts)
        yield left, right


def unequal_files(names: tuple[str, str], counts: tuple[int, int]) -> DataError:
    """The error for the files of a source and a target that have not one number of lines."""
    return DataError(
        f"{names[0]} has {counts[0]:,} lines and {names[1]} {counts[1]:,}; "
        "they must be translations of each other, line by line"
    )


def pair_files(
    tables: Sequence[str], source: Sequence[str], target: Sequence[str]
) -> list[PairFiles]:
    """The files of ``data.train``, or of ``data.source`` and ``data.target``. Raises UsageError
    when there are none, both, or not as many sources as targets."""
    if tables and (source or target):
        raise UsageError(
            "data.train and data.source/data.target: give tables of pairs, or files for the sides"
        )
    if len(source) != len(target):
        raise UsageError(
            f"data.source: {len(source)} files for {len(target)} of data.target; "
            "give one --target for each --source"
        )
    found = [PairFiles(table=path) for path in tables]
    found += [PairFiles(source=s, target=t) for s, t in zip(source, target, strict=True)]
    if not found:
        raise UsageError(
            "no parallel text; give a table (source TAB target), or --source F --target F"
        )
    return found


@dataclass(frozen=True)
class EncodedPairs:
    """``sources`` and ``targets``: token ids of each line without its end (n,). ``fingerprint``:
    SHA-256 (hexadecimal) of the text; ``kept``: the numbers of the pairs that are there;
    ``dropped``: how many were left out for their length."""

    sources: tuple[Line, ...]
    targets: tuple[Line, ...]
    fingerprint: str
    kept: tuple[int, ...]
    dropped: int = 0

    def __len__(self) -> int:
        return len(self.sources)

    @property
    def target_tokens(self) -> int:
        """Line ends included."""
        return sum(len(line) + 1 for line in self.targets)


def encode_pairs(
    pairs: Sequence[Pair],
    source_tokenizer: Tokenizer,
    tokenizer: Tokenizer,
    *,
    max_length: int = 0,
    reverse: bool = False,
) -> EncodedPairs:
    """``tokenizer`` is that of the targets. ``max_length``: pairs with more tokens than this on a
    side are dropped (0: none); ``reverse``: sources run backward (Sutskever et al. 2014, sec.
    3.3)."""
    digest = hashlib.sha256()
    sources, targets, kept = [], [], []
    for number, (source, target) in enumerate(pairs):
        digest.update(f"{source}\t{target}\n".encode(errors="surrogatepass"))
        left = np.array(source_tokenizer.encode(source), np.int64)
        right = np.array(tokenizer.encode(target), np.int64)
        if max_length and max(len(left), len(right)) > max_length:
            continue
        kept.append(number)
        sources.append(left[::-1].copy() if reverse else left)
        targets.append(right)
    return EncodedPairs(
        tuple(sources), tuple(targets), digest.hexdigest(), tuple(kept), len(pairs) - len(kept)
    )


def group_by_length(
    lengths: npt.NDArray[np.int64],
    seconds: npt.NDArray[np.int64],
    size: int,
    rng: np.random.Generator | None,
    tokens: int = 0,
) -> list[npt.NDArray[np.int64]]:
    """Numbers of lines in groups whose ``lengths`` are equal, and whose second lengths are alike:
    at most ``size`` in a group or, with ``tokens``, as many as fit with both sides, the second one
    padded, into so many tokens (one line at least). With ``rng`` lines and groups come in an order
    drawn from it."""
    keys = seconds.astype(np.float64)
    if rng is not None:
        keys *= rng.uniform(1, 1 + LENGTH_SPREAD, len(keys))
    order = np.lexsort((keys, lengths))
    groups = []
    edges = np.flatnonzero(np.diff(lengths[order])) + 1
    for run in np.split(order, edges):
        if tokens:
            groups += _cut_by_tokens(run, lengths[run] + 1, seconds[run], tokens)
        else:
            groups += [run[k : k + size] for k in range(0, len(run), size)]
    if rng is not None:
        turns = rng.permutation(len(groups))
        groups = [groups[turn] for turn in turns]
    return [group for group in groups if len(group)]


def _cut_by_tokens(
    run: npt.NDArray[np.int64],
    first: npt.NDArray[np.int64],
    second: npt.NDArray[np.int64],
    tokens: int,
) -> list[npt.NDArray[np.int64]]:
    """``run`` in parts whose number of lines times the greatest ``first`` and ``second`` lengths in
    them stays within ``tokens``."""
    groups, start, widest = [], 0, 0
    for k in range(len(run)):
        wider = max(widest, int(first[k] + second[k]))
        if k > start and wider * (k + 1 - start) > tokens:
            groups.append(run[start:k])
            start, wider = k, int(first[k] + second[k])
        widest = wider
    groups.append(run[start:])
    return groups


def source_batch(lines: Sequence[Line], boundary_id: int) -> npt.NDArray[np.int64]:
    """Lines of one length n -> (n + 1, B), each with its end."""
    columns = np.stack([np.append(line, boundary_id) for line in lines], axis=1)
    return np.ascontiguousarray(columns, np.int64)


def target_batch(
    lines: Sequence[Line], boundary_id: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
    """Inputs, targets and mask, each (T, B): ``inputs[0]`` is the boundary, and so is the last
    target of each line; boundaries fill the rest, where ``mask`` is false."""
    lengths = np.array([len(line) + 1 for line in lines])
    both = np.full((int(lengths.max()) + 1, len(lines)), boundary_id, np.int64)
    for column, line in enumerate(lines):
        both[1 : len(line) + 1, column] = line
    mask = np.arange(len(both) - 1)[:, None] < lengths[None, :]
    return both[:-1], both[1:], mask

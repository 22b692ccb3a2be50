"""Polyphonic music as text: one piece a line, its frames separated by spaces.

A frame is the MIDI notes that sound, with commas between, and ``-`` is silence: ``60,64,67 62 -``.
Notes are the 88 keys of a piano, MIDI 21 (A0) to 108 (C8). Their order says nothing and a note
named twice sounds once; written back they go up from the lowest. Nothing tells a note that is held
from one that is struck again. A line without frames is a piece of none: it keeps its place among
the pieces, and nothing is predicted or counted for it.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import numpy.typing as npt

from rnncli.errors import DataError
from rnncli.text.batching import LENGTH_SPREAD
from rnncli.text.lines import Source, read_lines

LOWEST, HIGHEST = 21, 108
KEYS = HIGHEST - LOWEST + 1
SILENCE = "-"

Frames = npt.NDArray[np.bool_]
"""(T, 88): whether each key sounds, the lowest first."""

_NOTE = re.compile("[0-9]{1,4}")
_SHOWN = 40  # characters of a wrong frame that its message quotes
_LOOK_BYTES = 4096
_ALIKE_FRAMES = 4  # so many in a row are no accident


@dataclass(frozen=True)
class Music:
    """The pieces of a file. ``fingerprint``: SHA-256 (hexadecimal) of their notes, however they
    were spelled."""

    name: str
    pieces: tuple[Frames, ...]
    fingerprint: str

    @property
    def frames(self) -> int:
        return sum(map(len, self.pieces))


def parse_piece(line: str, where: str) -> Frames:
    """The frames of a line. Raises DataError, which begins with ``where``, for what is no frame."""
    tokens = line.split()
    rows: list[int] = []
    columns: list[int] = []
    for t, token in enumerate(tokens):
        try:
            keys = _keys(token)
        except ValueError as error:
            shown = token if len(token) <= _SHOWN else token[:_SHOWN] + "..."
            raise DataError(f"{where}: frame {t + 1}, {shown!r}: {error}") from None
        rows += [t] * len(keys)
        columns += keys
    frames = np.zeros((len(tokens), KEYS), np.bool_)
    if rows:
        frames[rows, columns] = True
    return frames


@lru_cache(1 << 16)
def _keys(token: str) -> tuple[int, ...]:
    """ "60,64" -> the keys that it names, from 0. Raises ValueError with what would be right."""
    if token == SILENCE:
        return ()
    keys = []
    for part in token.split(","):
        if not _NOTE.fullmatch(part):
            raise ValueError(
                "expected MIDI notes with commas between, as in 60,64,67, or - for silence"
            )
        note = int(part)
        if not LOWEST <= note <= HIGHEST:
            raise ValueError(
                f"{note} is no key of a piano; expected MIDI notes from {LOWEST} to {HIGHEST}"
            )
        keys.append(note - LOWEST)
    return tuple(keys)


def format_piece(frames: Frames) -> str:
    """frames (T, 88) -> the line that says them, without its end."""
    return " ".join(map(_format_frame, frames))


def _format_frame(frame: Frames) -> str:
    return ",".join(str(key + LOWEST) for key in np.flatnonzero(frame).tolist()) or SILENCE


def begins_like_music(path: str | Path) -> bool:
    """Whether a file's first line is one of frames, as far as a look at its beginning tells.
    Raises FileError when it cannot be read."""
    with Source.of(path).open() as stream:
        head = stream.read(_LOOK_BYTES).decode(errors="replace")
    line, end, _ = head.partition("\n")
    whole = line if end or len(head) < _LOOK_BYTES else line.rpartition(" ")[0]
    try:
        return len(parse_piece(whole, "")) >= _ALIKE_FRAMES
    except DataError:
        return False


def read_music(path: str | Path) -> Music:
    """All pieces of a file (``.gz`` too), or of standard input for ``-``.

    Raises FileError when it cannot be read; DataError with file:line for what is no frame, or for a
    file without any frame.
    """
    name = "standard input" if str(path) == "-" else str(path)
    pieces = tuple(
        parse_piece(line, f"{name}:{number}") for number, line in enumerate(read_lines(path), 1)
    )
    music = Music(name, pieces, _fingerprint(pieces))
    if not music.frames:
        raise DataError(
            f"{name}: no music; expected one piece a line, its frames separated by spaces, a frame "
            "as in 60,64,67 or - for silence"
        )
    return music


def _fingerprint(pieces: Sequence[Frames]) -> str:
    digest = hashlib.sha256()
    for piece in pieces:
        digest.update(f"{len(piece)} ".encode())
        digest.update(np.packbits(piece, axis=1).tobytes())
    return digest.hexdigest()


def hold_out(parts: Sequence[Music], fraction: float) -> tuple[list[Music], Music | None, str]:
    """``parts`` without the last ``fraction`` of their pieces, those pieces, and a sentence that
    says what was done. At least one piece is held out; of a single one nothing (None)."""
    total = sum(len(part.pieces) for part in parts)
    pieces, last = [piece for part in parts for piece in part.pieces], max(1, int(total * fraction))
    while last < total - 1 and not any(map(len, pieces[-last:])):  # blank lines alone
        last = min(total - 1, 2 * last)
    kept = total - last
    train: list[Music] = []
    held: list[Frames] = []
    for part in parts:
        stay = part.pieces[: max(0, kept)]
        held += part.pieces[len(stay) :]
        kept -= len(stay)
        train.append(Music(part.name, stay, _fingerprint(stay)))
    valid = Music("the pieces held out", tuple(held), _fingerprint(held))
    if not valid.frames or not any(part.frames for part in train):
        note = "There are too few pieces to hold any of them out: there is no validation."
        return list(parts), None, note
    note = (
        f"The last {len(held):,} of {total:,} pieces are held out for validation "
        f"(data.valid_fraction = {fraction:g}; data.valid names a file of its own)."
    )
    return train, valid, note


def transposed(frames: Frames, semitones: int) -> Frames:
    """frames (T, 88) moved up by ``semitones``, or as far as the keyboard goes."""
    sounding = np.flatnonzero(frames.any(axis=0))
    if not len(sounding):
        return frames
    shift = min(max(semitones, -int(sounding[0])), KEYS - 1 - int(sounding[-1]))
    return np.roll(frames, shift, axis=1)


def side_by_side(pieces: Sequence[Frames]) -> tuple[Frames, npt.NDArray[np.bool_]]:
    """Pieces (T_b, 88) as columns: frames (T + 1, B, 88) with silence before the first frame of
    each and after its last, and mask (T, B), false where a piece has no frame. ``frames[:-1]`` are
    inputs and ``frames[1:]`` targets: frame t of every piece is predicted from those before it."""
    lengths = np.array([len(piece) for piece in pieces], np.int64)
    longest = int(lengths.max(initial=0))
    frames = np.zeros((longest + 1, len(pieces), KEYS), np.bool_)
    for column, piece in enumerate(pieces):
        frames[1 : len(piece) + 1, column] = piece
    return frames, np.arange(longest)[:, None] < lengths[None, :]


def batches(
    lengths: npt.NDArray[np.int64], batch_size: int, rng: np.random.Generator
) -> list[npt.NDArray[np.int64]]:
    """The numbers of the pieces to run together, each (B,): every piece of ``lengths`` (N,) once,
    pieces of like length together, in an order drawn from ``rng``."""
    jittered = lengths * rng.uniform(1, 1 + LENGTH_SPREAD, len(lengths))
    order = np.argsort(jittered, kind="stable")
    parts = [order[start : start + batch_size] for start in range(0, len(order), batch_size)]
    return [parts[turn] for turn in rng.permutation(len(parts)).tolist()]


def note_ranges(frames: Frames) -> list[tuple[int, int, int]]:
    """Every note of frames (T, 88) as (MIDI note, first frame, frame after its last), by start: in
    frames that follow each other it is held."""
    edges = np.diff(frames.astype(np.int8), axis=0, prepend=0, append=0)
    found = []
    for key in np.flatnonzero(frames.any(axis=0)).tolist():
        starts = np.flatnonzero(edges[:, key] > 0).tolist()
        stops = np.flatnonzero(edges[:, key] < 0).tolist()
        found += [(key + LOWEST, a, b) for a, b in zip(starts, stops, strict=True)]
    return sorted(found, key=lambda note: (note[1], note[0]))

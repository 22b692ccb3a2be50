"""Lines of frames: there and back, what is wrong with them, batches, notes."""

from __future__ import annotations

import gzip
import itertools
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rnncli.errors import DataError, FileError
from rnncli.text.music import (
    KEYS,
    Frames,
    Music,
    batches,
    begins_like_music,
    format_piece,
    hold_out,
    note_ranges,
    parse_piece,
    read_music,
    side_by_side,
    transposed,
)
from tests.helpers import ROOT

NOTES = st.lists(st.sets(st.integers(21, 108), max_size=4), max_size=9)
NO_HURRY = settings(deadline=None, max_examples=60)


def piece_of(notes: list[set[int]]) -> Frames:
    frames = np.zeros((len(notes), KEYS), np.bool_)
    for t, frame in enumerate(notes):
        for note in frame:
            frames[t, note - 21] = True
    return frames


PIECES = NOTES.map(piece_of)


def notes(piece: Frames) -> list[list[int]]:
    return [[21 + int(key) for key in np.flatnonzero(frame)] for frame in piece]


@NO_HURRY
@given(PIECES)
def test_frames_to_text_and_back(piece: Frames) -> None:
    line = format_piece(piece)
    again = parse_piece(line, "")
    assert again.dtype == np.bool_ and np.array_equal(again, piece)
    assert format_piece(again) == line


def test_a_line_is_read_by_its_notes() -> None:
    piece = parse_piece("60,64,67 - 21,108", "")
    assert notes(piece) == [[60, 64, 67], [], [21, 108]]
    spelled_otherwise = parse_piece("\t67,60,64,60  -\t108,21 \r", "")
    assert format_piece(spelled_otherwise) == "60,64,67 - 21,108"


def test_the_sample_data_comes_back_as_it_is() -> None:
    path = ROOT / "sample_data" / "music.txt"
    lines = path.read_text().splitlines()
    music = read_music(path)
    assert [format_piece(piece) for piece in music.pieces] == lines
    assert (len(music.pieces), music.frames) == (80, 4960)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("60 20", "f.txt:3: frame 2, '20': 20 is no key of a piano; expected MIDI notes from 21"),
        ("60,109", "109 is no key of a piano; expected MIDI notes from 21 to 108"),
        ("60,x", "f.txt:3: frame 1, '60,x': expected MIDI notes with commas between"),
        ("60, 64", "frame 1, '60,': expected MIDI notes with commas between, as in 60,64,67, or -"),
        ("60 --", "frame 2, '--'"),
        ("-60", "frame 1, '-60'"),
        ("+60", "frame 1"),
        ("６０", "frame 1"),
        ("1" * 9999, "frame 1, '1111111111111111111111111111111111111111...'"),
        ("The night was clear.", "f.txt:3: frame 1, 'The'"),
    ],
)
def test_what_is_no_frame(line: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "f.txt"
    path.write_text(f"60 62\n\n{line}\n60\n")
    with pytest.raises(DataError, match=re.escape(message)) as error:
        read_music(path)
    assert len(str(error.value)) < len(str(path)) + 200


def test_an_empty_line_is_a_piece_of_no_frames(tmp_path: Path) -> None:
    path = tmp_path / "f.txt"
    path.write_text("60 -\n\n62")
    assert [notes(piece) for piece in read_music(path).pieces] == [[[60], []], [], [[62]]]


def test_gzip_and_a_fingerprint_of_the_notes(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("64,60 -\n62\n")
    (tmp_path / "b.txt.gz").write_bytes(gzip.compress(b"60,64,64   -\n62"))
    (tmp_path / "c.txt").write_text("60,64\n- 62\n")
    a, b, c = (read_music(tmp_path / name) for name in ("a.txt", "b.txt.gz", "c.txt"))
    assert a.fingerprint == b.fingerprint != c.fingerprint


def test_no_music(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="nowhere"):
        read_music(tmp_path / "nowhere")
    (tmp_path / "empty").write_text("\n\n")
    with pytest.raises(DataError, match=r"empty: no music; expected one piece a line"):
        read_music(tmp_path / "empty")
    (tmp_path / "latin").write_bytes(b"60\n\xff\n")
    with pytest.raises(DataError, match="latin:2: frame 1"):
        read_music(tmp_path / "latin")


@pytest.mark.parametrize(
    ("text", "music"),
    [
        ("60,64 60 - 62\nno notes\n", True),
        ("60,64 60 - 62", True),
        ("60 64\n", False),
        ("no notes in this line\n60,64 60 - 62\n", False),
        ("60,64,67 " * 1000, True),
        ("1234567 " * 1000, False),
        ("", False),
    ],
)
def test_what_begins_like_music(text: str, music: bool, tmp_path: Path) -> None:
    (tmp_path / "f").write_text(text)
    assert begins_like_music(tmp_path / "f") == music


def music(*sizes: int) -> Music:
    return Music("m", tuple(np.ones((size, KEYS), np.bool_) for size in sizes), "")


def sizes(music: Music) -> list[int]:
    return [len(piece) for piece in music.pieces]


def test_the_last_pieces_are_held_out() -> None:
    train, valid, note = hold_out([music(1, 2, 3), music(4, 5)], 0.5)
    assert valid is not None
    assert ([sizes(part) for part in train], sizes(valid)) == ([[1, 2, 3], []], [4, 5])
    assert "The last 2 of 5 pieces" in note
    train, valid, _ = hold_out([music(1, 2, 3), music(4, 5)], 0.05)
    assert valid is not None and ([sizes(part) for part in train], sizes(valid)) == (
        [[1, 2, 3], [4]],
        [5],
    )
    train, valid, note = hold_out([music(7)], 0.05)
    assert (sizes(train[0]), valid) == ([7], None) and "no validation" in note


@NO_HURRY
@given(PIECES, st.integers(-60, 60))
def test_transposed_pieces_keep_their_intervals(piece: Frames, semitones: int) -> None:
    before, after = notes(piece), notes(transposed(piece, semitones))
    sounding = [note for frame in before for note in frame]
    if not sounding:
        assert after == before
        return
    room = (21 - min(sounding), 108 - max(sounding))
    moved = min(max(semitones, room[0]), room[1])
    assert after == [[note + moved for note in frame] for frame in before]


@NO_HURRY
@given(st.lists(PIECES, min_size=1, max_size=5))
def test_side_by_side_shifts_and_masks(pieces: list[Frames]) -> None:
    frames, mask = side_by_side(pieces)
    inputs, targets = frames[:-1], frames[1:]
    assert mask.shape == targets.shape[:2] == (max(map(len, pieces)), len(pieces))
    for column, piece in enumerate(pieces):
        assert mask[:, column].sum() == len(piece) and mask[: len(piece), column].all()
        assert np.array_equal(targets[: len(piece), column], piece)
        assert not targets[len(piece) :, column].any() and not frames[0, column].any()
        assert np.array_equal(inputs[1 : len(piece) + 1, column], piece[: len(inputs) - 1])


@NO_HURRY
@given(st.lists(st.integers(1, 50), min_size=1, max_size=40), st.integers(1, 9), st.integers(0, 3))
def test_batches_hold_every_piece_once(lengths: list[int], size: int, seed: int) -> None:
    array = np.array(lengths, np.int64)
    parts = batches(array, size, np.random.default_rng(seed))
    again = batches(array, size, np.random.default_rng(seed))
    assert [part.tolist() for part in parts] == [part.tolist() for part in again]
    assert sorted(number for part in parts for number in part.tolist()) == list(range(len(array)))
    assert all(1 <= len(part) <= size for part in parts)
    # Like with like: one of two batches has the shorter pieces, but for the jitter.
    spans = [(array[part].min(), array[part].max()) for part in parts]
    for (low, high), (other_low, other_high) in itertools.combinations(spans, 2):
        assert high <= 1.1 * other_low + 1e-9 or other_high <= 1.1 * low + 1e-9


@NO_HURRY
@given(PIECES)
def test_note_ranges_are_the_runs_of_a_key(piece: Frames) -> None:
    expected, said = [], notes(piece)
    for t, frame in enumerate(said):
        for note in frame:
            if t == 0 or note not in said[t - 1]:
                stop = t
                while stop < len(piece) and piece[stop, note - 21]:
                    stop += 1
                expected.append((note, t, stop))
    assert note_ranges(piece) == expected

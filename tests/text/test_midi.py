"""The bytes of a MIDI file, read back by a reader of its own: every note where its frames are."""

from __future__ import annotations

import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rnncli.errors import UsageError
from rnncli.text.midi import midi_bytes
from rnncli.text.music import KEYS, parse_piece

PIECES = st.lists(
    st.lists(st.sets(st.integers(21, 108), max_size=3), max_size=7), min_size=1, max_size=3
)


def read(data: bytes) -> tuple[float, list[tuple[int, int, int]], int]:
    """Seconds a tick, the notes as (key, first tick, last tick), and the tick of the end."""
    assert data[:8] == b"MThd\0\0\0\6"
    form, tracks, division = struct.unpack(">HHH", data[8:14])
    assert (form, tracks) == (0, 1) and division < 0x8000
    assert data[14:18] == b"MTrk"
    assert int.from_bytes(data[18:22], "big") == len(data) - 22
    place, now, tempo, end = 22, 0, 0, -1
    sounding: dict[int, int] = {}
    found = []

    def number() -> int:
        nonlocal place
        value, more = 0, True
        while more:
            value, more = value << 7 | data[place] & 127, data[place] >= 128
            place += 1
        return value

    while place < len(data):
        assert end < 0, "something follows the end of the track"
        now += number()
        status = data[place]
        place += 1
        if status == 0xFF:
            kind = data[place]
            place += 1
            size = number()
            body, place = data[place : place + size], place + size
            if kind == 0x51:
                tempo = int.from_bytes(body, "big")
            elif kind == 0x2F:
                end = now
        else:
            key, velocity = data[place], data[place + 1]
            place += 2
            assert key < 128 and velocity < 128 and status & 0x0F == 0
            if status == 0x90 and velocity:
                assert key not in sounding, "struck again before its end"
                sounding[key] = now
            else:
                assert status in (0x80, 0x90)
                found.append((key, sounding.pop(key), now))
    assert not sounding and end >= 0
    return tempo / 1e6 / division, found, end


@settings(deadline=None, max_examples=60)
@given(PIECES)
def test_notes_sound_in_their_frames(notes: list[list[set[int]]]) -> None:
    lines = (" ".join(",".join(map(str, sorted(f))) or "-" for f in piece) for piece in notes)
    pieces = [parse_piece(line, "") for line in lines]
    seconds_a_tick, found, end = read(midi_bytes(pieces, 120.0))
    frame = 0.25  # an eighth note at 120 quarter notes a minute
    heard = {(key, t) for key, a, b in found for t in range(a, b)}
    ticks = round(frame / seconds_a_tick)
    assert len(heard) == sum(b - a for _, a, b in found)
    begin, frames, held = 0, set(), 0
    for piece in notes:
        for t, sounds in enumerate(piece):
            frames |= {(note, begin + t) for note in sounds}
            held += len(sounds - piece[t - 1] if t else sounds)
        begin += len(piece) + 4
    assert heard == {(key, t * ticks + k) for key, t in frames for k in range(ticks)}
    assert len(found) == held, "a note that is held is one note"
    assert end == (begin - 4) * ticks


def test_a_small_file_byte_by_byte() -> None:
    data = midi_bytes([parse_piece("60 60,64 -", "")], 100.0)
    events = (
        "00 ff 51 03 09 27 c0  00 90 3c 50  81 70 90 40 50  81 70 80 3c 50  00 80 40 50"
        "81 70 ff 2f 00"
    )
    track = bytes.fromhex(events)
    header = b"MThd" + bytes.fromhex("00000006 0000 0001 01e0")
    assert data == header + b"MTrk" + len(track).to_bytes(4, "big") + track


def test_long_silences_and_tempos() -> None:
    silence = np.zeros((5_000, KEYS), np.bool_)
    seconds, found, end = read(midi_bytes([silence], 4.0))
    assert not found and end * seconds == pytest.approx(5_000 * 7.5)
    for tempo in (0.0, 3.9, 1001.0, float("nan")):
        with pytest.raises(UsageError, match=r"tempo: .* from 4 to 1000"):
            midi_bytes([silence], tempo)

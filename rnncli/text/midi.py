"""Music as a standard MIDI file (format 0): what any player, notation program or sequencer opens.

The file is written here byte by byte, after the Standard MIDI Files 1.0 specification: a header
chunk, and one track of events, each after its delta time in ticks.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

from rnncli.errors import UsageError
from rnncli.text.music import Frames, note_ranges

TICKS_A_QUARTER = 480
FRAME_TICKS = 240
"""A frame is an eighth note."""

PAUSE_FRAMES = 4
"""Silence between two pieces of one file."""

TEMPOS = (4.0, 1000.0)
"""Quarter notes a minute that a file can say (24 bits for microseconds a quarter) or a player
play."""

_NOTE_ON, _NOTE_OFF, _VELOCITY = 0x90, 0x80, 80
_SET_TEMPO, _END_OF_TRACK = b"\xff\x51\x03", b"\xff\x2f\x00"


def require_tempo(quarters_a_minute: float) -> None:
    """Raise UsageError for a tempo out of range."""
    low, high = TEMPOS
    if not low <= quarters_a_minute <= high:
        raise UsageError(
            f"tempo: {quarters_a_minute:g} is out of range; it must be from {low:g} to {high:g} "
            "quarter notes a minute"
        )


def midi_bytes(pieces: Sequence[Frames], quarters_a_minute: float) -> bytes:
    """The file that plays ``pieces``, each (T, 88), one after the other.

    A note that sounds in successive frames is held. Raises UsageError as ``require_tempo``.
    """
    require_tempo(quarters_a_minute)
    microseconds = round(60e6 / quarters_a_minute)
    track = bytearray(_variable_length(0) + _SET_TEMPO + microseconds.to_bytes(3, "big"))
    now = 0
    events, end = _events(pieces)
    for tick, status, note in events:
        track += _variable_length(tick - now) + bytes((status, note, _VELOCITY))
        now = tick
    track += _variable_length(end - now) + _END_OF_TRACK
    header = struct.pack(">4sIHHH", b"MThd", 6, 0, 1, TICKS_A_QUARTER)
    return header + struct.pack(">4sI", b"MTrk", len(track)) + bytes(track)


def _events(pieces: Sequence[Frames]) -> tuple[list[tuple[int, int, int]], int]:
    """(tick, status, note) of every event, at each tick the ends of notes before the beginnings;
    and the tick at which the last piece ends."""
    events: list[tuple[int, int, int]] = []
    begin = end = 0
    for piece in pieces:
        for note, first, after in note_ranges(piece):
            events.append((begin + first * FRAME_TICKS, _NOTE_ON, note))
            events.append((begin + after * FRAME_TICKS, _NOTE_OFF, note))
        end = begin + len(piece) * FRAME_TICKS
        begin = end + PAUSE_FRAMES * FRAME_TICKS
    return sorted(events), end


def _variable_length(value: int) -> bytes:
    """Seven bits a byte, the highest first; all bytes but the last have their top bit set."""
    parts = [value & 0x7F]
    while value := value >> 7:
        parts.append(0x80 | (value & 0x7F))
    return bytes(reversed(parts))

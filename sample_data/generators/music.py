"""Little chorales in four parts, by the rules that a first course of harmony teaches.

A phrase of eight beats is a walk through chords that ends in a cadence; the voices are then led
through it: no parallel fifths or octaves, no crossing, small steps, the leading note rises, the
seventh falls. A beat is two frames; where a voice moves by a third, the note between may pass.
"""

from __future__ import annotations

from functools import cache
from itertools import combinations, pairwise

from generators.draw import Draw

Voicing = tuple[int, int, int, int]  # MIDI notes: bass, tenor, alto, soprano

RANGES = ((40, 60), (48, 67), (55, 74), (60, 79))
SCALES = {"major": (0, 2, 4, 5, 7, 9, 11), "minor": (0, 2, 3, 5, 7, 8, 10)}
BEATS = 8  # a phrase
BEAM = 6

# chord: what may follow it, with weights; "6" is the first inversion, "64" the second
FOLLOWS = {
    "I": (("IV", 4), ("V", 3), ("VI", 3), ("II", 2), ("II6", 2), ("I6", 2), ("V6", 2), ("IV6", 1)),
    "I6": (("IV", 3), ("II6", 3), ("V", 2), ("I", 1)),
    "II": (("V", 5), ("V7", 3), ("II6", 1)),
    "II6": (("V", 5), ("V7", 3), ("I64", 1)),
    "IV": (("V", 4), ("I", 3), ("II6", 2), ("I6", 1), ("V7", 1)),
    "IV6": (("V", 3), ("I6", 1)),
    "I64": (("V", 3), ("V7", 2)),
    "V": (("I", 6), ("VI", 2), ("V7", 1), ("I6", 1)),
    "V6": (("I", 1),),
    "V7": (("I", 4), ("VI", 1)),
    "VI": (("IV", 4), ("II6", 3), ("II", 2), ("V", 1)),
}
CADENCES = {
    "authentic": (("V", "I"), ("V7", "I"), ("I64", "V", "I"), ("II6", "V7", "I")),
    "half": (("II6", "V"), ("IV", "V"), ("I", "V")),
    "deceptive": (("V", "VI"), ("II6", "V", "VI")),
    "plagal": (("IV", "I"),),
}
DEGREES = {"I": 0, "II": 1, "IV": 3, "V": 4, "VI": 5}


@cache
def chord_notes(chord: str, mode: str) -> tuple[int, ...]:
    """The chord's notes above the tonic, in semitones, root first; the dominant's third is the
    leading note in minor too."""
    degree = DEGREES[chord.rstrip("4567")]
    steps = (0, 2, 4, 6) if chord.endswith("7") else (0, 2, 4)
    notes = [SCALES[mode][(degree + step) % 7] for step in steps]
    return tuple(11 if note == 10 and degree == 4 else note for note in notes)


@cache
def voicings(chord: str, mode: str, tonic: int) -> tuple[tuple[Voicing, int], ...]:
    """Every way to set the chord in four voices, with the cost of what it doubles."""
    pitches = [(note + tonic) % 12 for note in chord_notes(chord, mode)]
    bass = pitches[{"6": 1, "4": 2}.get(chord[-1], 0)]
    leading = (11 + tonic) % 12
    found: list[tuple[Voicing, int]] = []
    rows = [[n for n in range(low, high + 1) if n % 12 in pitches] for low, high in RANGES]
    for b in (note for note in rows[0] if note % 12 == bass):
        for t in (note for note in rows[1] if b < note <= b + 19):
            for a in (note for note in rows[2] if t < note <= t + 12):
                for s in (note for note in rows[3] if a < note <= a + 12):
                    classes = [b % 12, t % 12, a % 12, s % 12]
                    if set(classes) != set(pitches) or classes.count(leading) > 1:
                        continue
                    doubled = [p for p in pitches if classes.count(p) == 2]
                    best = bass if chord.endswith("64") else pitches[0]
                    cost = 0 if not doubled or doubled[0] == best else 3
                    found.append(((b, t, a, s), cost))
    return tuple(found)


def parallel(before: Voicing, after: Voicing) -> bool:
    """Whether two voices move together from one fifth or octave to another."""
    for low, high in combinations(range(4), 2):
        interval = (after[high] - after[low]) % 12
        moved = after[low] - before[low], after[high] - before[high]
        if (
            interval in (0, 7)
            and (before[high] - before[low]) % 12 == interval
            and moved[0] != 0
            and moved[1] != 0
        ):
            return True
    return False


def _motion(before: Voicing, after: Voicing) -> int | None:
    """The cost of moving on, or None if a rule forbids it."""
    leaps = [abs(new - old) for old, new in zip(before, after, strict=True)]
    if max(leaps[1:]) > 7 or leaps[0] > 12 or leaps[0] in (6, 10, 11) or 6 in leaps[1:]:
        return None
    for low in range(3):
        if after[low] > before[low + 1] or after[low + 1] < before[low]:
            return None
    if parallel(before, after):
        return None
    still = 3 if leaps[3] == 0 else 0
    return leaps[0] // 3 + leaps[1] + leaps[2] + leaps[3] + still


def _resolves(chord: str, following: str, tonic: int, before: Voicing, after: Voicing) -> bool:
    """The leading note rises to the tonic (an inner voice may fall to the fifth), the seventh of
    the dominant falls by a step."""
    if not chord.startswith("V") or chord == "VI" or following[:2] not in ("I", "I6", "VI"):
        return True
    for voice, (old, new) in enumerate(zip(before, after, strict=True)):
        step = new - old
        if old % 12 == (11 + tonic) % 12 and step != 1 and (voice in (0, 3) or step != -4):
            return False
        if chord == "V7" and old % 12 == (5 + tonic) % 12 and step not in (-1, -2):
            return False
    return True


def lead(draw: Draw, chords: list[str], mode: str, tonic: int) -> list[Voicing] | None:
    """A voicing for each chord, found with a small beam; None if the rules leave none."""
    centre = 66 + draw.below(5)
    beam = [
        (cost + abs(voicing[3] - centre) + draw.below(4), [voicing])
        for voicing, cost in voicings(chords[0], mode, tonic)
    ]
    beam = sorted(beam)[:BEAM]
    for chord, following in pairwise(chords):
        ways: list[tuple[int, list[Voicing]]] = []
        for total, path in beam:
            before = path[-1]
            for after, cost in voicings(following, mode, tonic):
                if abs(after[3] - before[3]) > 7 or abs(after[2] - before[2]) > 7:
                    continue
                motion = _motion(before, after)
                if motion is None or _augmented(before, after, tonic):
                    continue
                if not _resolves(chord, following, tonic, before, after):
                    continue
                drift = abs(after[3] - centre) // 3
                ways.append((total + cost + motion + drift + draw.below(4), [*path, after]))
        beam = sorted(ways)[:BEAM]
        if not beam:
            return None
    return beam[0][1]


def _augmented(before: Voicing, after: Voicing, tonic: int) -> bool:
    """Whether a voice moves between the sixth of the minor scale and the leading note."""
    return any(
        {(old - tonic) % 12, (new - tonic) % 12} == {8, 11}
        for old, new in zip(before, after, strict=True)
    )


def walk(draw: Draw, start: str, cadence: tuple[str, ...]) -> list[str]:
    """One chord a beat from ``start`` to the cadence, whose last chord lasts two beats."""
    while True:
        chords = [start]
        while len(chords) < BEATS - 1 - len(cadence):
            chords.append(draw.weighted(FOLLOWS[chords[-1]]))
        if cadence[0] in dict(FOLLOWS[chords[-1]]):
            return chords + list(cadence)


def _passing(before: int, after: int, mode: str, tonic: int) -> int | None:
    """The note of the scale between two notes a third apart; the melodic minor under a leading
    note."""
    if abs(after - before) not in (3, 4):
        return None
    ends = {(before - tonic) % 12, (after - tonic) % 12}
    scale = (9,) if ends == {7, 11} else SCALES[mode]
    between = [
        note
        for note in range(min(before, after) + 1, max(before, after))
        if (note - tonic) % 12 in scale
    ]
    return between[0] if len(between) == 1 else None


def decorate(draw: Draw, here: Voicing, following: Voicing, mode: str, tonic: int) -> Voicing:
    """The second half of a beat: the same chord, perhaps with one passing note."""
    for voice in (3, 0, 1, 2):
        note = _passing(here[voice], following[voice], mode, tonic)
        if note is None or draw.chance(40):
            continue
        half = (*here[:voice], note, *here[voice + 1 :])
        passed: Voicing = (half[0], half[1], half[2], half[3])
        if passed[0] < passed[1] < passed[2] < passed[3] and not parallel(passed, following):
            return passed
    return here


def _phrases(draw: Draw, mode: str, tonic: int, cadences: list[str]) -> list[list[Voicing]]:
    """The voicings of every phrase, led as one piece so that the phrases join."""
    while True:
        chords: list[str] = []
        for cadence in cadences:
            start = draw.one([c for c, _ in FOLLOWS[chords[-1]]]) if chords else "I"
            chords += walk(draw, start, draw.one(CADENCES[cadence]))
        if mode == "minor":  # the second degree is diminished there and sounds well inverted only
            chords = ["II6" if chord == "II" else chord for chord in chords]
        led = lead(draw, chords, mode, tonic)
        if led is not None:
            length = BEATS - 1
            return [led[at : at + length] for at in range(0, len(led), length)]


def draw_chorale(draw: Draw) -> list[str]:
    """The frames of a piece: sounding notes joined with commas, ``-`` for a breath."""
    mode = draw.one(("major", "major", "minor"))
    tonic = draw.below(12)
    cadences = ["half", "authentic"]
    if draw.chance(70):
        cadences += [draw.one(("deceptive", "half", "plagal")), "authentic"]
    phrases = _phrases(draw, mode, tonic, cadences)
    if len(phrases) == 4 and draw.chance(25):
        phrases = phrases[:2] + phrases  # bar form: the first part is sung twice
    frames: list[str] = []
    for phrase in phrases:
        for here, following in pairwise(phrase):
            frames += [_frame(here), _frame(decorate(draw, here, following, mode, tonic))]
        frames += [_frame(phrase[-1])] * 3 + ["-"]
    return frames


def _frame(voicing: Voicing) -> str:
    return ",".join(str(note) for note in voicing)

"""Stop strings, however the text is cut."""

from __future__ import annotations

import itertools

from hypothesis import given, settings
from hypothesis import strategies as st

from rnncli.decoding.stops import StopText

TEXT = st.text("ab\n", max_size=20)
STOPS = st.lists(st.text("ab\n", min_size=1, max_size=4), max_size=3)


def until_first_complete(text: str, stops: list[str]) -> tuple[str, bool]:
    for end in range(1, len(text) + 1):
        ending = [stop for stop in stops if text[:end].endswith(stop)]
        if ending:
            return text[: end - max(map(len, ending))], True
    return text, False


@settings(deadline=None)
@given(TEXT, STOPS, st.lists(st.integers(0, 20), max_size=6))
def test_the_cuts_change_nothing(text: str, stops: list[str], cuts: list[int]) -> None:
    matcher, out, stopped = StopText(stops), "", False
    places = sorted({min(cut, len(text)) for cut in cuts} | {0, len(text)})
    expected = until_first_complete(text, stops)
    for start, end in itertools.pairwise(places):
        passed, stopped = matcher.push(text[start:end])
        out += passed
        assert expected[0].startswith(out)  # nothing of the stop string has been let through
        if stopped:
            break
    assert (out + matcher.finish(), stopped) == expected


@settings(deadline=None)
@given(TEXT, STOPS)
def test_text_is_held_back_only_while_it_may_become_a_stop(text: str, stops: list[str]) -> None:
    matcher = StopText(stops)
    passed, stopped = matcher.push(text)
    if not stopped:
        held = text[len(passed) :]
        assert not held or any(s.startswith(held) and len(s) > len(held) for s in stops)


def test_a_stop_that_is_complete_before_it_counts_is_text() -> None:
    matcher = StopText(["ab"])
    assert matcher.push("ab", armed=False) == ("ab", False)
    assert matcher.push("xa", armed=False) == ("x", False)
    assert matcher.push("b") == ("", True)

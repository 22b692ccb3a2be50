"""Stop strings in a text that comes in pieces."""

from __future__ import annotations

from collections.abc import Sequence


class StopText:
    """Passes text on until a stop string appears in it, however the pieces cut that string.

    Text that may turn out to be the start of a stop string is held back.
    """

    def __init__(self, stops: Sequence[str]) -> None:
        """``stops``: none of them empty."""
        self._stops = tuple(stops)
        self._held = ""

    def push(self, text: str, armed: bool = True) -> tuple[str, bool]:
        """What can be passed on now, and whether a stop string has come: the text ends before it.

        A stop string that is complete while not ``armed`` is text like any other.
        """
        if not self._stops:
            return text, False
        pending = self._held + text
        found = [(s + len(stop), s) for stop in self._stops if (s := pending.find(stop)) >= 0]
        if found and armed:
            self._held = ""
            _, start = min(found)  # the first to be complete, as if the text came by characters
            return pending[:start], True
        held = self._undecided(pending)
        self._held = pending[len(pending) - held :]
        return pending[: len(pending) - held], False

    def finish(self) -> str:
        """What was held back, when no more text comes."""
        held, self._held = self._held, ""
        return held

    def _undecided(self, pending: str) -> int:
        """The length of the longest end of ``pending`` that a stop string begins with."""
        longest = min(len(pending), max(map(len, self._stops)) - 1)
        for length in range(longest, 0, -1):
            if any(stop.startswith(pending[-length:]) for stop in self._stops):
                return length
        return 0

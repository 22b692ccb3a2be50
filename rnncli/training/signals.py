"""Stopping politely: the first Ctrl-C or SIGTERM asks the loop to save and end."""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType
from typing import Any

from rnncli.errors import Interrupted, RnncliError, Terminated


class StopSignals:
    """While entered, SIGINT and SIGTERM are noted instead of ending the process; a second SIGINT
    interrupts at once. Outside the main thread it notes nothing."""

    def __init__(self) -> None:
        self.received: int | None = None
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> StopSignals:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._previous[number] = signal.signal(number, self._note)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        if threading.current_thread() is threading.main_thread():
            for number, handler in self._previous.items():
                signal.signal(number, handler or signal.SIG_DFL)  # None: not set from Python

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.received is not None and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.received = number

    def error(self, step: int) -> RnncliError:
        """What to raise once the state of ``step`` is saved."""
        kind = Interrupted if self.received == signal.SIGINT else Terminated
        return kind(f"stopped after step {step}; the state is saved, --resume goes on from it")

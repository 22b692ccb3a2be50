"""Everything that can go wrong, and the exit code each ends with.

    RnncliError            1   something failed while running
    ├── UsageError         2   the request itself is wrong (option, configuration, combination)
    ├── DataError         65   the input is wrong (text, pairs, labels, model file)
    │   └── ModelError    65   a model file is damaged, hostile or of an unknown format
    ├── FileError         74   a file cannot be read or written
    ├── Interrupted      130   Ctrl-C, after saving
    ├── ClosedPipe       141   whoever read our output went away
    └── Terminated       143   SIGTERM, after saving

A message says what is wrong, where (file:line, option, value) and what would be right.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class RnncliError(Exception):
    """Something failed while running."""

    exit_code = 1


class UsageError(RnncliError):
    """The request is wrong: an option, a configuration value, a combination of them."""

    exit_code = 2


class DataError(RnncliError):
    """The input is wrong: text, pairs, labels or a model's file."""

    exit_code = 65


class ModelError(DataError):
    """A model's file is damaged, hostile or of an unknown format."""


class FileError(RnncliError):
    """A file cannot be read or written."""

    exit_code = 74

    @classmethod
    def of(cls, action: str, path: object, error: OSError) -> FileError:
        """The error for ``action`` ("read", "write") on ``path``, in one line."""
        return cls(f"cannot {action} {path}: {error.strerror or error}")


class Interrupted(RnncliError):
    """Ctrl-C."""

    exit_code = 130


class ClosedPipe(RnncliError):
    """The reader of our output closed it."""

    exit_code = 141


class Terminated(RnncliError):
    """SIGTERM."""

    exit_code = 143


def choices_hint(value: str, choices: Iterable[str]) -> str:
    """``"; did you mean 'lstm'? Choices: elman, gru, lstm"`` for the end of a message."""
    names = list(choices)
    near = difflib.get_close_matches(value, names, n=1, cutoff=0.5)
    guess = f"; did you mean {near[0]!r}?" if near else "."
    return f"{guess} Choices: {', '.join(names)}"


def is_out_of_memory(error: BaseException) -> bool:
    """Whether there was no memory, here or on a device, as Python or torch says it."""
    text = str(error)
    return isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError)
        and ("out of memory" in text or "allocate memory" in text)  # torch's, CUDA and CPU
    )

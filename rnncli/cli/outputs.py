"""Files that a command writes beside its text, or in its place."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Iterable
from pathlib import Path

from rnncli.errors import ClosedPipe, FileError
from rnncli.files import write_atomically


def require_writable(name: str | None) -> None:
    """Raise FileError at the start for a file that could not be written at the end. None: there is
    none to be written; "-" is standard output."""
    if name is None or name == "-":
        return
    path = Path(name)
    problem = 0
    if path.is_dir():
        problem = errno.EISDIR
    elif not path.parent.is_dir():
        problem = errno.ENOENT
    elif not os.access(path if path.exists() else path.parent, os.W_OK):
        problem = errno.EACCES
    if problem:
        raise FileError.of("write", name, OSError(problem, os.strerror(problem)))


def write_output(name: str, parts: Iterable[bytes]) -> None:
    """Make the file ``name`` hold ``parts``, or write them to standard output for "-". Raises
    FileError, and ClosedPipe when the reader went away."""
    if name != "-":
        write_atomically(Path(name), parts)
        return
    sys.stdout.flush()
    try:
        for part in parts:
            sys.stdout.buffer.write(part)
        sys.stdout.buffer.flush()
    except BrokenPipeError:
        raise ClosedPipe from None

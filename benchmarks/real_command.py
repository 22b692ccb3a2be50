"""What benchmarks through the real command share."""

from __future__ import annotations

import subprocess
import sys


def split_arguments() -> tuple[list[str], list[str]]:
    """The benchmark's own arguments, and those after ``--``, which are handed on."""
    argv = sys.argv[1:]
    if "--" not in argv:
        return argv, []
    cut = argv.index("--")
    return argv[:cut], argv[cut + 1 :]


def rnncli(*arguments: object) -> str:
    """The standard output of ``rnncli`` with these arguments."""
    command = [sys.executable, "-m", "rnncli", *map(str, arguments)]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout

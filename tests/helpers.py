"""What tests of several rooms share."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
RNNCLI = (sys.executable, "-m", "rnncli")


def cli_env(env: Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment for a subprocess: this checkout is the one imported, one thread."""
    path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    return {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", **(env or {})}


def run_cli(
    *args: str | Path,
    input: bytes = b"",
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    timeout: float = 60,
) -> subprocess.CompletedProcess[bytes]:
    """Run the real command line as a process of its own; ``env`` is added to the environment."""
    return subprocess.run(
        [*RNNCLI, *map(str, args)],
        input=input,
        env=cli_env(env),
        cwd=cwd,
        capture_output=True,
        timeout=timeout,
    )

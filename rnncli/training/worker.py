"""A training run in a process of its own: ``python -m rnncli.training.worker FOLDER``.

What the run is comes as TOML over standard input; its events go out as lines of JSON over standard
output to the process that started this one. An earlier part of the run in FOLDER is gone on with.
Not ``multiprocessing``: that would import the user's main script again.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tomllib
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from pathlib import Path

from rnncli.config import Config
from rnncli.errors import Interrupted, RnncliError, Terminated
from rnncli.training.events import Event, Finished, from_json, to_json
from rnncli.training.loop import Diverged
from rnncli.training.run import train


@dataclass(frozen=True)
class Failed:
    """The end of a run that has none. ``diverged``: it would end so again."""

    reason: str
    diverged: bool = False


def run_here(config: Config, folder: Path) -> Iterator[Event | Failed]:
    """Train into ``folder``, from where an earlier part of the run stopped. What goes wrong is the
    last event; only the signals that end a process still raise."""
    try:
        yield from train(config, folder, resume=True)
    except (Interrupted, Terminated):
        raise
    except RnncliError as error:
        yield Failed(str(error), isinstance(error, Diverged))
    except Exception as error:
        first = (str(error).splitlines() or [""])[0]
        yield Failed(f"{type(error).__name__}: {first}")


def run_apart(config: Config, folder: Path) -> Generator[Event | Failed, None, None]:
    """The same in a new process, whose memory is the run's alone. When this one is interrupted or
    the generator is closed, the run saves its state and ends first."""
    path = os.pathsep.join(entry for entry in sys.path if entry)
    process = subprocess.Popen(
        # -P keeps the working folder off the path: a file of the user's could hide a module
        [sys.executable, "-P", "-m", "rnncli.training.worker", str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": path},
        process_group=0,  # Ctrl-C is for this process, which passes it on once
    )
    assert process.stdin
    assert process.stdout
    last: Event | Failed | None = None
    try:
        process.stdin.write(config.to_toml().encode())
        process.stdin.close()
        for line in process.stdout:
            if not line.endswith(b"\n"):  # it was killed while it wrote
                break
            last = _read(line)
            yield last
        code = process.wait()
    except BrokenPipeError:
        code = process.wait()
    finally:
        if process.poll() is None:
            process.terminate()
            process.wait()
        process.stdout.close()
    if not isinstance(last, (Finished, Failed)):
        yield Failed(_ending(code))


def _write(event: Event | Failed) -> str:
    if isinstance(event, Failed):
        return json.dumps({"failed": event.reason, "diverged": event.diverged})
    return to_json(event)


def _read(line: bytes) -> Event | Failed:
    values = json.loads(line)
    if "failed" in values:
        return Failed(values["failed"], values["diverged"])
    return from_json(line)


def _ending(code: int) -> str:
    if code >= 0:
        return f"its process ended with code {code}"
    name = signal.Signals(-code).name
    return f"its process was ended by {name}" + (
        ", as the system does when memory is short" if -code == signal.SIGKILL else ""
    )


def main() -> None:
    config = Config.from_dict(tomllib.loads(sys.stdin.buffer.read().decode()))
    # Events alone go where the events go; whatever a library prints joins the errors.
    with os.fdopen(os.dup(1), "wb") as stream:
        os.dup2(2, 1)
        try:
            for event in run_here(config, Path(sys.argv[1])):
                stream.write(f"{_write(event)}\n".encode())
                stream.flush()
        except BrokenPipeError:
            return
        except RnncliError as error:  # ended by a signal, after saving
            sys.exit(error.exit_code)


if __name__ == "__main__":
    main()

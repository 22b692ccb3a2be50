"""A run from its configuration to its end: the folder, the machine, the data, the loop."""

from __future__ import annotations

import time
from collections.abc import Generator
from pathlib import Path

from rnncli import runtime as machine
from rnncli.config import Config
from rnncli.files import lock_run
from rnncli.text.corpus import Progress
from rnncli.training.engine import settle_engine
from rnncli.training.events import Event
from rnncli.training.loop import Loop
from rnncli.training.run_folder import RunFolder
from rnncli.training.signals import StopSignals
from rnncli.training.start import read_start
from rnncli.training.tasks import open_task


def train(
    config: Config,
    folder: Path,
    *,
    resume: bool = False,
    overwrite: bool = False,
    notes: tuple[str, ...] = (),
    progress: Progress | None = None,
) -> Generator[Event, None, None]:
    """Train as ``config`` says, into ``folder``; yields events until the run is finished.

    Nothing in ``folder`` changes before the text is read. Closing the generator ends the run where
    it is, without saving, and gives the folder back.

    Raises UsageError when ``folder`` holds another run (unless ``resume`` or ``overwrite``) or is
    in use, DataError and FileError for text that cannot be used, Diverged, and after saving
    Interrupted or Terminated.
    """
    began = time.monotonic()
    with lock_run(folder):
        place = RunFolder(folder)
        saved = place.look(config, resume=resume, overwrite=overwrite)
        precision = config.training.precision if saved is None else saved.precision(config)
        runtime = machine.prepare(config.training.device, precision, config.training.threads)
        start = read_start(config) if saved is None else None
        tokenizers = () if saved is None else saved.tokenizers()
        if start is not None:
            tokenizers = start.tokenizers
        task = open_task(config, tokenizers, runtime, progress)
        if start is not None:
            start.fill(task.model)
            notes = (*notes, start.note)
        place.describe_data(task)
        measured = settle_engine(config, task, None if saved is None else saved.engine)
        # Reading the text may take long and has nothing to save: until here a signal ends it.
        with StopSignals() as stop:
            loop = Loop(config, task, place, stop, began)
            if saved is not None:
                saved.restore(loop)
            place.begin(config, anew=saved is None)
            yield loop.started(runtime.describe(), (*notes, *task.notes, *measured))
            yield from loop.events()

"""The tasks by name. A task is a file in this folder with a function ``open_task``."""

from __future__ import annotations

from importlib import import_module

from rnncli.config import Config
from rnncli.runtime import Runtime
from rnncli.text.corpus import Progress
from rnncli.text.tokenizers import Tokenizer
from rnncli.training.task import Task

MODULES = {"lm": "language_modelling"}
"""Of each name in ``rnncli.config.TASKS``, up to its colon."""


def open_task(
    config: Config, tokenizer: Tokenizer | None, runtime: Runtime, progress: Progress | None
) -> Task:
    """The task that ``config.task`` names, its data read, its model fresh from ``config.seed``.

    ``tokenizer``: that of the run to go on with, None for a new one. Raises FileError and DataError
    for data that cannot be used, UsageError for a model that the task cannot have.
    """
    module = import_module(f"rnncli.training.{MODULES[config.task.partition(':')[0]]}")
    task: Task = module.open_task(config, tokenizer, runtime, progress)
    return task

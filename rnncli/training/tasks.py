"""The tasks by name. A task is a file in this folder with a function ``open_task``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import Any

from rnncli.config import Config
from rnncli.heeded import unheeded
from rnncli.model_section import ModelConfig, cell_names
from rnncli.runtime import Runtime
from rnncli.sections import DataConfig
from rnncli.text.corpus import Progress
from rnncli.text.tokenizers import Tokenizer
from rnncli.training.task import Task

MODULES = {
    "lm": "language_modelling",
    "translate": "translation",
    "music": "music",
    "synthetic": "synthetic",
}
"""Of each name in ``rnncli.config.TASKS``, up to its colon."""

DEFAULTS = {
    "lm": "defaults",
    "translate": "translation_defaults",
    "music": "music_defaults",
    "synthetic": "synthetic",
}
"""Files with a function ``choose``, of tasks whose settings follow from their data."""

REQUIRED: dict[str, dict[str, Any]] = {
    "translate": {"training.state": "reset"},
    "music": {"training.state": "reset"},
}
"""Settings that a task cannot do without, and that are not every task's."""


def choose(data: DataConfig, fixed: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Values for every setting that matters to ``fixed["task"]`` and its cells and is not in
    ``fixed``, dotted names that the user has set; and the reasons. Raises FileError and DataError
    for data that cannot be used, UsageError for a setting that the task does not have."""
    task = str(fixed.get("task", "lm")).partition(":")[0]
    module = import_module(f"rnncli.training.{DEFAULTS[task]}")
    values, reasons = module.choose(data, fixed)
    cells = [str(fixed.get("model.cell", ModelConfig.cell))]
    if "model.encoder_cell" in fixed:
        cells.append(str(fixed["model.encoder_cell"]))
    idle = unheeded(name for cell in cells for name in cell_names(cell))
    return {name: value for name, value in values.items() if name not in idle}, reasons


def open_task(
    config: Config,
    tokenizers: Sequence[Tokenizer],
    runtime: Runtime,
    progress: Progress | None,
) -> Task:
    """The task that ``config.task`` names, its data read, its model fresh from ``config.seed``.

    ``tokenizers``: that of the run to go on with, and that of its source if it has one; none for a
    new run. Raises FileError and DataError
    for data that cannot be used, UsageError for a model that the task cannot have.
    """
    module = import_module(f"rnncli.training.{MODULES[config.task.partition(':')[0]]}")
    task: Task = module.open_task(config, tokenizers, runtime, progress)
    return task

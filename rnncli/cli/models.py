"""Arguments that several commands share: a model or an ensemble, then a file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from typer import Argument, Context, Option

from rnncli.cli.streams import OnBadInput
from rnncli.errors import UsageError
from rnncli.sections import DEVICES, DataConfig

Model = Annotated[
    Path | None,
    Argument(metavar="MODEL", help="A model's file or a run's folder.", show_default=False),
]
InputFile = Annotated[
    str | None,
    Argument(metavar="[FILE]", help="Text; gzip if it ends in .gz. Default: standard input."),
]
MoreModels = Annotated[
    list[Path] | None,
    Option("-m", "--model", metavar="MODEL", help="Another model of an ensemble (repeatable)."),
]
StripLines = Annotated[
    bool | None,
    Option(
        "--strip-lines/--no-strip-lines",
        help="Drop white space around each line. Default: as in training.",
        show_default=False,
    ),
]
BadInput = Annotated[
    OnBadInput, Option("--on-bad-input", help="What becomes of a line that makes no sense.")
]
Device = Annotated[str, Option("--device", metavar="|".join(DEVICES), help="Where to compute.")]
Threads = Annotated[
    int, Option("--threads", metavar="N", min=0, help="Processor threads; 0: all cores.")
]


def models_and_file(
    model: Path | None, file: str | None, more: list[Path] | None
) -> tuple[list[Path], str | None]:
    """The models of an ensemble, and the file.

    With -m, MODEL may be left out: ``-m A -m B FILE``. A single argument is a model when it is a
    folder or ends in .safetensors. Raises UsageError when there is no model.
    """
    others = list(more or ())
    if model is None and not others:
        raise UsageError("Missing argument 'MODEL': a model's file or a run's folder")
    if model is None:
        return others, file
    if others and file is None and not (model.is_dir() or model.suffix == ".safetensors"):
        return others, str(model)
    return [model, *others], file


TRAINING_TEXT = ("data.train", "data.source", "data.target")


def require_text(task: str, given: Mapping[str, Any]) -> None:
    """Raise UsageError when a task has no file to learn from in any of the settings of
    ``TRAINING_TEXT``, and does not make its own data."""
    if not any(given.get(name) for name in TRAINING_TEXT) and not task.startswith("synthetic:"):
        raise UsageError("no training text; give at least one file, or - for standard input")


def text_of(data: DataConfig) -> dict[str, Any]:
    """The settings of ``TRAINING_TEXT``."""
    return {name: getattr(data, name.removeprefix("data.")) for name in TRAINING_TEXT}


def task_of(model: Path) -> str:
    """The task that a model is for, by its header alone; raises as ``read_header`` does."""
    from rnncli.checkpoint import read_header

    return str(read_header(model).config.get("task", "lm"))


def all_options_but(context: Context, *names: str) -> frozenset[str]:
    """The names of the command's parameters, without ``names``."""
    return frozenset(parameter.name or "" for parameter in context.command.params) - {*names}


def refuse_options(context: Context, allowed: frozenset[str], what: str) -> None:
    """Raise UsageError for an option that was given and is not ``allowed`` (names of parameters)
    with ``what``, such as "a model of music"."""
    for parameter in context.command.params:
        source = context.get_parameter_source(parameter.name or "")
        given = source is not None and source.name == "COMMANDLINE"
        if given and parameter.name not in allowed:
            raise UsageError(f"{parameter.opts[-1]}: not for {what}; leave it out")

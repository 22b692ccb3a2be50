"""``rnncli average``: several models' weights, one model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from rnncli.cli.console import note
from rnncli.errors import UsageError

EXAMPLES = """
rnncli average run/model-*.safetensors --out average.safetensors
"""


def average(
    models: Annotated[
        list[Path] | None,
        Argument(metavar="MODEL...", help="Models' files or runs' folders.", show_default=False),
    ] = None,
    out: Annotated[
        Path | None, Option("--out", "-o", help="File for the mean.", show_default=False)
    ] = None,
    overwrite: Annotated[bool, Option("--overwrite", help="Replace the file in --out.")] = False,
) -> None:
    """Write a model whose weights are the mean of those of several models.

    They must have one configuration and one vocabulary: those of the last validations of a run,
    which train keeps with --set training.keep_models=N, or runs that began from the same weights.
    """
    if not models:
        raise UsageError("Missing argument 'MODEL': two or more models' files or runs' folders")
    if out is None:
        raise UsageError("--out: missing; give a file for the mean, as in --out mean.safetensors")
    if out.exists() and not overwrite:
        raise UsageError(f"--out {out} exists; --overwrite replaces it")
    from rnncli.averaging import average_models

    average_models(models, out)
    note(f"{out}: the mean of {len(models)} models")

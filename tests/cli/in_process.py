"""A command run in the tests' own process: quicker than starting torch again each time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
import typer

from rnncli import cli

Run = Callable[..., str]


def in_process(name: str, capfd: pytest.CaptureFixture[str]) -> Iterator[Run]:
    """A function that runs the command with one thread and returns its standard output."""
    threads, precision = torch.get_num_threads(), torch.get_float32_matmul_precision()

    def run(*args: str | Path | float) -> str:
        command = typer.main.get_command(cli.load_app(name))
        with command.make_context(name, [*map(str, args), "--threads", "1"]) as context:
            command.invoke(context)
        out, run.err = capfd.readouterr()  # type: ignore[attr-defined]
        return out

    yield run
    torch.set_num_threads(threads)
    torch.set_float32_matmul_precision(precision)
    torch.set_flush_denormal(False)

"""The command line's frame: which commands there are, and how any of them ends.

A command is a row of ``COMMANDS`` and a file of the same name in this folder. The file has a
function of that name, whose signature typer turns into options, and ``EXAMPLES``: invocations, one
a line, that end its help and that a test runs. A command that is a family of commands has
``SUBCOMMANDS``, a tuple of functions, instead, and ``EXAMPLES`` for each by name. The file is
imported when its command is called: ``rnncli --help`` imports neither typer nor torch.
"""

from __future__ import annotations

import contextlib
import io
import os
import signal
import sys
from typing import TYPE_CHECKING, Any, NoReturn

from rnncli import __version__
from rnncli.errors import (
    ClosedPipe,
    Interrupted,
    RnncliError,
    Terminated,
    UsageError,
    choices_hint,
    is_out_of_memory,
)

if TYPE_CHECKING:
    import typer

COMMANDS = {
    "train": "Train a model on text files.",
    "evaluate": "Measure a model on a text: perplexity, bits per character and per byte.",
    "score": "One line in, one log-probability out.",
    "rescore": "Give the entries of n-best lists their log-probabilities.",
    "translate": "Translate lines.",
    "generate": "Sample text from a model.",
    "compare": "Train several cells on one corpus; one table of what each reached.",
    "explain": "Colour each token by its surprisal, or by what a unit or gate does.",
    "gradients": "Show how gradients vanish or explode through time in a model.",
    "tokenize": "Train a tokenizer; turn lines into pieces or ids, and back.",
    "zoo": "List published models, or print the configuration of one.",
    "average": "Average the weights of several models of one run.",
    "info": "Tell what is in a model's file.",
}

_HELP = """\
Usage: rnncli COMMAND [OPTIONS] [ARGUMENTS]...

  Recurrent text models: train, evaluate, sample.

Commands:
{commands}

Options:
  --version  Print the version.
  --debug    With any command: print the traceback of an error.
  --help     Print this, or after a command its options and examples.
"""


def main() -> NoReturn:
    """Run the command of ``sys.argv`` and exit with its code."""
    arguments, debug = _take_debug(sys.argv[1:])
    try:
        _prepare_process()
        code = _run(arguments)
        sys.stdout.flush()
    except BaseException as error:
        code = _report(error, debug)
        # What is still buffered cannot be written or is not wanted; Python must not try again.
        _drop_output(1)
    try:
        sys.stderr.flush()
    except (OSError, ValueError, AttributeError):  # a full disk: the exit code is still ours
        _drop_output(2)
    sys.exit(code)


def _drop_output(number: int) -> None:
    """Let what is still to be written to the file descriptor ``number`` go nowhere."""
    with contextlib.suppress(OSError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), number)


def load_app(name: str) -> typer.Typer:
    """The typer application of a command; imports its file."""
    from importlib import import_module

    import typer

    module = import_module(f"rnncli.cli.{name}")
    settings = {"help_option_names": ["--help", "-h"]}
    family = getattr(module, "SUBCOMMANDS", None)
    functions = family or (getattr(module, name),)
    app = typer.Typer(rich_markup_mode=None, add_completion=False, context_settings=settings)
    for function in functions:
        examples = module.EXAMPLES[function.__name__] if family else module.EXAMPLES
        lines = "\n".join(f"  {line}" for line in examples.strip().splitlines())
        app.command(epilog=f"Examples:\n\n\b\n{lines}", context_settings=settings)(function)
    if family:
        app.callback(help=COMMANDS[name])(lambda: None)
    return app


def _run(arguments: list[str]) -> int:
    name, *rest = arguments or [""]
    if name in ("--help", "-h", "help"):
        if name == "help" and rest:
            return _run([rest[0], "--help"])
        sys.stdout.write(_help())
        return 0
    if name == "--version":
        sys.stdout.write(f"rnncli {__version__}\n")
        return 0
    if not name:
        raise UsageError(f"no command given.\n\n{_help()}")
    if name not in COMMANDS:
        kind = "option" if name.startswith("-") else "command"
        raise UsageError(f"there is no {kind} {name!r}{choices_hint(name, COMMANDS)}")
    return _run_command(name, rest)


def _run_command(name: str, arguments: list[str]) -> int:
    import typer

    click_error = typer.BadParameter.__mro__[2]  # ClickException; typer has its own copy of click
    command = typer.main.get_command(load_app(name))
    try:
        # Not command.main(), which turns a closed pipe into exit code 1.
        with command.make_context(f"rnncli {name}", arguments) as context:
            command.invoke(context)
    except typer.Exit as error:
        return error.exit_code
    except Exception as error:
        if isinstance(error, click_error):
            place: Any = getattr(error, "ctx", None)
            path = place.command_path if place else f"rnncli {name}"
            raise UsageError(f"{_message(error)} (see {path} --help)") from error
        raise
    return 0


def _message(error: Any) -> str:
    """What typer says about an option, as one line without its full stop."""
    return " ".join(str(error.format_message()).split()).rstrip(".")


def _report(error: BaseException, debug: bool) -> int:
    """Say on stderr what went wrong, and return the exit code for it."""
    if isinstance(error, SystemExit):
        return error.code if isinstance(error.code, int) else int(error.code is not None)
    code, text = _describe(error)
    with contextlib.suppress(OSError, ValueError, AttributeError):  # stderr may be closed, too
        if debug:
            import traceback

            traceback.print_exception(error)
        if text:
            sys.stderr.write(f"rnncli: {text}\n")
        sys.stderr.flush()
    return code


def _describe(error: BaseException) -> tuple[int, str]:
    """The exit code for ``error``, and what to print."""
    text = str(error)
    if isinstance(error, KeyboardInterrupt):
        return Interrupted.exit_code, ""
    if isinstance(error, BrokenPipeError):
        return ClosedPipe.exit_code, ""
    if isinstance(error, (Interrupted, Terminated, ClosedPipe)):
        return error.exit_code, text
    if isinstance(error, RnncliError):
        return error.exit_code, f"error: {text}"
    if isinstance(error, OSError):
        where = "" if error.filename is None else f"{os.fsdecode(error.filename)}: "
        return 74, f"error: {where}{error.strerror or text}"
    if is_out_of_memory(error):
        return 1, "error: not enough memory; a smaller --batch-size, --bptt or model needs less"
    first = text.splitlines()[0] if text else "no message"
    return 1, (
        f"internal error: {type(error).__name__}: {first} "
        "(run again with --debug for the traceback)"
    )


def _take_debug(arguments: list[str]) -> tuple[list[str], bool]:
    """``arguments`` without --debug, which may stand anywhere before ``--``; whether it did."""
    end = arguments.index("--") if "--" in arguments else len(arguments)
    head = [argument for argument in arguments[:end] if argument != "--debug"]
    return head + arguments[end:], len(head) < end


def _prepare_process() -> None:
    # Idle OpenMP threads spin; where the cores are shared that starves the threads they wait for.
    # Read when torch is loaded. A short spin costs nothing on a quiet machine.
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")
    # A closed 0, 1 or 2 would be the number of the next file opened, and take what is printed.
    for stream, flags in ((0, os.O_WRONLY), (1, os.O_RDONLY), (2, os.O_RDONLY)):
        try:
            os.fstat(stream)
        except OSError:
            os.open(os.devnull, flags)
    if sys.stdout is None:  # was closed: let printing fail as writing does
        sys.stdout = os.fdopen(1, "w", closefd=False)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(encoding="utf-8", errors="surrogateescape")
    signal.signal(signal.SIGTERM, _terminate)


def _terminate(number: int, frame: object) -> NoReturn:
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # a second one does not wait
    raise SystemExit(Terminated.exit_code)


def _help() -> str:
    width = max(map(len, COMMANDS))
    rows = (f"  {name:<{width}}  {text}" for name, text in COMMANDS.items())
    return _HELP.format(commands="\n".join(rows))

"""How commands end: exit codes, messages, signals, closed and full outputs."""

import os
import re
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from rnncli import __version__, cli
from rnncli.checkpoint import write_tokenizer
from rnncli.errors import DataError, Interrupted, UsageError
from rnncli.sections import TokenizerConfig
from rnncli.text.tokenizers import train_tokenizer
from tests.helpers import RNNCLI, cli_env, run_cli


@pytest.fixture(scope="module")
def byte_tok(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("frame") / "byte.tok"
    write_tokenizer(path, train_tokenizer(TokenizerConfig(kind="byte"), []))
    return path


@contextmanager
def running(*args: str | Path) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(
        [*RNNCLI, *map(str, args)],
        env=cli_env(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        bufsize=0,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def shell(command: str, *args: str | Path) -> tuple[int, str]:
    """Run bash with ``rnncli`` as a function and ``args`` as $1, $2; its exit code and stderr."""
    script = f'rnncli() {{ "{RNNCLI[0]}" -m rnncli "$@"; }}\n{command}'
    done = subprocess.run(
        ["bash", "-c", script, "bash", *map(str, args)],
        env=cli_env(),
        capture_output=True,
        timeout=60,
        text=True,
    )
    return done.returncode, done.stderr


def test_help_is_complete():
    done = run_cli("--help")
    assert done.returncode == 0
    assert not done.stderr
    for name, text in cli.COMMANDS.items():
        assert re.search(rf"^  {name} +{re.escape(text)}$", done.stdout.decode(), re.M)


def test_version():
    assert run_cli("--version").stdout.decode() == f"rnncli {__version__}\n"
    installed = [str(Path(sys.executable).parent / "rnncli"), "--version"]
    done = subprocess.run(installed, env=cli_env(), capture_output=True, check=True)
    assert done.stdout.decode() == f"rnncli {__version__}\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "no command given."),
        (["tokenise"], "there is no command 'tokenise'; did you mean 'tokenize'? Choices: train"),
        (["--frobnicate"], "there is no option '--frobnicate'"),
        (["tokenize"], "Missing command (see rnncli tokenize --help)"),
        (["tokenize", "encode", "--idz", "x"], "No such option: --idz"),
        (
            ["tokenize", "encode"],
            "Missing argument 'TOKENIZER' (see rnncli tokenize encode --help)",
        ),
        (["tokenize", "encode", "a", "b", "c"], "Got unexpected extra argument"),
        (["tokenize", "encode", "a", "--on-bad-input", "x"], "'--on-bad-input'"),
        (["tokenize", "train", "f", "--out", "x", "--tokenizer", "bep"], "did you mean 'bpe'?"),
        (["tokenize", "train", "f", "--out", "x", "--vocab-size", "many"], "'--vocab-size'"),
        (["tokenize", "train", "f", "--out", "x.model"], "a .model file holds a bpe or unigram"),
    ],
)
def test_wrong_usage(arguments, message, capsys, monkeypatch):
    code, out, err = in_process(arguments, capsys, monkeypatch)
    assert (code, out) == (2, "")
    assert err.startswith("rnncli: error: ")
    assert message in err
    assert "Traceback" not in err


def in_process(
    arguments: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> tuple[object, str, str]:
    """main() without a process of its own: exit code, stdout, stderr."""
    monkeypatch.setattr("sys.argv", ["rnncli", *arguments])
    monkeypatch.setattr(os, "dup2", lambda *_: None)
    old = signal.getsignal(signal.SIGTERM)
    try:
        with pytest.raises(SystemExit) as ended:
            cli.main()
    finally:
        signal.signal(signal.SIGTERM, old)
    captured = capsys.readouterr()
    return ended.value.code, captured.out, captured.err


@pytest.mark.parametrize(
    ("error", "code", "text"),
    [
        (UsageError("--lr -1: too low"), 2, "error: --lr -1: too low"),
        (DataError("f:3: bad"), 65, "error: f:3: bad"),
        (FileNotFoundError(2, "No such file or directory", "x"), 74, "error: x: No such file"),
        (OSError("strange"), 74, "error: strange"),
        (PermissionError(13, "Permission denied", b"x"), 74, "error: x: Permission denied"),
        (KeyboardInterrupt(), 130, ""),
        (Interrupted("saved at step 3"), 130, "saved at step 3"),
        (BrokenPipeError(32, "Broken pipe"), 141, ""),
        (SystemExit(143), 143, ""),
        (SystemExit(None), 0, ""),
        (MemoryError(), 1, "error: not enough memory"),
        (RuntimeError("CUDA out of memory. Tried to allocate"), 1, "error: not enough memory"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), 1, "error: not enough memory"),
        (
            RuntimeError("shape '[2]'\nis"),
            1,
            "internal error: RuntimeError: shape '[2]' (run again",
        ),
        (KeyError(), 1, "internal error: KeyError: no message (run again with --debug"),
        (RecursionError("deep"), 1, "internal error: RecursionError: deep"),
    ],
)
def test_every_error_has_its_end(error, code, text, capsys, monkeypatch):
    def fail(arguments: list[str]) -> int:
        raise error

    monkeypatch.setattr(cli, "_run", fail)
    found, out, err = in_process(["x"], capsys, monkeypatch)
    assert (found, out) == (code, "")
    assert err.startswith(f"rnncli: {text}") if text else err == ""
    assert err.count("\n") == bool(text)
    found, _, err = in_process(["x", "--debug"], capsys, monkeypatch)
    assert found == code
    assert ("Traceback" in err) == (not isinstance(error, SystemExit))


def test_debug_may_stand_anywhere_but_behind_the_dashes(monkeypatch, capsys):
    seen: list[list[str]] = []
    monkeypatch.setattr(cli, "_run", lambda arguments: seen.append(arguments) or 0)
    for arguments in (["--debug", "a", "b"], ["a", "--debug", "b"], ["a", "b", "--debug"]):
        assert in_process(arguments, capsys, monkeypatch)[0] == 0
        assert seen.pop() == ["a", "b"]
    in_process(["a", "--", "--debug"], capsys, monkeypatch)
    assert seen.pop() == ["a", "--", "--debug"]


def test_files_that_cannot_be_read(byte_tok, tmp_path):
    for arguments, where in [
        (["tokenize", "encode", tmp_path / "missing.tok"], "missing.tok: No such file"),
        (["tokenize", "encode", byte_tok, tmp_path / "missing.txt"], "missing.txt: No such file"),
        (["tokenize", "encode", byte_tok, tmp_path], f"{tmp_path}: Is a directory"),
        (["info", tmp_path], "holds no model"),
    ]:
        done = run_cli(*arguments)
        assert (done.returncode, done.stdout) == (74, b"")
        assert where in done.stderr.decode()
        assert done.stderr.count(b"\n") == 1


def test_a_reader_that_goes_away(byte_tok):
    code, err = shell(
        'yes | rnncli tokenize encode "$1" | head -1; exit ${PIPESTATUS[1]}', byte_tok
    )
    assert (code, err) == (141, "")
    code, err = shell("rnncli --help | true; exit ${PIPESTATUS[0]}")
    assert err == ""
    assert code in (0, 141)  # whichever was quicker


@pytest.mark.parametrize("where", ["> /dev/full", ">&-"])
def test_an_output_that_takes_nothing(where, byte_tok):
    for command in ('echo hi | rnncli tokenize encode "$1"', "rnncli --help"):
        code, err = shell(f"{command} {where}", byte_tok)
        assert code == 74, command
        assert re.fullmatch(r"rnncli: error: .*\n", err)
        assert "No space left" in err or "Bad file descriptor" in err


def test_closed_inputs_and_errors(byte_tok):
    code, err = shell('rnncli tokenize encode "$1" <&-', byte_tok)
    assert code == 74
    assert "cannot read standard input" in err
    # Nobody hears the error; nothing else is hit by it.
    assert shell('rnncli tokenize encode "$1.missing" 2>&-', byte_tok) == (74, "")
    assert shell('rnncli tokenize encode "$1.missing" 2>/dev/full', byte_tok) == (74, "")


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signals(number, code, byte_tok):
    """And a line is answered while the input stays open."""
    with running("tokenize", "encode", byte_tok) as process:
        for text in (b"a\n", b"b\n"):
            process.stdin.write(text)
            assert select.select([process.stdout], [], [], 20)[0]
            assert process.stdout.read(100) == text
        process.send_signal(number)
        assert process.wait(20) == code
        assert process.stderr.read() == b""


def test_a_locale_without_utf8(byte_tok):
    env = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    done = run_cli("tokenize", "decode", byte_tok, "--ids", input=b"195 169\n", env=env)
    assert (done.returncode, done.stdout) == (0, b"\xc3\xa9\n")

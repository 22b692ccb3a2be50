"""``rnncli translate --explain``: grids of attention on stderr, pictures, and the product apart."""

from __future__ import annotations

import contextlib
import io
import os
import pty
import subprocess
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from rich.cells import cell_len
from rich.console import Console

from rnncli.cli.attention_map import LONGEST, grid
from rnncli.cli.attention_svg import page
from rnncli.errors import UsageError
from rnncli.evaluation.alignment import Alignment
from tests.cli.in_process import Run, in_process
from tests.helpers import RNNCLI, cli_env, run_cli, tiny_translator

SVG = "{http://www.w3.org/2000/svg}"
ONE = Alignment(
    ("a", "house", "</s>"),
    ("das", "Haus", "</s>"),
    np.array([[1.0, 0.0, 0.0], [0.25, 0.75, 0.0], [0.1, 0.4, 0.5]]),
)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_translator(tmp_path_factory.mktemp("attention"))


@pytest.fixture
def translate(capfd: pytest.CaptureFixture[str]) -> Iterator[Run]:
    yield from in_process("translate", capfd)


def drawn(one: Alignment, width: int = 80) -> list[str]:
    return [line.plain.rstrip() for line in grid(one, width)]


def test_rows_are_targets_and_columns_sources() -> None:
    assert drawn(ONE) == [
        "       h",
        "       o <",
        "       u /",
        "       s s",
        "     a e >",
        " das ██",
        "Haus ░░▓▓",
        "</s>   ▒▒▒▒",
        "",
    ]


def test_what_is_too_wide_goes_below() -> None:
    wide = Alignment(
        tuple("abcdefg"), ("x", "y"), np.concatenate([np.eye(2, 7), np.eye(2, 7)])[[0, 3]]
    )
    blocks = [drawn(wide, 8)[k : k + 4] for k in (0, 4, 8)]
    assert [block[0] for block in blocks] == ["  a b c", "  d e f", "  g"]
    assert blocks[0][1:] == ["x ██", "y   ██", ""]
    assert blocks[1][1:] == ["x", "y", ""]
    assert len(drawn(wide, 1)) == 4 * 7
    assert all(cell_len(line) <= 8 for line in drawn(wide, 8))


def test_pieces_of_any_characters_keep_the_columns() -> None:
    odd = Alignment(
        ("猫です", "e\u0301t\u0301", "\x1b[31m"), ("\u202e", "x" * 99), np.full((2, 3), 1.0)
    )
    lines = drawn(odd)
    assert all("\x1b" not in line and "\u202e" not in line for line in lines)
    *heads, _, last, _ = lines
    assert last == f"{'x' * (LONGEST - 1)}… {'█' * 6}"
    assert heads[-1] == " " * (LONGEST + 1) + "すt\u0301 m"


def test_colours_hide_the_blocks_that_stand_for_them() -> None:
    console = Console(
        file=io.StringIO(), force_terminal=True, color_system="truecolor", highlight=False
    )
    for line in grid(ONE, 80):
        console.print(line, soft_wrap=True)
    out = console.file.getvalue()  # type: ignore[attr-defined]
    assert "\x1b[38;2;214;39;40;48;2;214;39;40m██\x1b[0m" in out
    assert "\x1b[38;2;250;233;233;48;2;250;233;233m  \x1b[0m" in out  # 0.1 has no block


def test_a_picture_is_well_formed_and_says_everything() -> None:
    odd = Alignment(("<&>", "\x00"), ('"', "</s>"), np.array([[0.125, 0.875], [1.0, 0.0]]))
    root = ET.fromstring("".join(page("a & \x1b", [ONE, odd])))
    squares = [one for one in root.iter(f"{SVG}rect") if one.get("fill-opacity")]
    assert len(squares) == 9 + 4
    titles = [one.findtext(f"{SVG}title") for one in squares]
    assert titles[4] == "Haus ← house: 0.750"
    assert titles[9:11] == ['" ← <&>: 0.125', '" ← \\x00: 0.875']
    assert squares[4].get("fill-opacity") == "0.750"
    names = [one.text for one in root.iter(f"{SVG}text")]
    assert names == [
        "a & \\x1b", "a", "house", "</s>", "das", "Haus", "</s>", "<&>", "\\x00", '"', "</s>",
    ]  # fmt: skip
    assert ET.fromstring("".join(page("nothing", []))).tag == f"{SVG}svg"


def test_the_product_stays_as_it_is(model: Path, translate: Run, tmp_path: Path) -> None:
    data = b"the cat\n\nsat on the mat\n"
    (tmp_path / "lines").write_bytes(data)
    plain = translate(model, tmp_path / "lines", "--max-new-tokens", 5)
    picture = tmp_path / "attention.svg"
    done = run_cli(
        "translate", model, "--max-new-tokens", "5", "--explain", "--explain-svg", picture,
        "--threads", "1", input=data,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.decode() == plain
    shown = done.stderr.decode()
    assert "a row for each piece of the translation" in shown
    assert "\x1b" not in shown
    assert any(shade in shown for shade in "░▒▓█")
    root = ET.fromstring(picture.read_text(encoding="utf-8"))
    assert len(root.findall(f"{SVG}g")) == 2  # a blank line has no translation
    quiet = translate(model, tmp_path / "lines", "--max-new-tokens", 5, "--explain-svg", picture)
    assert quiet == plain
    assert "a row for each" not in translate.err  # type: ignore[attr-defined]


@pytest.mark.parametrize("no_color", [False, True])
def test_colour_is_for_terminals_that_want_it(model: Path, no_color: bool) -> None:
    master, slave = pty.openpty()
    env = {"TERM": "xterm-256color", "COLORTERM": "truecolor"}
    if no_color:
        env["NO_COLOR"] = "1"
    command = [*RNNCLI, "translate", str(model), "--explain", "--max-new-tokens", "5"]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=slave, env=cli_env(env)
    ) as process:
        os.close(slave)
        out, _ = process.communicate(b"the cat sat\n", timeout=60)
        shown = bytearray()
        with contextlib.suppress(OSError):
            while chunk := os.read(master, 4096):
                shown += chunk
        os.close(master)
    assert process.returncode == 0
    assert out.count(b"\n") == 1
    assert b"\x1b" not in out
    assert (b"48;2;" in shown) != no_color


def test_models_that_look_nowhere(translate: Run, model: Path, tmp_path: Path) -> None:
    blind = tiny_translator(tmp_path / "blind", attention="none")
    for option in (("--explain",), ("--explain-svg", tmp_path / "x.svg")):
        with pytest.raises(UsageError, match=r"blind.*has no attention.*--attention general"):
            translate(blind, *option)
    assert not (tmp_path / "x.svg").exists()
    with pytest.raises(UsageError, match="--explain-svg -: standard output has the translations"):
        translate(model, "--explain-svg", "-")

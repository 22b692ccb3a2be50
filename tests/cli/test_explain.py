"""``rnncli explain``: a filter like the others, colours on a terminal, a page that is safe."""

from __future__ import annotations

import io
import json
import math
import os
import pty
from collections.abc import Iterator
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from rnncli.cli.colouring import LEVELS, Scale, Segment, coloured_line, page, segments, shade
from rnncli.errors import UsageError
from rnncli.evaluation.explain import Explained
from rnncli.text.byte_char import ByteTokenizer
from tests.cli.in_process import Run, in_process
from tests.helpers import RNNCLI, cli_env, run_cli, tiny_model

ODD = [b"the cat", b"", b"  ", b"\xff\xfe", b"a\rb", b"nul\0nul", "x\u2028y".encode(), b"the" * 30]


@pytest.fixture(scope="module")
def char(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model(tmp_path_factory.mktemp("char"), scale=5.0)


@pytest.fixture
def explain(capfd: pytest.CaptureFixture[str]) -> Iterator[Run]:
    yield from in_process("explain", capfd)


@pytest.fixture
def score(capfd: pytest.CaptureFixture[str]) -> Iterator[Run]:
    yield from in_process("score", capfd)


def test_one_line_out_for_each_line_in(char: Path, explain: Run, score: Run, tmp_path: Path):
    """In a real pipe, whatever comes; the numbers are those of score with the sign turned."""
    data = b"\n".join(ODD)  # without a last newline
    done = run_cli("explain", char, "--threads", "1", input=data)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.decode().split("\n")[:-1]
    assert len(lines) == len(ODD)
    assert b"1 bad line repaired with U+FFFD; the first is line 4" in done.stderr
    (tmp_path / "odd.txt").write_bytes(data + b"\n")
    words = score(char, tmp_path / "odd.txt", "--level", "word", "--log-base", "2").split("\n")
    for line, scored in zip(lines, words, strict=False):
        pairs = [field.split(" ") for field in line.split("\t")]
        others = [field.split(" ") for field in scored.split("\t")]
        assert [p for p, _ in pairs] == [p for p, _ in others]
        found, expected = ([float(v) for _, v in rows] for rows in (pairs, others))
        assert found == pytest.approx([-v for v in expected], abs=1e-4)
    for options in ((), ("--unit", "1:3"), ("--unit", "2:3", "--gate", "forget")):
        for state in ("reset", "carried"):
            more = (*options, "--state", state)
            plain = explain(char, tmp_path / "odd.txt", *more).split("\n")[:-1]
            objects = explain(char, tmp_path / "odd.txt", *more, "--json").split("\n")[:-1]
            assert len(plain) == len(objects) == len(ODD)
            for line, text in zip(plain, objects, strict=True):
                one = json.loads(text)
                pairs = zip(one["pieces"], one["values"], strict=True)
                assert line == "\t".join(f"{piece} {value:.4f}" for piece, value in pairs)


class Page(HTMLParser):
    """The text in <pre>, titles of spans, and every other element."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.text, self.titles, self.others, self._open = "", [], set(), []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        values = dict(attributes)
        self._open.append(tag)
        if tag == "span":
            self.titles.append(values.pop("title"))
            values.pop("class", None)
        self.others.add(tag)
        assert set(values) <= {"lang", "charset"}, "an attribute that could load something"

    def handle_endtag(self, tag):
        while self._open and self._open.pop() != tag:
            continue

    def handle_data(self, data):
        if "pre" in self._open:
            self.text += data


def test_a_page_shows_the_text_and_runs_none_of_it(tmp_path: Path, explain: Run):
    text = "<script>alert(\"x\")</script> & 'y'\n</pre><img src=http://a.b/c>\n\n\u00e9"
    model = tiny_model(tmp_path / '<b>"&', tokenizer="byte", text=text)
    (tmp_path / "text").write_bytes(text.encode() + b"\xff\n")
    out = explain(model, tmp_path / "text", "--html", tmp_path / "page.html")
    assert out == ""
    source = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert source == explain(model, tmp_path / "text", "--html", "-")
    assert "<script" not in source and "<img" not in source and "<b>" not in source
    parsed = Page(source)
    assert parsed.text.strip("\n") == text.replace("\n", "↵\n") + "\ufffd↵"
    assert parsed.others == {"html", "head", "meta", "title", "style", "body", "h1", "p", "pre",
                             "span"}  # fmt: skip
    assert all(math.isfinite(float(title)) for title in parsed.titles)
    assert "url(" not in source and "@import" not in source


def test_characters_of_several_tokens():
    tokenizer = ByteTokenizer()
    tokens = (*tokenizer.encode("aé"), 10)
    one = Explained("aé", tokens, np.array([1.0, 2.0, 3.0, 4.0]))
    summed = list(segments(tokenizer, one, Scale("bits", 10, additive=True)))
    assert summed == [Segment("a", 1.0), Segment("é", 5.0), Segment("↵", 4.0)]
    last = list(segments(tokenizer, one, Scale("unit", 1)))
    assert last == [Segment("a", 1.0), Segment("é", 3.0), Segment("↵", 4.0)]
    cut = Explained("a\udcc3", (97, 0xC3, 10), np.array([1.0, 2.0, 4.0]))
    assert [s.value for s in segments(tokenizer, cut, Scale("unit", 1))] == [1.0, 2.0, 4.0]


def test_colours_follow_the_values():
    scale = Scale("unit", 0.5)
    assert [scale.level(v) for v in (0, 0.5, -0.5, 9, -9, 0.26, math.nan)] == [
        0, LEVELS, -LEVELS, LEVELS, -LEVELS, 5, 0
    ]  # fmt: skip
    assert shade(0) == (255, 255, 255)
    reds = [shade(level) for level in range(LEVELS + 1)]
    assert all(a[1] > b[1] and a[0] >= b[0] for a, b in pairwise(reds))
    assert all(shade(-level)[2] > shade(-level)[0] for level in range(1, LEVELS + 1))
    parts = [Segment("a", 0.5), Segment("\x1b", 0.0), Segment("z", -0.5)]
    stream = io.StringIO()
    Console(file=stream, force_terminal=True, color_system="truecolor").print(
        coloured_line(parts, scale)
    )
    red, blue = ("48;2;{};{};{}m".format(*shade(level)) for level in (LEVELS, -LEVELS))
    out = stream.getvalue()
    assert out.index(red) < out.index("a") < out.index("\\x1b") < out.index(blue) < out.index("z")
    html = "".join(page("t", scale, [parts]))
    deepest = "".join(f"{c:02x}" for c in shade(LEVELS))
    assert f".p{LEVELS}{{background:#{deepest}}}" in html
    assert f'<span class="p{LEVELS}" title="0.5">a</span>' in html


def test_units_that_follow_something(char: Path, explain: Run, tmp_path: Path):
    (tmp_path / "text").write_text('the cat "sat" on the mat\n' * 5)
    rows = [
        line.split() for line in explain(char, tmp_path / "text", "--top-units", 4).splitlines()
    ]
    assert rows[0] == ["unit", "follows", "correlation"]
    assert len(rows) == 5
    objects = explain(char, tmp_path / "text", "--top-units", 4, "--json").splitlines()
    for row, one in zip(rows[1:], map(json.loads, objects), strict=True):
        assert row[0] == one["unit"]
        assert float(row[-1]) == pytest.approx(one["correlation"], abs=5e-4)


def test_usage(char: Path, explain: Run):
    for arguments, message in (
        (("--gate", "forget"), "--gate: of which unit"),
        (("--html", "x", "--json"), "give one of them"),
        (("--scale", "0"), "--scale 0: it must be above 0"),
        (("--unit", "9:1"), "no layer 9"),
        (("--top-units", "3", "--unit", "1:1"), "not for the list"),
        (("--top-units", "3", "--html", "x"), "not for the list"),
        (("--top-units", "3", "--state", "reset"), "not for the list"),
        (("--scale", "2", "--json"), "--scale: it is for colours"),
        (("--state", "kept"), "--state: unknown value"),
    ):
        with pytest.raises(UsageError, match=message):
            explain(char, "-", *arguments)


@pytest.mark.slow
def test_a_terminal_gets_colours_unless_it_wants_none(char: Path, tmp_path: Path):
    (tmp_path / "text").write_text("the cat\n")
    command = [*RNNCLI, "explain", str(char), str(tmp_path / "text")]
    for more, coloured in (({}, True), ({"NO_COLOR": "1"}, False)):
        env = {**cli_env({"TERM": "xterm-256color", **more})}
        if coloured:
            env.pop("NO_COLOR", None)
        process, handle = pty.fork()
        if process == 0:
            os.execvpe(command[0], command, env)
        out = b""
        try:
            while data := os.read(handle, 65536):
                out += data
        except OSError:  # Linux's end of a terminal
            pass
        assert os.waitpid(process, 0)[1] == 0
        assert (b"\x1b[" in out) == coloured
        assert (b"</s> " in out) != coloured

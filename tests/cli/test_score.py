"""``rnncli score`` and ``rnncli rescore``: filters in real pipes."""

from __future__ import annotations

import json
import os
import select
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from rnncli.errors import DataError, UsageError
from tests.cli.in_process import Run, in_process
from tests.helpers import RNNCLI, cli_env, run_cli, tiny_model

ODD = [
    b"the cat",
    b"",
    b"  ",
    b"\xff\xfe",
    b"a\rb",
    b"nul\0nul",
    "x\u2028y".encode(),
    b"the" * 300,
]


@pytest.fixture(scope="module")
def char(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model(tmp_path_factory.mktemp("char"), scale=5.0)


@pytest.fixture(scope="module")
def byte(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model(tmp_path_factory.mktemp("byte"), tokenizer="byte", scale=5.0)


@pytest.fixture
def score(capfd: pytest.CaptureFixture[str]) -> Iterator[Run]:
    yield from in_process("score", capfd)


@pytest.fixture
def rescore(capfd: pytest.CaptureFixture[str]) -> Iterator[Run]:
    yield from in_process("rescore", capfd)


def test_one_line_out_for_each_line_in(char: Path, score: Run, tmp_path: Path):
    data = b"\n".join(ODD)  # without a last newline
    done = run_cli("score", char, "--threads", "1", input=data)
    assert done.returncode == 0, done.stderr
    numbers = [float(line) for line in done.stdout.splitlines()]
    assert len(numbers) == len(ODD)
    assert all(number < 0 for number in numbers)
    assert b"1 bad line repaired with U+FFFD; the first is line 4" in done.stderr
    (tmp_path / "odd.txt").write_bytes(data + b"\n")
    for batch_size in (1, 7, 32):
        out = score(char, tmp_path / "odd.txt", "--batch-size", batch_size)
        assert out.encode() == done.stdout


def test_the_text_is_the_same_for_every_batch(char: Path, score: Run, tmp_path: Path):
    rng = np.random.default_rng(0)
    lines = ["".join(rng.choice(list("the cat sat"), n)) for n in rng.integers(0, 60, 300)]
    (tmp_path / "lines.txt").write_text("\n".join(lines))
    texts = {score(char, tmp_path / "lines.txt", "--batch-size", n) for n in (1, 7, 32)}
    assert len(texts) == 1
    quick = score(char, tmp_path / "lines.txt", "--precision", "float32")
    exact = [float(line) for line in texts.pop().split()]
    assert [float(line) for line in quick.split()] == pytest.approx(exact, abs=1e-3)


def test_a_typed_line_is_answered_at_once(char: Path):
    with subprocess.Popen(
        [*RNNCLI, "score", str(char)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=cli_env(),
        bufsize=0,
    ) as process:
        assert process.stdin
        assert process.stdout
        answers = []
        for line in (b"the cat\n", b"\n", b"the cat\n"):
            process.stdin.write(line)
            assert select.select([process.stdout], [], [], 30)[0], "no answer"
            answers.append(os.read(process.stdout.fileno(), 100))
        process.stdin.close()
        assert process.wait(30) == 0
    assert answers[0] == answers[2] != answers[1]
    assert all(answer.count(b"\n") == 1 for answer in answers)


def test_bytes_are_scored_as_they_are(byte: Path, score: Run, tmp_path: Path):
    (tmp_path / "text").write_bytes(b"\xff\xfe\n\xef\xbf\xbd\n")
    out = score(byte, tmp_path / "text", "--format", "json")
    assert [json.loads(line)["tokens"] for line in out.splitlines()] == [3, 4]


def test_a_line_of_ten_thousand_words(tmp_path: Path, score: Run):
    model = tiny_model(tmp_path, tokenizer="word")
    (tmp_path / "long.txt").write_text("the cat " * 5000 + "\nsat\n")
    long, short = score(model, tmp_path / "long.txt", "--format", "json").splitlines()
    assert (json.loads(long)["tokens"], json.loads(short)["tokens"]) == (10_001, 2)


def test_formats_end_with_their_summary(char: Path, score: Run, tmp_path: Path):
    text = tmp_path / "text"
    text.write_text("the cat\nthe dog\n")
    sums = [float(n) for n in score(char, text, "--log-base", "10").split()]
    srilm = score(char, text, "--format", "srilm").splitlines()
    assert srilm[-2] == f"file {text}: 2 sentences, 14 words, 0 OOVs"
    assert float(srilm[-1].split()[3]) == pytest.approx(sum(sums), abs=1e-3)
    kenlm = score(char, text, "--format", "kenlm", "--level", "word").splitlines()
    assert [float(line.split()[-3]) for line in kenlm] == pytest.approx(sums, abs=1e-3)
    whole = json.loads(score(char, text, "--format", "json", "--level", "summary"))
    assert (whole["lines"], whole["tokens"]) == (2, 16)


def test_nothing_in_nothing_out(char: Path, score: Run, rescore: Run, tmp_path: Path):
    (tmp_path / "empty").touch()
    assert score(char, tmp_path / "empty") == ""
    assert rescore(char, tmp_path / "empty", "--best") == ""


def test_n_best_lists_keep_order_and_ids(char: Path, score: Run, rescore: Run, tmp_path: Path):
    texts = ["the cat", "the cad", "ran", ""]
    nbest = "".join(f"{k // 2} ||| {t} ||| f= 1 ||| -{k}.5\n" for k, t in enumerate(texts))
    done = run_cli("rescore", char, "--weight", "0.25", "--threads", "1", input=nbest.encode())
    assert done.returncode == 0, done.stderr
    (tmp_path / "texts").write_text("\n".join(texts) + "\n")
    numbers = [float(n) for n in score(char, tmp_path / "texts").split()]
    fields = [line.split(" ||| ") for line in done.stdout.decode().splitlines()]
    assert [f[:2] for f in fields] == [[str(k // 2), t] for k, t in enumerate(texts)]
    for k, (line, number) in enumerate(zip(fields, numbers, strict=True)):
        assert line[2] == f"f= 1 rnncli= {number:.4f}"
        assert float(line[3]) == pytest.approx(0.75 * -(k + 0.5) + 0.25 * number, abs=1e-4)
    (tmp_path / "nbest").write_text(nbest)
    best = rescore(char, tmp_path / "nbest", "--weight", "0.25", "--best").splitlines()
    expected = [max(fields[k : k + 2], key=lambda f: float(f[3])) for k in (0, 2)]
    assert best == [" ||| ".join(f) for f in expected]


def test_bad_entries_pass_as_they_are(char: Path, rescore: Run, tmp_path: Path):
    path = tmp_path / "nbest"
    path.write_text("0\tthe\t-1\nno tab\n\n0\tcat\tx\n")
    first, *others = rescore(char, path).split("\n")
    assert first.startswith("0\tthe\t")
    assert others == ["no tab", "", "0\tcat\tx", ""]
    assert "2 bad lines" in rescore.err  # type: ignore[attr-defined]
    assert rescore(char, path, "--best") == first + "\n"
    with pytest.raises(DataError, match="nbest:2: no n-best entry"):
        rescore(char, path, "--on-bad-input", "error")
    path.write_text("0\tthe\n1\tthe\n0\tthe\n")
    with pytest.raises(DataError, match="nbest:3: id '0' comes back"):
        rescore(char, path, "--best")


def test_usage(char: Path, score: Run, rescore: Run):
    with pytest.raises(UsageError, match="MODEL"):
        score()
    with pytest.raises(UsageError, match="base 10 alone"):
        score(char, "-", "--format", "kenlm", "--log-base", "2")
    with pytest.raises(UsageError, match="--log-base: unknown value '3'"):
        rescore(char, "-", "--log-base", "3")

"""``rnncli evaluate``: tables, JSON, and what its options mean."""

from __future__ import annotations

import contextlib
import json
import math
import os
import pty
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from rnncli.checkpoint import read_model, write_model
from rnncli.errors import DataError, FileError, UsageError
from tests.cli.in_process import Run, in_process
from tests.helpers import RNNCLI, cli_env, run_cli, tiny_model

KEYS = ["nats", "tokens", "words", "characters", "bytes", "oov", "perplexity", "word_perplexity",
        "bits_per_character", "bits_per_byte", "perplexity_without_oov", "state", "signature",
        "columns"]  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two models ``a`` and ``b`` of one vocabulary, and a text."""
    folder = tmp_path_factory.mktemp("evaluate")
    tiny_model(folder / "a", scale=5.0)
    tiny_model(folder / "b", seed=1, scale=5.0)
    (folder / "text.txt").write_bytes(b" the cat sat \n\nthe dog ran\xff\n" * 20)
    return folder


@pytest.fixture
def evaluate(capfd: pytest.CaptureFixture[str]) -> Iterator[Run]:
    yield from in_process("evaluate", capfd)


def test_json_through_a_real_pipe(folder: Path, evaluate: Run):
    data = (folder / "text.txt").read_bytes()
    done = run_cli("evaluate", folder / "a", "--json", "--threads", "1", input=data)
    assert done.returncode == 0, done.stderr
    values = json.loads(done.stdout)
    assert list(values) == KEYS
    assert done.stdout.count(b"\n") == 1
    assert (values["tokens"], values["words"], values["oov"]) == (560, 180, 20)
    assert (values["characters"], values["bytes"]) == (560, 560)
    assert values["perplexity"] == math.exp(values["nats"] / 560)
    assert b"20 lines were not UTF-8" in done.stderr
    assert json.loads(evaluate(folder / "a", folder / "text.txt", "--json")) == values


def test_a_table_in_a_pipe_is_aligned_text(folder: Path, evaluate: Run):
    out = evaluate(folder / "a", folder / "text.txt", "--columns", 4, "--cache-window", 9)
    rows = dict(line.split("  ", 1) for line in out.splitlines() if line)
    assert "\x1b" not in out
    assert rows["tokens"].strip() == "560 (char; line ends and unknown ones counted)"
    assert rows["OOV"].strip() == "20 (3.57% of the tokens)"
    assert rows["state"].strip() == "carried in each of 4 columns"
    assert float(rows["with cache: perplexity"]) != float(rows["perplexity"])
    assert rows["with cache: signature"].strip().endswith("cache:window=9,theta=0.3,lambda=0.1")


def test_state_columns_and_stripping(folder: Path, evaluate: Run):
    text = folder / "text.txt"
    carried, reset, columns, stripped = (
        json.loads(evaluate(folder / "a", text, "--json", *options))
        for options in ((), ("--state", "reset"), ("--columns", 7), ("--strip-lines",))
    )
    assert carried["state"] == columns["state"] == "carried"
    assert reset["state"] == "reset"
    assert (carried["columns"], columns["columns"], reset["columns"]) == (1, 7, 0)
    assert len({v["nats"] for v in (carried, reset, columns, stripped)}) == 4
    assert stripped["tokens"] == stripped["bytes"] == 520
    assert stripped["signature"].endswith("|lines:stripped")


def test_state_and_stripping_are_as_in_training(folder: Path, evaluate: Run, tmp_path: Path):
    saved = read_model(folder / "a")
    changes = {"training.state": "reset", "data.strip_lines": True}
    write_model(
        tmp_path / "model.safetensors", config=saved.config.with_values(changes),
        tokenizer=saved.tokenizer, weights=saved.weights, scores={}, provenance={},
    )  # fmt: skip
    text = folder / "text.txt"
    trained = json.loads(evaluate(tmp_path, text, "--json"))
    options = ("--state", "reset", "--strip-lines")
    assert trained == json.loads(evaluate(folder / "a", text, "--json", *options))
    options = ("--state", "carried", "--no-strip-lines")
    plain = json.loads(evaluate(folder / "a", text, "--json"))
    assert plain == json.loads(evaluate(tmp_path, text, "--json", *options))


def test_products_in_bfloat16_are_signed(folder: Path, evaluate: Run):
    exact, rounded = (
        json.loads(evaluate(folder / "a", folder / "text.txt", "--json", "--precision", precision))
        for precision in ("float32", "bfloat16")
    )
    assert rounded["signature"] == exact["signature"] + "|products:bfloat16"
    assert rounded["nats"] == pytest.approx(exact["nats"], rel=0.02)
    assert rounded["nats"] != exact["nats"]


def test_a_terminal_gets_a_table_and_sees_progress(folder: Path):
    master, slave = pty.openpty()
    command = [*RNNCLI, "evaluate", str(folder / "a"), str(folder / "text.txt")]
    with subprocess.Popen(
        command, stdin=slave, stdout=slave, stderr=slave, env=cli_env({"COLUMNS": "120"})
    ) as process:
        os.close(slave)
        shown = bytearray()
        with contextlib.suppress(OSError):  # how a terminal that was closed reads
            while chunk := os.read(master, 4096):
                shown += chunk
        os.close(master)
        assert process.wait(30) == 0
    assert all(part in shown.decode() for part in ("┌", "perplexity without OOV"))
    assert "560 of 560 tokens" in shown.decode()


def test_ensembles_however_they_are_named(folder: Path, evaluate: Run):
    a, b, text = folder / "a", folder / "b", folder / "text.txt"
    one, other, both, again = (
        json.loads(evaluate(*arguments, "--json"))
        for arguments in ((a, text), (b, text), (a, text, "-m", b), ("-m", b, "-m", a, text))
    )
    assert both["signature"].endswith("|models:2")
    assert both["nats"] == pytest.approx(again["nats"], rel=1e-12)
    assert both["nats"] < (one["nats"] + other["nats"]) / 2


def test_everything_apart_at_once(folder: Path, evaluate: Run):
    text = folder / "text.txt"
    options = ("--dynamic", "--dynamic-lr", 0.5, "--dynamic-segment", 5, "--dynamic-train", text)
    cache = ("--cache-window", 20, "--cache-theta", 0)
    values = json.loads(evaluate(folder / "a", text, "--json", *options, *cache))
    assert [*KEYS, "cache", "dynamic"] == list(values)
    plain = json.loads(evaluate(folder / "a", text, "--json"))
    assert {key: values[key] for key in KEYS} == plain
    assert ",lr=0.5,decay=0.002,segment=5" in values["dynamic"]["signature"]
    assert "dynamic:rms(" in values["dynamic"]["signature"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--cache-theta", "1"], "need --cache-window N"),
        (["--dynamic-lr", "1"], "need --dynamic"),
        (["--dynamic-train", "x"], "need --dynamic"),
        (["--mc-dropout", "3"], "trained without dropout"),
        (["--state", "rest"], "did you mean 'reset'"),
        (["-m", "b", "--dynamic"], "not on an ensemble of 2"),
    ],
)
def test_what_cannot_be(folder: Path, evaluate: Run, options: list[str], message: str):
    options = [str(folder / "b") if option == "b" else option for option in options]
    with pytest.raises(UsageError, match=message):
        evaluate(folder / "a", folder / "text.txt", *options)


def test_no_model_no_text(folder: Path, evaluate: Run, tmp_path: Path):
    with pytest.raises(UsageError, match="MODEL"):
        evaluate()
    with pytest.raises(FileError, match="nowhere"):
        evaluate(folder / "a", tmp_path / "nowhere")
    (tmp_path / "empty").touch()
    with pytest.raises(DataError, match="empty: empty"):
        evaluate(folder / "a", tmp_path / "empty")
    with pytest.raises(DataError, match=r"text.txt:3: not UTF-8"):
        evaluate(folder / "a", folder / "text.txt", "--on-bad-input", "error")


def test_a_device_that_there_is_not(evaluate: Run, folder: Path) -> None:
    with pytest.raises(UsageError, match=r"device: unknown value 'cuda:0'.*Choices"):
        evaluate(folder / "a", folder / "text.txt", "--device", "cuda:0")
    with pytest.raises(UsageError, match="--dynamic-train -: standard input has the text"):
        evaluate(folder / "a", "--dynamic", "--dynamic-train", "-")

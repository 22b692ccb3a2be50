"""``rnncli compare``: a table on stdout, the runs' lines on stderr, nothing done twice."""

from __future__ import annotations

import json
import math
import re
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from rnncli.checkpoint import read_training_state
from rnncli.cli.compare import _cells_of, _columns, _measured
from rnncli.config import Config
from rnncli.errors import RnncliError, UsageError
from rnncli.files import lock_run
from rnncli.training.compare import Candidate, Row, split_items
from rnncli.training.outcome import Outcome
from rnncli.training.run_folder import read_run_config
from rnncli.training.worker import run_here
from tests.cli.in_process import Run, in_process
from tests.helpers import RNNCLI, cli_env
from tests.training.runs import write_text

SMALL = [
    "--layers=1", "--hidden-size=12", "--embedding-size=6", "--max-steps=6", "--precision=float32",
    "--set=training.batch_size=4", "--set=training.bptt=10", "--set=data.valid_fraction=0.1",
]  # fmt: skip


@pytest.fixture
def compare(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Iterator[Run]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("rnncli.training.compare.run_apart", run_here)
    write_text(tmp_path / "text.txt")
    yield from in_process("compare", capfd)


def test_cells_are_cut_at_commas_outside_of_brackets() -> None:
    assert split_items('elman frozen=["W_hh","a"], lstm+gru ,gru', ",") == [
        'elman frozen=["W_hh","a"]', "lstm+gru", "gru",
    ]  # fmt: skip


def test_a_refused_comparison_settles_nothing(compare: Run, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--equal: unknown value"):
        compare("text.txt", "--cells", "lstm,gru", "--out", "all", "--equal", "params", *SMALL)
    assert not (tmp_path / "all" / "base.toml").exists()


def test_a_cell_for_each_layer_is_a_candidate(compare: Run) -> None:
    two = [option for option in SMALL if not option.startswith("--layers")]
    out = compare(
        "text.txt",
        "--cells",
        "lstm+gru,gru",
        "--out",
        "mix",
        *two,
        "--equal",
        "hidden",
        "--dry-run",
    )
    assert [line.split()[0] for line in out.splitlines()] == ["cell", "lstm+gru", "gru"]


@pytest.mark.parametrize(("task", "score"), [("music", "nats"), ("synthetic:order", "nats"),
                                             ("synthetic:adding", "squared error")])  # fmt: skip
def test_what_is_learned_is_named_before_there_is_a_figure(
    compare: Run, tmp_path: Path, task: str, score: str
) -> None:
    (tmp_path / "tunes.txt").write_text("60 62 64\n60 62\n" * 30)
    corpus = ("tunes.txt",) if task == "music" else ("--lag", 20)
    out = compare(*corpus, "--task", task, "--cells", "lstm,gru", "--out", "x", "--max-steps", 3,
                  "--dry-run")  # fmt: skip
    assert f"valid {score} " in out.splitlines()[0]


def test_figures_of_unlike_things_are_not_put_in_one_column(compare: Run, tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text("a b c\n" * 60)
    cells = "lstm,gru tokenizer.kind=word"
    with pytest.raises(UsageError, match="cannot be compared"):
        compare("text.txt", "--cells", cells, "--tokenizer", "char", "--out", "y", *SMALL)


def test_a_table_and_what_is_done_is_not_done_again(compare: Run, tmp_path: Path) -> None:
    call = ("text.txt", "--cells", "lstm, elman nonlinearity=relu", "--out", "all", *SMALL)
    out = compare(*call, "--seeds", 2)
    err = compare.err  # type: ignore[attr-defined]
    header, lstm, elman = (re.split(r"\s{2,}", line) for line in out.splitlines())
    assert header == [
        "cell", "hidden", "parameters", "valid perplexity", "tokens/s", "peak MB", "steps", "s"
    ]  # fmt: skip
    assert (lstm[0], lstm[1], lstm[6]) == ("lstm", "12", "6")
    assert elman[0] == "elman nonlinearity=relu"
    sizes = [int(row[2].replace(",", "")) for row in (lstm, elman)]
    assert sizes[1] == pytest.approx(sizes[0], rel=0.02)
    assert all(re.fullmatch(r"\d+\.\d+ ± 0\.\d+", row[3]) for row in (lstm, elman))
    names = [f"{name}-{seed}" for seed in (1, 2) for name in ("lstm", "elman-nonlinearity=relu")]
    for number, name in enumerate(names, 1):
        assert f"rnncli: {name} ({number} of 4): done after 6 steps" in err
    assert read_run_config(tmp_path / "all" / names[1]).model.nonlinearity == "relu"
    assert compare(*call, "--seeds", 2) == out
    again = compare.err  # type: ignore[attr-defined]
    assert "done after" not in again
    assert "elman-nonlinearity=relu-2 (4 of 4): is done already, in all/elman" in again
    rows = [json.loads(line) for line in compare(*call, "--seeds", 1, "--json").splitlines()]
    assert [row["name"] for row in rows] == ["lstm", "elman nonlinearity=relu"]
    assert rows[0]["spread"] is None
    assert rows[0]["valid_perplexity"] == rows[0]["scores"][0]
    assert [row["parameters"] for row in rows] == sizes


@pytest.mark.parametrize(
    ("mean", "spread", "text"),
    [
        (5.6863, 0.8, "5.69 ± 0.80"),
        (5.6863, 0.0123, "5.686 ± 0.012"),
        (5.6863, 3.21, "5.7 ± 3.2"),
        (568.63, 32.1, "569 ± 32"),
        (5.6863, math.nan, "5.6863"),
        (5.6863, 0.0, "5.6863"),
        (1.2345e300, math.nan, "1.234e+300"),
        (math.nan, math.nan, "-"),
    ],
)
def test_a_spread_has_two_figures(mean: float, spread: float, text: str) -> None:
    assert _measured(mean, spread) == text


def test_the_share_of_successes_has_a_column() -> None:
    found = Outcome(score=0.16, score_name="squared_error", success=0.25)
    rows = [Row(Candidate(name, Config()), (found,)) for name in ("lstm", "gru")]
    assert _columns(rows, success=True)[3:5] == ("valid squared error", "success")
    assert _cells_of(rows[0], success=True)[3:5] == ("0.1600", "0.250")
    for success in (True, False):
        assert len(_columns(rows, success)) == len(_cells_of(rows[0], success)) == 8 + success


def test_scores_of_different_things_are_refused(compare: Run, tmp_path: Path) -> None:
    def configuration(name: str, text: str) -> tuple[str, str]:
        (tmp_path / f"{name}.toml").write_text(f"{text}\n[model]\nhidden_size = 8\n")
        return "--config", f"{name}.toml"

    char = configuration("char", '[tokenizer]\nkind = "char"')
    word = configuration("word", '[tokenizer]\nkind = "word"')
    pieces = configuration("pieces", '[tokenizer]\nkind = "bpe"\nvocab_size = 300')
    more = configuration("more", '[tokenizer]\nkind = "bpe"')
    music = configuration("music", 'task = "music"')
    for one, other, message in (
        (char, word, "char predicts characters and word words, and a perplexity by one"),
        (pieces, more, "pieces predicts 300 pieces (bpe) and more 8,000 pieces (bpe)"),
        (char, music, "char has task = 'lm' and music 'music'"),
    ):
        with pytest.raises(UsageError, match=re.escape(message)):
            compare("text.txt", *one, *other, "--out", "a")
    out = compare("text.txt", *char, *word, "--out", "a", "--tokenizer", "char", "--dry-run")
    assert [line.split()[0] for line in out.splitlines()] == ["cell", "char", "word"]


def test_a_run_that_fails_is_a_row(compare: Run, tmp_path: Path) -> None:
    # The weights are multiplied by -1e30 at each step: the second makes them infinite.
    for name, lr, decay in (("wild", 1e30, 1.0), ("tame", 0.1, 0.0)):
        (tmp_path / f"{name}.toml").write_text(
            '[model]\nlayers = 1\nhidden_size = 8\n[optimizer]\nname = "sgd"\nclip_norm = 0.0\n'
            f"lr = {lr}\nweight_decay = {decay}\n"
            "[training]\nbatch_size = 4\nbptt = 10\nmax_steps = 8\n"
        )
    both = ("--config", "wild.toml", "--config", "tame.toml", "--out", "all")
    out = compare("text.txt", *both, "--set", "data.valid_fraction=0.1")
    err = compare.err  # type: ignore[attr-defined]
    wild, tame = (line.split() for line in out.splitlines()[1:])
    assert wild[:1] + wild[3:] == ["wild", "diverged", "-", "-", "-", "-"]
    assert tame[0] == "tame"
    assert float(tame[3]) > 1
    assert "wild-1 (1 of 2): failed: 3 steps in a row were not finite" in err
    with pytest.raises(RnncliError, match="no run came to its end"):
        compare("text.txt", *both[:2], "--out", "all", "--set", "data.valid_fraction=0.1")


def test_sizes_without_training(compare: Run, tmp_path: Path) -> None:
    call = ("text.txt", "--cells", "lstm,gru", "--out", "all", *SMALL, "--dry-run")
    rows = [line.split() for line in compare(*call, "--equal", "hidden").splitlines()[1:]]
    assert [row[1] for row in rows] == ["12", "12"]
    assert rows[0][2] != rows[1][2]
    assert rows[0][3:] == ["-"] * 5
    assert not (tmp_path / "all").exists()


def test_usage(compare: Run) -> None:
    for arguments, message in (
        (("text.txt", "--cells", "lstm"), "--out: missing"),
        (("text.txt", "--out", "a"), "nothing to compare; give --cells"),
        (("--cells", "lstm", "--out", "a"), "no training text"),
        (("--preset", "char-rnn", "--out", "a"), "no training text"),
        (("-", "--cells", "lstm", "--out", "a"), "standard input only once"),
        (("text.txt", "--cells", "lstm,lstn", "--out", "a"), "did you mean 'lstm'"),
        (("text.txt", "--cells", "", "--out", "a"), "model.cell: unknown value ''"),
        (("text.txt", "--cells", "gru rounds=3", "--out", "a"), "model.rounds: gru has no such"),
        (("text.txt", "--cells", "gru,gru", "--out", "a"), "'gru' is there twice"),
        (("text.txt", "--cells", "gru", "--preset", "char-rnn", "--out", "a"), "cells, or whole"),
        (("text.txt", "--cells", "gru", "--out", "a", "--max-time", "soon"), "expected a time"),
    ):
        with pytest.raises(UsageError, match=re.escape(message)):
            compare(*arguments, "--max-steps", 1)


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_saves_the_run_that_it_stops(
    number: int, code: int, compare: Run, tmp_path: Path
) -> None:
    call = ["compare", "text.txt", "--cells", "lstm,gru", "--out", "all", *SMALL]
    with subprocess.Popen(
        [*RNNCLI, *call, "--max-steps", "1000000", "--threads", "1"],
        stderr=subprocess.PIPE,
        env=cli_env(),
        cwd=tmp_path,
    ) as process:
        assert process.stderr
        for line in process.stderr:
            if b"valid" in line and b"step" in line:
                break
        process.send_signal(number)
        rest = process.stderr.read()
        assert process.wait(60) == code, rest
    if number == signal.SIGINT:
        assert rest.endswith(b"stopped during lstm-1; the same command goes on from there\n")
    _, values = read_training_state(tmp_path / "all" / "lstm-1" / "training.safetensors")
    with lock_run(tmp_path / "all" / "lstm-1"):  # nobody trains in it any more
        assert values["step"] > 0

"""``rnncli train --task synthetic:...``: no text, a lag, and what is said of it."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from rnncli.checkpoint import read_header
from rnncli.errors import UsageError
from rnncli.training.run_folder import read_run_config
from tests.cli.in_process import Run, in_process
from tests.training.runs import metrics, write_text

ORDER = ("--task", "synthetic:order", "--cell", "gru", "--hidden-size", 24, "--lr", 0.01)


@pytest.fixture
def rnncli(capfd: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch) -> Iterator[Run]:
    monkeypatch.chdir(tmp_path)
    yield from in_process("train", capfd)


def test_a_task_that_makes_its_own_data(rnncli, tmp_path):
    assert rnncli(*ORDER, "--lag", 12, "--out", "run") == ""
    err = rnncli.err
    assert "tell in which order two symbols came" in err
    assert "sequences of up to 13 steps, made from the seed" in err
    assert "steps: 10,000 at most" in err
    assert re.search(r"model: 1 x 24 gru, [\d,]+ parameters; data: 3,200 training", err)
    assert re.search(r"valid 0\.\d+ nats, success (0\.99\d|1\.000) best", err)
    assert re.search(r"done after \d+00 steps, .*\(solved at step \d+00\); best validation", err)
    config = read_run_config(tmp_path / "run")
    assert (config.task, config.synthetic.lag, config.model.layers) == ("synthetic:order", 12, 1)
    assert metrics(tmp_path / "run")[-1]["solved_step"] % 100 == 0
    assert read_header(tmp_path / "run").scores["valid_success"] >= 0.99
    sha = read_header(tmp_path / "run").weights_sha256
    rnncli("--config", "run/config.toml", "--out", "again")
    assert read_header(tmp_path / "again").weights_sha256 == sha


def test_a_plan(rnncli):
    out = rnncli("--task", "synthetic:copy", "--lag", 10, "--out", "run", "--dry-run")
    assert re.search(r"^batch +32 sequences of up to 30 steps$", out, re.M)
    assert re.search(r"^steps +10,000 \(training.max_steps\)$", out, re.M)


@pytest.mark.parametrize(
    ("task", "about"),
    [
        ("parity", "tell after every bit whether the ones so far are odd in number"),
        ("permutations", "tell after every swap in which order the five things are"),
    ],
)
def test_a_state_to_be_tracked(rnncli, tmp_path, task, about):
    rnncli("--task", f"synthetic:{task}", "--lag", 12, "--out", "run", "--max-steps", 2)
    assert f"task: {about}; sequences of up to 12 steps" in rnncli.err
    scores = read_header(tmp_path / "run").scores
    assert scores["valid_nats"] > 0.6
    assert scores["valid_success"] < 0.5


def test_what_does_not_go_together(rnncli, tmp_path):
    text = write_text(tmp_path / "text.txt")
    for arguments, message in (
        ((text, "--lag", 20, "--max-steps", 1), "synthetic.lag: --task lm has none"),
        ((text, *ORDER), "data.train: synthetic:order makes its own data"),
        (("--task", "synthetic:ordr"), "did you mean 'synthetic:order'"),
        ((*ORDER, "--lag", 5), "synthetic.lag: 5 is out of range; it must be from 10"),
        ((*ORDER, "--bptt", 20), "sequences of synthetic:order are run whole"),
        ((*ORDER, "--tied"), "model.tied: synthetic:order makes its own data"),
        ((), "no training text"),
    ):
        with pytest.raises(UsageError, match=re.escape(message)):
            rnncli(*arguments, "--out", "run")


def test_the_gradients_of_what_was_learned(rnncli, tmp_path, capfd):
    rnncli(*ORDER, "--lag", 12, "--out", "run", "--max-steps", 3)
    for gradients in in_process("gradients", capfd):
        found = json.loads(gradients("run", "--windows", 4, "--json"))
    assert found["task"] == "synthetic:order"
    assert re.fullmatch(r"4 sequences of 1[23] steps of synthetic:order", found["source"])
    assert found["training"] is not None

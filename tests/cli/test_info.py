"""``rnncli info``: for people, for pipes, for programs, and for files that lie."""

import json
import os
import pty
import re
import subprocess
from pathlib import Path

import pytest
import torch

from rnncli.checkpoint import read_header, write_model
from rnncli.config import Config
from rnncli.sections import ModelConfig
from rnncli.text.tokenizers import train_tokenizer
from tests.helpers import RNNCLI, cli_env, run_cli

CONFIG = Config(model=ModelConfig(cell="gru", layers=3, hidden_size=123, embedding_size=45))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("run")
    write_model(
        run / "model.safetensors",
        config=CONFIG,
        tokenizer=train_tokenizer(CONFIG.tokenizer, ["abc"]),
        weights={"w": torch.zeros(1000, 7), "b": torch.zeros(7, dtype=torch.bfloat16)},
        scores={"valid_perplexity": 81.23456789, "steps": 12, "worst": float("inf")},
        provenance={"train": [{"sha256": "ab" * 32}], "made\x1b[2J": "\x1b]0;owned\x07 é\u202e"},
    )
    return run


def on_terminal(*args: str | Path, env: dict[str, str]) -> str:
    """What a command prints on a terminal of 80 columns."""
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        [*RNNCLI, *map(str, args)],
        env=cli_env({"TERM": "xterm-256color", "COLUMNS": "80", **env}),
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
    ) as process:
        os.close(theirs)
        text = b""
        try:
            while chunk := os.read(ours, 1 << 16):
                text += chunk
        except OSError:  # how Linux says that the other end is closed
            pass
    os.close(ours)
    assert process.returncode == 0, text
    return text.decode()


def test_plain_lines_in_a_pipe(run):
    done = run_cli("info", run)
    assert (done.returncode, done.stderr) == (0, b"")
    lines = done.stdout.decode().splitlines()
    assert "\x1b" not in done.stdout.decode()
    values = dict(re.fullmatch(r"(.*?) {2,}(.*)", line).groups() for line in lines)
    assert values["task"] == "lm"
    assert values["cell"] == "gru"
    assert values["layers"] == "3"
    assert values["hidden size"] == "123"
    assert values["parameters"] == "7,007"
    assert values["types"] == "BF16, F32"
    assert values["tokenizer"] == "char, 5 tokens"
    assert values["valid perplexity"] == "81.2346"
    assert values["weights sha256"] == read_header(run).weights_sha256
    size = (run / "model.safetensors").stat().st_size
    assert values["file"].startswith(f"{size:,} bytes, format 1, rnncli ")
    assert len({line.index(values["cell"]) for line in lines if line.startswith("cell ")}) == 1
    columns = {len(line) - len(line.split("  ", 1)[1].lstrip()) for line in lines}
    assert len(columns) == 1, "the values are aligned"


def test_json(run):
    done = run_cli("info", run / "model.safetensors", "--json")
    found = json.loads(done.stdout, parse_constant=pytest.fail)
    header = read_header(run)
    assert Config.from_dict(found["config"]) == CONFIG
    assert found["scores"] == {**header.scores, "worst": None}
    assert found["provenance"] == header.provenance
    assert found["tensors"]["w"] == {"dtype": "F32", "shape": [1000, 7]}
    assert found["tokenizer"] == {"kind": "char", "vocab_size": 5}
    assert found["weights_sha256"] == header.weights_sha256


def test_a_table_on_a_terminal(run):
    colour = re.compile(r"\x1b\[[0-9;]*(?:3|4|9|10)[0-7][0-9;]*m")
    for env in ({}, {"NO_COLOR": "1"}):
        text = on_terminal("info", run, env=env)
        assert "┃" in text or "│" in text
        assert "gru" in text
        assert not colour.search(text)
        # What the file says is shown and not obeyed.
        assert "\x1b[2J" not in text
        assert "\x1b]0;" not in text
        assert "\u202e" not in text
        assert "\\x1b]0;owned" in text


def test_the_weights_are_not_read(run, tmp_path):
    """Nor needed to be right: only the header is verified here."""
    data = bytearray((run / "model.safetensors").read_bytes())
    data[-100:-50] = bytes(50)[::-1]
    (tmp_path / "model.safetensors").write_bytes(data)
    assert run_cli("info", tmp_path).stdout == run_cli("info", run).stdout


def test_errors(run, tmp_path):
    (tmp_path / "text").write_text("not a model at all")
    done = run_cli("info", tmp_path / "text")
    assert done.returncode == 65
    assert b"is a text file; expected" in done.stderr
    done = run_cli("info", tmp_path)
    assert done.returncode == 74
    assert b"there is no model.safetensors in it" in done.stderr

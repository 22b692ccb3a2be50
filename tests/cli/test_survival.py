"""The real command, stopped by real signals, at moments of chance."""

import json
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.helpers import RNNCLI, ROOT, cli_env, run_cli

SETTINGS = [
    "--layers=1",
    "--hidden-size=24",
    "--batch-size=4",
    "--bptt=20",
    "--threads=1",
    "--max-steps=400",
    "--seed=3",
    "--dropout=0.2",
    "--set",
    "training.save_every_seconds=0.2",
    "--set",
    "training.valid_every_steps=50",
]


def sha(folder: Path) -> str:
    return str(json.loads(run_cli("info", folder, "--json").stdout)["weights_sha256"])


@pytest.mark.slow
def test_stopped_by_every_signal_and_resumed(tmp_path):
    """Each once the run has saved again; the end is that of the run that was never stopped."""
    text = tmp_path / "text.txt"
    text.write_text("the boat went slowly home under the old bridge\n" * 100)
    done = run_cli("train", text, "--out", tmp_path / "whole", *SETTINGS, timeout=120)
    assert done.returncode == 0, done.stderr.decode()
    folder = tmp_path / "run"
    state = folder / "training.safetensors"
    for number, code in ((signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGKILL, -9)):
        begin = ("--resume",) if state.exists() else (text, *SETTINGS)
        before = state.stat().st_mtime_ns if state.exists() else 0
        process = subprocess.Popen(
            [*RNNCLI, "train", "--out", str(folder), *map(str, begin)],
            env=cli_env(),
            stderr=subprocess.PIPE,
        )
        limit = time.monotonic() + 60
        while not state.exists() or state.stat().st_mtime_ns == before:
            assert process.poll() is None, process.stderr.read().decode()
            assert time.monotonic() < limit
            time.sleep(0.01)
        process.send_signal(number)
        _, err = process.communicate(timeout=60)
        assert process.returncode == code, err.decode()
        if number != signal.SIGKILL:
            assert re.search(rb"rnncli: stopped after step \d+; the state is saved", err)
            assert b"Traceback" not in err
    done = run_cli("train", "--out", folder, "--resume", timeout=120)
    assert done.returncode == 0, done.stderr.decode()
    assert b"going on after step" in done.stderr
    assert sha(folder) == sha(tmp_path / "whole")


@pytest.mark.slow
def test_killed_a_hundred_times(tmp_path):
    done = subprocess.run(
        [sys.executable, ROOT / "benchmarks/kill.py", "--kills", "100", "--folder", tmp_path],
        env=cli_env(),
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert done.returncode == 0, done.stderr
    assert "100 kills in" in done.stdout
    assert "all resumed to the same weights" in done.stdout

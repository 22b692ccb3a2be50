"""A disk that fails during training: the run ends with a clear error, what was there stays."""

import errno
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from rnncli import files
from rnncli.errors import FileError
from rnncli.loading import load_language_model
from tests.helpers import cli_env
from tests.training.runs import assert_same_state, run, tiny_config


@pytest.fixture(scope="module")
def begun(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with text.txt, the run of one epoch and the run of two."""
    folder = tmp_path_factory.mktemp("begun")
    (folder / "text.txt").write_text("abcabd\nbadcab\n" * 10)
    run(config(folder, 1), folder / "run")
    run(config(folder, 2), folder / "whole")
    return folder


def config(folder: Path, epochs: int):
    return tiny_config(
        folder / "text.txt",
        data__valid=str(folder / "text.txt"),
        training__epochs=epochs,
        training__valid_every_steps=4,
    )


@pytest.mark.parametrize("name", ["_open", "_write", "_fsync", "_replace"])
def test_every_operation_failing_in_turn(name, begun, tmp_path, monkeypatch):
    """From a resumed run's first to its last; every eighth time it goes on from what is there."""
    real = getattr(files, name)
    calls = 0
    for turn in range(1000):
        folder = tmp_path / f"{turn}"
        shutil.copytree(begun / "run", folder)
        calls = 0

        def operation(*args, turn=turn):
            nonlocal calls
            calls += 1
            if calls == turn + 1:
                raise OSError(errno.EIO, os.strerror(errno.EIO))
            return real(*args)

        with monkeypatch.context() as patch:
            patch.setattr(files, name, operation)
            try:
                run(config(begun, 2), folder, resume=True)
            except FileError as error:
                assert error.exit_code == 74
                assert str(folder) in str(error)
                assert str(error).endswith("Input/output error")
                assert calls <= turn + 2  # the folder's lock is given back
        load_language_model(folder)
        assert not list(folder.glob(".rnncli-*"))
        if turn % 8 == 0:
            run(config(begun, 2), folder, resume=True)
            assert_same_state(begun / "whole", folder)
        if calls <= turn:
            break
    assert turn >= {"_open": 8, "_write": 20, "_fsync": 6, "_replace": 3}[name]


def test_a_disk_that_fills(begun, tmp_path):
    """A limit on the size of files stands for it."""
    shutil.copytree(begun / "run", tmp_path / "run")
    before = (tmp_path / "run/training.safetensors").read_bytes()
    code = f"""
import resource, sys
sys.argv = ["rnncli", "train", "--resume", "--out", "run", "--epochs", "2"]
from rnncli.cli import main
import rnncli.training.loop
resource.setrlimit(resource.RLIMIT_FSIZE, ({len(before) - 100},) * 2)
main()
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env=cli_env(),
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 74, done.stderr
    assert "cannot write run/training.safetensors: File too large" in done.stderr
    assert "Traceback" not in done.stderr
    assert (tmp_path / "run/training.safetensors").read_bytes() == before
    load_language_model(tmp_path / "run")
    run(config(begun, 2), tmp_path / "run", resume=True)
    assert_same_state(begun / "whole", tmp_path / "run")


def test_metrics_that_cannot_be_written(begun, tmp_path):
    left_out = shutil.ignore_patterns("metrics.jsonl")
    shutil.copytree(begun / "run", tmp_path / "run", ignore=left_out)
    (tmp_path / "run/metrics.jsonl").symlink_to("/dev/full")
    with pytest.raises(FileError, match=r"metrics\.jsonl: No space left on device"):
        run(config(begun, 2), tmp_path / "run", resume=True)
    load_language_model(tmp_path / "run")


def test_a_folder_that_is_a_file(begun, tmp_path):
    (tmp_path / "run").touch()
    with pytest.raises(FileError, match=r"cannot write .*run: File exists"):
        run(config(begun, 1), tmp_path / "run")


def test_a_folder_that_cannot_be_made(begun):
    with pytest.raises(FileError, match="cannot write /proc/run"):
        run(config(begun, 1), Path("/proc/run"))

"""``rnncli zoo`` as a process: a list, a configuration, JSON, an unknown name."""

from __future__ import annotations

import json
import os
import pty
import sys
import tomllib
from pathlib import Path

from rnncli.config import Config, load_toml
from rnncli.zoo import list_entries, load_entry, names
from tests.helpers import RNNCLI, cli_env, run_cli


def test_a_pipe_gets_one_aligned_line_a_model() -> None:
    ran = run_cli("zoo")
    lines = ran.stdout.decode().splitlines()
    assert ran.returncode == 0 and ran.stderr == b""
    assert [line.split()[0] for line in lines] == names()
    for entry, line in zip(list_entries(), lines, strict=True):
        assert line.endswith(entry.paper.figure)
        assert line.index(entry.model) == lines[0].index(list_entries()[0].model)


def test_it_imports_no_torch() -> None:
    ran = run_cli("zoo", env={"PYTHONPROFILEIMPORTTIME": "1"})
    imported = {line.rpartition(b"|")[2].strip() for line in ran.stderr.splitlines()}
    assert b"rnncli.zoo" in imported
    assert not imported & {b"torch", b"numpy", b"sentencepiece", b"tomli_w", b"rich.table"}


def test_a_terminal_gets_a_table() -> None:
    output = _on_a_terminal("zoo")
    assert "should reach" in output
    assert all(name in output for name in names())


def test_a_name_prints_a_file_that_is_its_configuration(tmp_path: Path) -> None:
    ran = run_cli("zoo", "zaremba2014-medium")
    path = tmp_path / "my.toml"
    path.write_bytes(ran.stdout)
    assert ran.returncode == 0
    assert Config.from_dict(load_toml(path)) == load_entry("zaremba2014-medium").config
    assert ran.stdout.decode().startswith("# zaremba2014-medium: LSTM 2x650")


def test_json_of_all_and_of_one() -> None:
    everything = json.loads(run_cli("zoo", "--json").stdout)
    assert [item["name"] for item in everything] == names()
    assert all(item["paper"]["figure"] for item in everything)
    one = json.loads(run_cli("zoo", "awd-lstm", "--json").stdout)
    assert Config.from_dict(one["config"]) == load_entry("awd-lstm").config
    assert tomllib.loads(load_entry("awd-lstm").source)["model"]["layers"] == 3


def test_an_unknown_name_is_a_usage_error() -> None:
    ran = run_cli("zoo", "awd-lsmt")
    assert ran.returncode == 2 and ran.stdout == b""
    assert b"did you mean 'awd-lstm'" in ran.stderr


def _on_a_terminal(*args: str) -> str:
    """What the command prints on a pseudo-terminal 200 columns wide."""
    pid, handle = pty.fork()
    if pid == 0:  # pragma: no cover
        environment = cli_env({"COLUMNS": "200", "TERM": "xterm", "NO_COLOR": "1"})
        os.execvpe(sys.executable, [*RNNCLI, *args], environment)
    output = b""
    while True:
        try:
            part = os.read(handle, 1 << 16)
        except OSError:  # Linux says so when the other side is closed
            break
        if not part:
            break
        output += part
    os.close(handle)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    return output.decode()

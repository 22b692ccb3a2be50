"""What README shows works as it stands."""

import re
import subprocess
from pathlib import Path

import pytest

from tests.helpers import RNNCLI, ROOT, cli_env

README = (ROOT / "README.md").read_text(encoding="utf-8")
SHORT = {r"--max-time \S+": "--max-steps 12", r"--max-new-tokens \d+": "--max-new-tokens 8"}


def commands() -> list[str]:
    """The command lines of the console and sh blocks, in order."""
    found: list[str] = []
    for kind, block in re.findall(r"```(console|sh)\n(.*?)```", README, re.S):
        for line in block.splitlines():
            if kind == "sh" and line.strip():
                found.append(line)
            elif line.startswith("$ "):
                found.append(line[2:])
    return found


def test_it_begins_with_the_two_commands():
    assert README.index("make demo") < README.index("make test") < README.index("## ")
    assert len(commands()) >= 12


def test_no_output_is_left_out():
    assert "@@" not in README


@pytest.mark.slow
def test_every_command_works(tmp_path: Path):
    (tmp_path / "sample_data").symlink_to(ROOT / "sample_data")
    for command in commands():
        for pattern, short in SHORT.items():
            command = re.sub(pattern, short, command)
        line = re.sub(r"\brnncli (?=[a-z])", f"{' '.join(RNNCLI)} ", command)
        done = subprocess.run(
            ["bash", "-o", "pipefail", "-c", line],
            cwd=tmp_path,
            env=cli_env(),
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert done.returncode == 0, f"{command}\n{done.stderr}"


@pytest.mark.slow
def test_the_python_example_works(tmp_path: Path):
    (code,) = re.findall(r"```python\n(.*?)```", README, re.S)
    book = ROOT / "sample_data" / "book.txt"
    train = [*RNNCLI, "train", str(book), "--out", "run", "--max-steps", "4", "--hidden-size", "16"]
    subprocess.run(train, cwd=tmp_path, env=cli_env(), check=True, capture_output=True)
    done = subprocess.run(
        [RNNCLI[0], "-c", code], cwd=tmp_path, env=cli_env(), capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "[-" in done.stdout

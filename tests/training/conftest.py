from pathlib import Path

import pytest

from tests.training.runs import write_text


@pytest.fixture
def text(tmp_path: Path) -> Path:
    """40 lines, 444 training characters: 11 steps an epoch of a tiny run."""
    return write_text(tmp_path / "text.txt")

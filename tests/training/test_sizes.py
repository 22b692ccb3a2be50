"""Models of equal size: the solver against models that are really made, and against brute force."""

from __future__ import annotations

import pytest

from rnncli.cell_table import CELLS
from rnncli.errors import UsageError
from rnncli.models.language_model import LanguageModel
from rnncli.sections import ModelConfig
from rnncli.training.sizes import NEAR, TOLERANCE, count_parameters, equal_model, matching_size

V = 37


def make(model: ModelConfig) -> LanguageModel:
    return LanguageModel(model, V)


FIRST = ModelConfig(cell="lstm", layers=2, hidden_size=64, embedding_size=48)


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("cell", CELLS)
def test_real_models_have_equal_parameters(cell: str, tied: bool) -> None:
    sizes = {"hidden_size": 64, "embedding_size": 64 if tied else 48}
    first = ModelConfig(cell="lstm", layers=2, tied=tied, **sizes)
    target = sum(p.numel() for p in make(first).parameters())
    found = equal_model(make, ModelConfig(cell=cell, layers=2, tied=tied, **sizes), target, cell)
    made = sum(p.numel() for p in make(found).parameters())
    assert made == count_parameters(make, found)
    assert abs(made / target - 1) <= TOLERANCE
    if cell in ("lstm", "elman", "gru"):
        assert (found.hidden_size == 64) == (cell == "lstm")
    assert found.embedding_size == (found.hidden_size if tied else 48)


@pytest.mark.parametrize("target", [300_000, 1_000_000, 20_000_003])
def test_no_size_is_nearer_than_the_nearest_or_the_rounder_one(target: int) -> None:
    def count(size: int) -> int:
        if size % 3:
            raise UsageError("a multiple of three")
        return 8 * size * size + 5 * size + 100

    found = matching_size(count, target, "x")
    off = {s: abs(count(s) / target - 1) for s in range(3, 2000, 3)}
    nearest = min(off, key=lambda s: off[s])
    assert off[found] <= TOLERANCE
    assert found == nearest or (off[found] <= NEAR and found % 2 == 0)


def test_of_near_sizes_the_roundest() -> None:
    assert matching_size(lambda s: s * s, 510 * 510, "x") == 512
    assert matching_size(lambda s: s * s, 500 * 500, "x") == 500


@pytest.mark.parametrize(
    ("model", "target", "message"),
    [
        (FIRST, 100, "no hidden size gives 100 parameters within 2%; it has .* with 1 units"),
        (
            ModelConfig(cell="lstm", layers=1, hidden_size=4, embedding_size=4),
            840,
            "it has 780 with 7 units and 897 with 8 units",
        ),
        (
            ModelConfig(layers=1, hidden_size=9, embedding_size=4, tied=True),
            10**6,
            "does not bring it to 1,000,000 parameters",
        ),
    ],
)
def test_what_cannot_be_matched_is_refused(model: ModelConfig, target: int, message: str) -> None:
    with pytest.raises(UsageError, match=f"some cell: .*{message}.*--equal hidden"):
        equal_model(make, model, target, "some cell")

"""The mean of models."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from rnncli.averaging import average_models
from rnncli.checkpoint import read_header, read_model, write_model
from rnncli.errors import UsageError
from tests.helpers import run_cli, tiny_model
from tests.translators import write_translator


def test_every_weight_is_the_mean(tmp_path: Path) -> None:
    models = [tiny_model(tmp_path / str(seed), seed=seed) for seed in range(3)]
    mean = read_model(average_models(models, tmp_path / "mean.safetensors"))
    each = [read_model(model) for model in models]
    assert mean.config == each[0].config
    for name, weight in mean.weights.items():
        expected = torch.stack([one.weights[name].double() for one in each]).mean(0)
        torch.testing.assert_close(weight, expected.float(), rtol=1e-6, atol=1e-7)
        assert weight.dim() == 1 or not torch.equal(weight, each[0].weights[name])
    digests = [one.header.weights_sha256 for one in each]
    assert mean.header.provenance["average_of"] == digests


def test_the_longest_source_is_that_of_all(tmp_path: Path) -> None:
    """Where each model's file tells it."""
    folders = []
    for name, longest in (("a", 5), ("b", 9), ("c", 0)):
        folders.append(tmp_path / name)
        provenance = {"longest_source": longest} if longest else {}
        write_translator(folders[-1], "word", provenance=provenance)
    for models, longest in ((folders[:2], 9), (folders, 0)):
        header = read_header(average_models(models, tmp_path / "mean.safetensors"))
        assert header.longest_source == longest
        assert ("longest_source" in header.provenance) == bool(longest)


@pytest.mark.parametrize(
    ("other", "what"),
    [({"hidden_size": 8}, "model configuration"), ({"text": "other words\n"}, "weights")],
)
def test_models_that_have_no_mean(other: dict[str, object], what: str, tmp_path: Path) -> None:
    one = tiny_model(tmp_path / "a")
    two = tiny_model(tmp_path / "b", **other)
    with pytest.raises(UsageError, match=f"have not the same {what}"):
        average_models([one, two], tmp_path / "mean.safetensors")


def test_runs_that_began_elsewhere_have_no_mean(tmp_path: Path) -> None:
    """Their units have nothing to do with each other; those of two runs from one model have."""
    saved = read_model(tiny_model(tmp_path / "a"))
    paths = []
    for number, start in enumerate((None, None, "a", "a")):
        paths.append(tmp_path / f"{number}.safetensors")
        values = {"seed": number + 1, "training.start_from": start}
        write_model(
            paths[-1], config=saved.config.with_values(values), tokenizer=saved.tokenizer,
            weights=saved.weights, scores={}, provenance={},
        )  # fmt: skip
    for pair in ([0, 1], [0, 2]):
        with pytest.raises(UsageError, match="have not the same start"):
            average_models([paths[n] for n in pair], tmp_path / "mean.safetensors")
    average_models(paths[2:], tmp_path / "mean.safetensors")


def test_the_command(tmp_path: Path) -> None:
    model = tiny_model(tmp_path / "a")
    done = run_cli("average", model, model, "--out", tmp_path / "mean.safetensors")
    assert (done.returncode, done.stdout) == (0, b"")
    again = run_cli("average", model, "--out", tmp_path / "mean.safetensors")
    assert again.returncode == 2 and b"--overwrite replaces it" in again.stderr
    scored = run_cli("score", tmp_path / "mean.safetensors", input=b"the cat\n")
    assert scored.stdout == run_cli("score", model, input=b"the cat\n").stdout

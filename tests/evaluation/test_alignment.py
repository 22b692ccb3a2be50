"""Where translations looked: the weights of the model, in the order of the text."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from rnncli.checkpoint import read_model, write_model
from rnncli.errors import UsageError
from rnncli.evaluation.alignment import align
from rnncli.loading import load_translators
from rnncli.translation import Translated
from tests.helpers import tiny_translator


def found(tokens: tuple[int, ...], finished: bool = True) -> Translated:
    return Translated("", 0.0, 0.0, finished, tokens)


def test_weights_of_each_piece_for_each_piece(tmp_path: Path) -> None:
    models = load_translators([tiny_translator(tmp_path)])
    words = models[0].tokenizer
    line, tokens = "the zebra sat", tuple(words.encode("mat on"))
    one = align(models, line, found(tokens))
    assert one.source == ("the", "<unk>", "sat", "</s>")
    assert one.target == ("mat", "on", "</s>")
    assert one.weights.sum(1) == pytest.approx(np.ones(3))
    source = torch.tensor([*words.encode(line), 0]).unsqueeze(1)
    inputs = torch.tensor([0, *tokens]).unsqueeze(1)
    expected = models[0].model.attention_weights(source, inputs)[:, 0].numpy()
    assert one.weights == pytest.approx(expected)
    assert np.ptp(one.weights) > 0.01
    cut = align(models, line, found(tokens, finished=False))
    assert cut.target == ("mat", "on")
    assert cut.weights == pytest.approx(expected[:2])


def test_sources_read_backward_are_shown_forward(tmp_path: Path) -> None:
    path = tiny_translator(tmp_path / "plain", direction="forward")
    saved = read_model(path)
    (tmp_path / "back").mkdir()
    write_model(
        tmp_path / "back" / "model.safetensors",
        config=saved.config.with_values({"model.reverse_source": True}),
        tokenizer=saved.tokenizer, weights=saved.weights, scores={}, provenance={},
    )  # fmt: skip
    plain, back = (load_translators([tmp_path / name]) for name in ("plain", "back"))
    tokens = (2, 3)
    forward, backward = (
        align(models, line, found(tokens))
        for models, line in ((plain, "sat cat the"), (back, "the cat sat"))
    )
    assert backward.source == ("the", "cat", "sat", "</s>")
    assert backward.weights == pytest.approx(forward.weights[:, [2, 1, 0, 3]])
    assert backward.weights != pytest.approx(forward.weights)


def test_a_source_has_its_own_pieces(tmp_path: Path) -> None:
    models = load_translators([tiny_translator(tmp_path, source_text="der Kater sat")])
    one = align(models, "der cat sat", found((2,)))
    assert one.source == ("der", "<unk>", "sat", "</s>")
    assert one.target == ("the", "</s>")


def test_several_models_and_one_that_looks_nowhere(tmp_path: Path) -> None:
    paths = [tiny_translator(tmp_path / str(k), seed=k) for k in range(2)]
    both = load_translators(paths)
    each = [align([one], "the cat", found((2,))).weights for one in both]
    assert align(both, "the cat", found((2,))).weights == pytest.approx(sum(each) / 2)
    blind = tiny_translator(tmp_path / "blind", attention="none")
    mixed = align(load_translators([blind, paths[0]]), "the cat", found((2,))).weights
    assert mixed == pytest.approx(each[0])
    with pytest.raises(UsageError, match=r"blind.*has no attention"):
        align(load_translators([blind]), "the cat", found((2,)))

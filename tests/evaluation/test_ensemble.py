"""Means of probabilities, over models and over dropout masks."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from rnncli.config import Config
from rnncli.errors import UsageError
from rnncli.evaluation.ensemble import dropout_rates, load_ensemble, mean_probability
from rnncli.evaluation.language_model import Totals, evaluating, predict
from rnncli.evaluation.pieces import column_pieces, line_pieces
from rnncli.evaluation.strings import encode_string
from rnncli.evaluation.text import Extras, evaluate_text
from rnncli.nn.stack import Run
from rnncli.sections import RegularizationConfig
from tests.evaluation.truth import DOUBLE, random_ids, small_model, stepped
from tests.helpers import tiny_model

END = 3


@pytest.mark.parametrize("shape", ["columns", "lines"])
def test_the_mean_of_a_model_with_itself_is_the_model(shape: str):
    model, ids = small_model(), np.append(random_ids(50), END).astype(np.uint16)

    def pieces():
        return column_pieces(ids, END, 4, 6) if shape == "columns" else line_pieces(ids, END, 6)

    with evaluating(model):
        alone = Totals(1).read(predict(model, pieces(), DOUBLE))
        runs = [predict(model, pieces(), DOUBLE) for _ in range(3)]
        together = Totals(1).read(mean_probability(runs))
    assert together == pytest.approx(alone, rel=1e-13)


def test_an_ensemble_is_the_mean_of_probabilities():
    models = [small_model(seed=k, hidden_size=4 + k) for k in range(3)]
    ids = random_ids(40)
    costs = np.array([stepped(model, END, ids) for model in models])
    truth = -np.log(np.exp(-costs).mean(0)).sum()
    with evaluating(*models):
        runs = [predict(model, column_pieces(ids, END, 1, 7), DOUBLE) for model in models]
        assert Totals(None).read(mean_probability(runs))[0] == pytest.approx(truth, rel=1e-12)


def test_models_of_one_tokenizer_alone(tmp_path: Path):
    first = tiny_model(tmp_path / "a")
    second = tiny_model(tmp_path / "b", seed=1, hidden_size=8)
    other = tiny_model(tmp_path / "c", text="quite another vocabulary\n")
    loaded = load_ensemble([first, second])
    text = encode_string(loaded[0].tokenizer, "the cat\nsat\n")
    both = evaluate_text(loaded, text, state="carried", run_as=Run())
    each = [evaluate_text([m], text, state="carried", run_as=Run()).scores.nats for m in loaded]
    assert each[0] != pytest.approx(each[1])
    assert both.scores.nats < max(each)
    assert both.scores.signature.endswith("|models:2")
    with pytest.raises(UsageError, match=r"c/model.*char, 18 tokens.*a/model.*char, 15 tokens"):
        load_ensemble([first, other])


def test_monte_carlo_dropout_is_the_mean_over_masks(tmp_path: Path):
    (loaded,) = load_ensemble([tiny_model(tmp_path)])
    object.__setattr__(loaded, "config", loaded.config.with_values({"regularization.dropout": 0.4}))
    rates = RegularizationConfig(dropout=0.4)
    text = encode_string(loaded.tokenizer, "the cat sat on the mat\nthe dog ran\n")
    torch.manual_seed(7)
    with evaluating(loaded.model):
        passes = [
            torch.cat([part.nats[:, 0] for part in run])
            for run in [
                predict(loaded.model, column_pieces(text.ids, 0, 1, 256), Run(), rates)
                for _ in range(4)
            ]
        ]
    truth = -torch.stack(passes).double().neg().exp().mean(0).log().sum()
    before = torch.get_rng_state()
    extras = Extras(mc_dropout=4, seed=7)
    found = evaluate_text([loaded], text, state="carried", run_as=Run(), extras=extras)
    assert torch.equal(before, torch.get_rng_state())
    averaged = found.apart["mc_dropout"]
    assert averaged.nats == pytest.approx(truth.item(), rel=1e-6)
    assert averaged.signature.endswith("|mc-dropout:passes=4,seed=7")
    assert not math.isclose(averaged.nats, found.scores.nats, rel_tol=1e-3)
    plain = evaluate_text([loaded], text, state="carried", run_as=Run())
    assert found.scores == plain.scores


def test_dropout_needs_rates():
    with pytest.raises(UsageError, match="trained without dropout"):
        dropout_rates(Config())
    rates = RegularizationConfig(weight_drop=0.5)
    assert dropout_rates(Config(regularization=rates)) == rates

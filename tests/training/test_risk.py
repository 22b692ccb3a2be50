"""Minimum risk training against the paper's formula, differentiated by autograd."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rnncli.decoding.sampling import Sample
from rnncli.errors import UsageError
from rnncli.evaluation.translation import sentence_bleu
from rnncli.nn.stack import Run
from rnncli.sections import RegularizationConfig, TrainingConfig
from rnncli.text.pairs import source_batch, target_batch
from rnncli.training import risk
from rnncli.training.risk import draw_candidates, risk_gradient, risk_loss
from tests.training.runs import Killed, assert_same_state, at_step, kill, run
from tests.training.test_translation import config, translate, write_pairs
from tests.translators import network, tokenizer_of


def paper_risk(
    nats: torch.Tensor, costs: torch.Tensor, counted: torch.Tensor, alpha: float
) -> torch.Tensor:
    """Sum over y of P(y)^alpha / sum over y' of P(y')^alpha * Delta(y), of each row."""
    power = torch.exp(-alpha * nats) * counted
    return (power / power.sum(1, keepdim=True) * costs).sum(1)


@given(
    st.integers(0, 1000), st.integers(1, 4), st.integers(1, 5), st.sampled_from([0.005, 0.3, 1.0])
)
def test_the_gradient_is_that_of_the_formula(seed: int, B: int, K: int, alpha: float) -> None:
    rng = torch.Generator().manual_seed(seed)
    nats = (9 * torch.rand(B, K, generator=rng, dtype=torch.float64)).requires_grad_()
    costs = torch.rand(B, K, generator=rng, dtype=torch.float64)
    counted = torch.rand(B, K, generator=rng) < 0.8
    counted[:, 0] = True
    (expected,) = torch.autograd.grad(paper_risk(nats, costs, counted, alpha).sum(), nats)
    found = risk_gradient(nats.detach(), costs, counted, alpha)
    torch.testing.assert_close(found, expected / alpha, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"look_up": "between", "attention": "additive"},
        {"look_up": "before", "attention": "additive", "coverage": True},
        {"attention": "none", "context": "every-step", "readout": "maxout"},
        {"attention": "none"},
    ],
    ids=["after", "between", "coverage", "cho", "none"],
)
def test_a_network_is_moved_as_the_formula_says(
    more: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each source's candidates run by themselves, their whole graph kept."""
    tokenizer = tokenizer_of("word")
    model = network(tokenizer, **more).double().requires_grad_()
    texts = [["the cat", "sat", "the cat"], ["cat", "cat sat the", "the"]]
    references = [np.array(tokenizer.encode(text)) for text in ("the cat sat", "cat sat")]
    end = (tokenizer.boundary_id,)
    drawn = [
        [Sample(k, (*tokenizer.encode(text), *end), text, 0.0, "stop") for k, text in enumerate(t)]
        for t in texts
    ]
    drawn[1][2] = Sample(2, tuple(tokenizer.encode("the")), "the", 0.0, "length")
    monkeypatch.setattr(risk, "draw_candidates", lambda *_: drawn)
    sources = [np.array(tokenizer.encode(text)) for text in ("sat the cat", "the a mat")]
    batch = torch.from_numpy(source_batch(sources, tokenizer.boundary_id))
    run_as, rates = Run("reference", torch.float64), RegularizationConfig()
    training = TrainingConfig(risk_candidates=3, risk_sharpness=0.2)
    loss = risk_loss(model, tokenizer, batch, references, 16, training, rates, run_as, 0)
    parameters = [p for p in model.parameters() if p.requires_grad]
    found = torch.autograd.grad(loss.objective, parameters, allow_unused=True)

    total = torch.zeros((), dtype=torch.float64)
    reference_nats = 0.0
    sets = [["the cat sat", "the cat", "sat"], ["cat sat", "cat", "cat sat the"]]
    for column, candidates in enumerate(sets):
        rows = [np.array(tokenizer.encode(text)) for text in candidates]
        inputs, targets, mask = map(torch.from_numpy, target_batch(rows, tokenizer.boundary_id))
        source = batch[:, [column] * len(rows)]
        nats = (model.nats(source, inputs, targets, run_as) * mask).sum(0)
        text = tokenizer.decode(references[column].tolist())
        worth = [sentence_bleu(tokenizer.decode(row.tolist()), text) / 100 for row in rows]
        costs = 1 - torch.tensor([worth], dtype=torch.float64)
        counted = torch.ones(1, len(rows), dtype=torch.bool)
        total = total + paper_risk(nats[None], costs, counted, 0.2)[0] / 0.2 / 2
        reference_nats += float(nats[0].detach())
    expected = torch.autograd.grad(total, parameters, allow_unused=True)
    for one, other in zip(found, expected, strict=True):
        if one is not None or other is not None:
            torch.testing.assert_close(one, other, rtol=1e-7, atol=1e-11)
    assert loss.tokens == sum(len(line) + 1 for line in references)
    assert loss.nats == pytest.approx(reference_nats / loss.tokens)


def test_candidates_follow_the_distribution() -> None:
    """Drawn translations are as frequent as the model says, each source's by itself."""
    tokenizer = tokenizer_of("word")
    model = network(tokenizer)
    sources = [np.array(tokenizer.encode(text)) for text in ("sat the cat", "the a mat")]
    batch = torch.from_numpy(source_batch(sources, tokenizer.boundary_id))
    count = 4000
    drawn = draw_candidates(model, tokenizer, batch, count, 16, seed=3)
    for column, some in enumerate(drawn):
        empty = sum(one.tokens == (tokenizer.boundary_id,) for one in some)
        inputs, targets, _ = map(
            torch.from_numpy, target_batch([np.array([], np.int64)], tokenizer.boundary_id)
        )
        with torch.no_grad():
            nats = model.nats(batch[:, [column]], inputs, targets, Run("reference", torch.float32))
        p = math.exp(-float(nats))
        assert empty / count == pytest.approx(p, abs=5 * math.sqrt(p * (1 - p) / count))


def test_risk_goes_down_where_likelihood_left_off(tmp_path: Path) -> None:
    """Starting from a half-trained model, translations of the training pairs become better."""
    pairs = write_pairs(tmp_path / "p.tsv", 400)
    run(config(pairs, training__epochs=3), tmp_path / "likelihood")
    more: dict[str, Any] = {
        "training__risk_candidates": 6,
        "training__precision": "float32",
        "optimizer__lr": 0.002,
        "training__epochs": 2,
    }
    tuned = config(pairs, **more, training__start_from=str(tmp_path / "likelihood"))
    run(tuned, tmp_path / "risk")
    lines = [line.split("\t") for line in pairs.read_text().splitlines()[:200]]
    worth = {
        name: sum(
            sentence_bleu(a, b)
            for a, (_, b) in zip(
                translate(tmp_path / name, [source for source, _ in lines]), lines, strict=True
            )
        )
        for name in ("likelihood", "risk")
    }
    assert worth["risk"] > worth["likelihood"]


def test_resumed_is_never_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = config(
        write_pairs(tmp_path / "p.tsv", 120), training__risk_candidates=2, training__epochs=2
    )
    run(settings, tmp_path / "whole")
    with monkeypatch.context() as patch, pytest.raises(Killed):
        at_step(patch, 5, kill)
        run(settings, tmp_path / "parts")
    run(settings, tmp_path / "parts", resume=True)
    assert_same_state(tmp_path / "whole", tmp_path / "parts")


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"regularization.label_smoothing": 0.1}, "smooths no targets"),
        ({"training.sampled_softmax": 100}, "draws from the whole vocabulary"),
        ({"training.risk_candidates": 0, "training.risk_sharpness": 0.1}, "risk_candidates"),
        ({"task": "lm"}, "only --task translate has it"),
    ],
)
def test_what_it_does_not_go_with(more: dict[str, Any], message: str) -> None:
    from rnncli.config import Config

    needed = {"task": "translate", "training.risk_candidates": 4, "training.state": "reset"}
    with pytest.raises(UsageError, match=message):
        Config().with_values({**needed, **more})


def test_pieces_are_not_added_up(tmp_path: Path) -> None:
    settings = config(
        write_pairs(tmp_path / "p.tsv", 80), training__risk_candidates=2, training__accumulate=2
    )
    with pytest.raises(UsageError, match="several pieces are weighed by their tokens"):
        run(settings, tmp_path / "run")

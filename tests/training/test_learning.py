"""That learning is real."""

import math
from collections import Counter

import pytest
import torch

from rnncli.config import Config
from rnncli.runtime import prepare
from rnncli.text.corpus import load_corpus
from rnncli.training.events import StepReport
from rnncli.training.language_modelling import LanguageModelling
from tests.training.runs import run, tiny_config


@pytest.mark.parametrize("cell", ["elman", "lstm", "gru", "gru-cho2014"])
@pytest.mark.parametrize("state", ["carried", "reset"])
def test_every_cell_learns_a_sequence_by_heart(cell, state, tmp_path):
    """After "a" comes "b" or "c", by what came before: only a state can tell."""
    text = tmp_path / "text.txt"
    text.write_text("xabxacyabyac\n" * 60)
    config = tiny_config(
        text,
        data__valid=str(text),
        model__cell=cell,
        model__hidden_size=16,
        optimizer__lr=0.03,
        training__state=state,
        training__bptt=13,
        training__epochs=0,
        training__max_steps=120,
        training__precision="float32",
    )
    finished = run(config, tmp_path / "run")[-1]
    assert finished.best_score < 0.03


def test_an_untrained_model_knows_how_often_each_token_occurs(text, tmp_path):
    """Its loss is near the entropy of single tokens."""
    config = tiny_config(text, data__valid=str(text))
    task = LanguageModelling(config, load_corpus(config.data, config.tokenizer), prepare(threads=1))
    found = task.validate()
    counts = Counter(text.read_text())
    total = sum(counts.values())
    entropy = -sum(n * math.log(n / total) for n in counts.values()) / total
    assert found.tokens == total
    assert found.nats / found.tokens == pytest.approx(entropy, abs=0.05)


def test_training_and_validation_measure_the_same(text, tmp_path, monkeypatch):
    """Mean nats over an epoch's steps that change nothing are those of validation."""
    monkeypatch.setattr("rnncli.training.loop.REPORT_SECONDS", math.inf)
    config = tiny_config(
        text,
        data__valid=str(text),
        optimizer__lr=0.0,
        training__epochs=1,
        training__batch_size=1,
        training__precision="float32",
    )
    events = run(config, tmp_path / "run")
    (report,) = (e for e in events if isinstance(e, StepReport))
    assert report.tokens == len(text.read_text())
    assert report.nats == pytest.approx(events[-1].best_score, abs=1e-4)


def trained_losses(config: Config) -> list[tuple[float, int]]:
    """(mean nats, tokens) of each piece of an epoch, the weights untouched."""
    runtime = prepare(precision=config.training.precision, threads=1)
    corpus = load_corpus(config.data, config.tokenizer)
    torch.manual_seed(config.seed)
    task = LanguageModelling(config, corpus, runtime)
    task.begin_epoch(0)
    found = []
    for piece in range(task.pieces):
        loss = task.loss(piece, sampled=config.training.sampled_softmax > 0)
        task.accept(carry=True)
        found.append((loss.nats, loss.tokens))
    return found


def test_the_sampled_softmax_estimates_the_whole(text):
    """With all of a small vocabulary sampled many times over, the estimate is the loss."""
    whole = trained_losses(tiny_config(text))
    sampled = trained_losses(tiny_config(text, training__sampled_softmax=2000))
    for (nats, tokens), (estimate, same) in zip(whole, sampled, strict=True):
        assert estimate == pytest.approx(nats, abs=0.02)
        assert tokens == same


def test_dropout_holds_back(text, tmp_path):
    """A text that is learnt by heart is learnt less well."""
    scores = []
    for number, rate in enumerate((0.0, 0.6)):
        config = tiny_config(
            text, data__valid=str(text), regularization__dropout=rate, training__epochs=10
        )
        scores.append(run(config, tmp_path / f"{number}")[-1].best_score)
    assert scores[0] < scores[1] - 0.02

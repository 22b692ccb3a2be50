"""A comparison: what its rows say, and that nothing is run twice."""

from __future__ import annotations

import itertools
import math
import os
import signal
import statistics
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rnncli.cell_table import CELLS
from rnncli.checkpoint import read_header
from rnncli.config import Config
from rnncli.errors import Interrupted, UsageError
from rnncli.training.comparable import require_comparable
from rnncli.training.compare import (
    Candidate,
    Run,
    Trainer,
    base_config,
    cell_candidates,
    compare,
    keep_base,
    make_rows,
    plan_runs,
    settle,
    with_one_precision,
)
from rnncli.training.events import EvalReport, Event, Finished, Started, StepReport
from rnncli.training.outcome import Outcome, _score
from rnncli.training.run import train
from rnncli.training.worker import Failed, run_apart, run_here
from tests.training.runs import Killed, at_step, kill, metrics, tiny_config


def tiny(text: Path, **more: Any) -> Config:
    return tiny_config(text, training__precision="float32", training__epochs=1, **more)


def outcomes(runs: list[Run], trainer: Trainer = run_here) -> list[tuple[Run, Outcome]]:
    return [(run, event) for run, event in compare(runs, trainer) if isinstance(event, Outcome)]


class Counting:
    """Trains here and remembers which folders it was asked for."""

    def __init__(self) -> None:
        self.folders: list[str] = []

    def __call__(self, config: Config, folder: Path) -> Iterator[Event | Failed]:
        self.folders.append(folder.name)
        return run_here(config, folder)


def test_what_was_not_validated_has_no_spread(text: Path, tmp_path: Path) -> None:
    settled = settle(cell_candidates(tiny(text, data__valid_fraction=0.0), ["elman"]), "hidden")
    (row,) = make_rows(settled, outcomes(plan_runs(settled, 2, tmp_path / "all")))
    assert math.isnan(row.mean("score")) and math.isnan(row.spread)


def test_rows_are_what_the_runs_gave(text: Path, tmp_path: Path) -> None:
    settled = settle(cell_candidates(tiny(text), ["elman", "gru"]), "hidden")
    runs = plan_runs(settled, 2, tmp_path / "all")
    assert [run.name for run in runs] == ["elman-1", "gru-1", "elman-2", "gru-2"]
    elman, gru = make_rows(settled, outcomes(runs))
    scores = []
    for seed in (1, 2):
        config = tiny(text, model__cell="gru", seed=seed)
        *_, last = train(config, tmp_path / str(seed))
        assert isinstance(last, Finished)
        scores.append(math.exp(last.best_score))
        assert last.step == 10
    assert gru.mean("score") == pytest.approx(statistics.mean(scores), rel=1e-12)
    assert gru.spread == pytest.approx(abs(scores[0] - scores[1]) / math.sqrt(2))
    assert gru.mean("steps") == 10
    values = gru.to_dict()
    assert values["valid_perplexity"] == gru.mean("score")
    assert values["parameters"] == read_header(tmp_path / "1").parameters
    assert values["hidden_size"] == elman.candidate.config.model.hidden_size == 8
    assert elman.to_dict()["parameters"] < values["parameters"]
    reports = [e for e in metrics(tmp_path / "all" / "gru-1") if e["event"] == "StepReport"]
    slowest, fastest = (f(e["tokens_per_second"] for e in reports) for f in (min, max))
    assert slowest <= gru.outcomes[0].tokens_per_second <= fastest * (1 + 1e-9)


def test_sizes_are_equal_and_named(text: Path) -> None:
    base = tiny(text, model__hidden_size=40, model__embedding_size=30)
    cells = ["lstm", "elman nonlinearity=relu", "elman"]
    lstm, relu, tanh = settle(cell_candidates(base, cells), "parameters")
    assert relu.config.model.nonlinearity == "relu"
    assert tanh.config.model.nonlinearity is None
    assert relu.folder_name == "elman-nonlinearity=relu"
    assert relu.parameters == tanh.parameters == pytest.approx(lstm.parameters, rel=0.02)
    assert lstm.config.model.hidden_size == 40 < tanh.config.model.hidden_size
    with pytest.raises(UsageError, match="'elman' is there twice"):
        settle([tanh, tanh], "none")
    with pytest.raises(UsageError, match="--equal: unknown value 'param'; did you mean"):
        settle([lstm], "param")


def test_an_interrupted_comparison_goes_on(
    text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settled = settle(cell_candidates(tiny(text), ["elman", "lstm"]), "none")
    whole = outcomes(plan_runs(settled, 1, tmp_path / "whole"))
    runs = plan_runs(settled, 1, tmp_path / "stopped")
    done: list[Outcome] = []
    for step, ending, error in ((4, kill, Killed), (7, interrupt, Interrupted)):
        with monkeypatch.context() as patch, pytest.raises(error):
            for _, event in compare(runs, run_here):
                if isinstance(event, Outcome):
                    done.append(event)
                    at_step(patch, step, ending)
    again = Counting()
    rest = outcomes(runs, again)
    assert again.folders == ["lstm-1"]
    assert rest[0][1] == done[0] == done[1]
    assert [outcome.score for _, outcome in rest] == [outcome.score for _, outcome in whole]
    digests = [read_header(tmp_path / n / "lstm-1").weights_sha256 for n in ("whole", "stopped")]
    assert digests[0] == digests[1]
    assert outcomes(runs, again) == rest
    assert again.folders == ["lstm-1"]


def interrupt() -> None:
    raise KeyboardInterrupt


def test_what_diverges_is_a_row_and_the_others_go_on(text: Path, tmp_path: Path) -> None:
    wild = {"optimizer.name": "sgd", "optimizer.lr": 1e38, "optimizer.clip_norm": 0.0}
    base = tiny(text)
    missing = base.with_values({"training.engine": "scan", "model.cell": "gru"})
    candidates = [
        Candidate("wild", base.with_values(wild)),
        Candidate("refused", missing),
        Candidate("tame", base),
    ]
    settled, trainer = settle(candidates, "none"), Counting()
    runs = plan_runs(settled, 1, tmp_path)
    first = make_rows(settled, outcomes(runs, trainer))
    again = make_rows(settled, outcomes(runs, trainer))
    assert first == again
    assert trainer.folders == ["wild-1", "refused-1", "tame-1", "refused-1"]
    wild_row, refused, tame = first
    assert wild_row.failures[0].diverged
    assert "were not finite" in wild_row.to_dict()["failures"][0]
    assert "'scan' does not run GRU" in refused.failures[0].failure
    assert not tame.failures
    assert math.isnan(wild_row.mean("score"))


def test_another_run_in_the_folder_is_not_taken_for_this_one(text: Path, tmp_path: Path) -> None:
    runs = plan_runs([Candidate("a", tiny(text))], 1, tmp_path)
    outcomes(runs)
    slower = runs[0].config.with_values({"optimizer.lr": 0.5, "training.threads": 2})
    with pytest.raises(UsageError, match=r"a-1 holds a run with optimizer.lr = 0.01, .* 0.5; give"):
        outcomes(plan_runs([Candidate("a", slower)], 1, tmp_path))


def test_what_was_chosen_is_kept(text: Path, tmp_path: Path) -> None:
    fixed = {
        "data.train": [str(text)], "training.max_steps": 3, "training.precision": "float32",
    }  # fmt: skip
    base, reasons = base_config(fixed, ["elman nonlinearity=relu"], tmp_path)
    assert reasons
    assert (base.model.cell, base.model.nonlinearity) == ("elman", None)
    keep_base(base, tmp_path)
    again, _ = base_config({"optimizer.lr": 0.25}, ["elman"], tmp_path)
    assert again == base.with_values({"optimizer.lr": 0.25})


def test_the_order_of_the_cells_changes_nothing(text: Path, tmp_path: Path) -> None:
    synthetic = {"task": "synthetic:adding", "synthetic.lag": 20, "training.max_seconds": 9.0}
    by_text = {
        "data.train": [str(text)], "tokenizer.kind": "word", "model.hidden_size": 8,
        "training.epochs": 30, "training.precision": "float32",
    }  # fmt: skip
    few = ["mingru", "echo-state", "elman", "gru optimizer.name=sgd"]
    more = [*few, "lstm forget_bias=0", "lstm"]
    for fixed, cells in itertools.product((synthetic, by_text), (few, more)):
        found = []
        for order in (cells, cells[::-1], [*cells[2:], *cells[:2]]):
            base, _ = base_config(fixed, order, tmp_path)
            found.append({c.label: c.config for c in cell_candidates(base, order, fixed)})
        assert found[0] == found[1] == found[2]
        assert found[0]["mingru"].optimizer.lr == found[0]["gru optimizer.name=sgd"].optimizer.lr
    plain = base_config(synthetic, ["elman", "lstm"], tmp_path)[0]
    elman, lstm = cell_candidates(plain, ["elman", "lstm"], synthetic)
    assert lstm.config.model.forget_bias == round(math.log(20), 2)
    assert elman.config.model.forget_bias is None
    # One cell heeds all that any does, so that settings chosen for it are there for all.
    assert all(row.recurrent for row in CELLS.values() if row.forgets)


def test_what_auto_means_is_measured_once(
    text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fixed = {"data.train": [str(text)], "training.max_steps": 3, "training.threads": 1}
    auto = tiny_config(text)
    candidates = [Candidate("a", auto), Candidate("b", auto), Candidate("c", tiny(text))]

    def precisions(out: Path) -> list[str]:
        return [c.config.training.precision for c in with_one_precision(candidates, out)]

    monkeypatch.setattr("rnncli.runtime._bfloat16_pays", lambda kind: True)
    base, _ = base_config(fixed, ["elman"], tmp_path)
    keep_base(base, tmp_path)
    assert precisions(tmp_path) == ["bfloat16", "bfloat16", "float32"]
    (tmp_path / "b-1").mkdir()
    begun = with_one_precision(candidates, tmp_path)[1].config
    (tmp_path / "b-1" / "config.toml").write_text(begun.to_toml())
    monkeypatch.setattr("rnncli.runtime._bfloat16_pays", lambda kind: False)
    for given in (fixed, {**fixed, "training.precision": "auto"}):
        assert base_config(given, ["elman"], tmp_path)[0] == base
    assert base.training.precision == "bfloat16"
    now = {**fixed, "training.precision": "float32"}
    assert base_config(now, ["elman"], tmp_path)[0].training.precision == "float32"
    assert precisions(tmp_path) == ["bfloat16", "bfloat16", "float32"]
    assert precisions(tmp_path / "other") == ["float32"] * 3


def test_what_was_chosen_for_one_cell_is_left_out_where_another_has_no_use_for_it(
    text: Path, tmp_path: Path
) -> None:
    fixed = {
        "data.train": [str(text)], "training.epochs": 30, "model.hidden_size": 8,
        "training.precision": "float32",
    }  # fmt: skip
    base, _ = base_config(fixed, ["mingru", "lstm"], tmp_path)
    assert base.regularization.weight_drop > 0
    lstm, mingru = cell_candidates(base, ["lstm", "mingru"], fixed)
    assert lstm.config == base
    assert mingru.config.regularization.weight_drop == 0
    assert mingru.config.regularization.dropout == base.regularization.dropout
    keep_base(base, tmp_path)
    for cells in (["mingru"], ["mingru", "lstm"], ["lstm", "mingru"]):
        again, _ = base_config(fixed, cells, tmp_path)
        for candidate in cell_candidates(again, cells, fixed):
            assert candidate.config == {"lstm": lstm, "mingru": mingru}[candidate.label].config
    given = {**fixed, "regularization.weight_drop": 0.25}
    base, _ = base_config(given, ["lstm"], tmp_path)
    with pytest.raises(UsageError, match=r"regularization\.weight_drop: mingru has no matrix"):
        cell_candidates(base, ["lstm", "mingru"], given)
    with pytest.raises(UsageError, match=r"regularization\.weight_drop: mingru has no matrix"):
        base_config(given, ["lstm", "mingru"], tmp_path / "new")


def test_other_tasks_have_their_own_score(tmp_path: Path) -> None:
    fixed = {
        "task": "synthetic:adding", "model.hidden_size": 8, "training.max_steps": 2,
        "training.threads": 1, "training.batch_size": 4, "synthetic.valid_sequences": 20,
        "synthetic.lag": 10,
    }  # fmt: skip
    base, _ = base_config(fixed, ["elman", "mingru"], tmp_path)
    settled = settle(cell_candidates(base, ["elman", "mingru"]), "hidden")
    elman, mingru = make_rows(settled, outcomes(plan_runs(settled, 1, tmp_path)))
    assert elman.score_name == mingru.score_name == "squared_error"
    *_, finished = metrics(tmp_path / "elman-1")
    assert elman.mean("score") == finished["best_score"] < 2
    header = read_header(tmp_path / "elman-1")
    assert elman.candidate.parameters == header.parameters
    assert elman.mean("success") == header.scores["valid_success"]
    assert elman.to_dict()["valid_success"] == elman.mean("success")
    # The model that solved it is kept, and may not have been the one of the lowest loss.
    assert _score({"valid_nats": 0.3, "valid_success": 1.0}, 0.2) == ("nats", 0.2)


def test_a_process_of_its_own(text: Path, tmp_path: Path) -> None:
    config = tiny(text, training__max_steps=3)
    events = list(run_apart(config, tmp_path / "apart"))
    finished = events[-1]
    assert isinstance(finished, Finished)
    *_, here = train(config, tmp_path / "here")
    assert isinstance(here, Finished)
    assert finished.weights_sha256 == here.weights_sha256
    assert finished.best_score == here.best_score
    # torch alone takes this much; the whole of it was held by that process
    assert 50e6 < finished.peak_bytes < 4e9
    assert {StepReport, EvalReport} <= {type(event) for event in events}


@pytest.mark.slow
def test_a_process_says_what_went_wrong(text: Path, tmp_path: Path) -> None:
    config = tiny(text, model__cell="gru", training__engine="scan")
    assert list(run_apart(config, tmp_path)) == list(run_here(config, tmp_path))
    wild = tiny(text, optimizer__name="sgd", optimizer__lr=1e38, optimizer__clip_norm=0.0)
    *_, last = run_apart(wild, tmp_path)
    assert isinstance(last, Failed)
    assert last.diverged


@pytest.mark.slow
def test_a_process_that_is_ended(text: Path, tmp_path: Path) -> None:
    config = tiny(text).with_values({"training.epochs": 100_000})
    events = run_apart(config, tmp_path / "closed")
    assert any(isinstance(event, StepReport) for event in events)
    events.close()
    assert metrics(tmp_path / "closed")
    events = run_apart(config, tmp_path / "closed")
    started: Any = next(events)
    assert started.resumed_step > 0, "closing the events did not save the run"
    folder = tmp_path / "closed"
    os.kill(int((folder / ".lock").read_text()), signal.SIGKILL)
    *_, last = events
    assert last == Failed(
        "its process was ended by SIGKILL, as the system does when memory is short"
    )


def test_encoder_decoders_are_counted_as_they_are_trained(tmp_path: Path) -> None:
    pairs = tmp_path / "pairs.tsv"
    pairs.write_text("".join(f"a b {k}\tx {k} y\n" for k in range(30)))
    fixed = {
        "task": "translate", "data.train": [str(pairs)], "model.hidden_size": 16,
        "training.max_steps": 1, "training.threads": 1,
    }  # fmt: skip
    base, _ = base_config(fixed, ["lstm", "gru"], tmp_path / "out")
    for candidate in settle(cell_candidates(base, ["lstm", "gru"]), "hidden"):
        events = list(run_here(candidate.config, tmp_path / candidate.label))
        (started,) = [event for event in events if isinstance(event, Started)]
        assert started.parameters == candidate.parameters


def test_a_vocabulary_of_the_source_counts(tmp_path: Path) -> None:
    """In whatever order configurations come that differ in nothing else."""
    pairs = tmp_path / "pairs.tsv"
    pairs.write_text("".join(f"a b {k}\tx y\n" for k in range(30)))
    values = {"task": "translate", "data.train": [str(pairs)], "tokenizer.kind": "word"}
    sizes = {"model.hidden_size": 8, "model.embedding_size": 8, "training.state": "reset"}
    one = Candidate("one", Config().with_values({**values, **sizes}))
    own = Candidate("own", one.config.with_values({"source_tokenizer.kind": "word"}))
    found = [{c.label: c.parameters for c in settle(o, "none")} for o in ([one, own], [own, one])]
    assert found[0] == found[1]
    assert found[0]["one"] != found[0]["own"]


def test_what_is_validated_on_other_data_is_not_compared(text: Path) -> None:
    base = tiny(text)
    for cells, message in (
        (["lstm", "lstm tokenizer.kind=word"], "predicts characters and .* words"),
        (["lstm", "gru data.valid_fraction=0.3"], r"data\.valid_fraction = 0\.1 and .* 0\.3"),
        (["lstm", "gru data.strip_lines=true"], r"data\.strip_lines = False and .* True"),
    ):
        with pytest.raises(UsageError, match=message):
            require_comparable(cell_candidates(base, cells))
    made = Config().with_values(
        {"task": "synthetic:order", "training.state": "reset", "training.bptt": 0}
    )
    with pytest.raises(UsageError, match=r"synthetic\.lag = 100 and .* 50"):
        require_comparable(cell_candidates(made, ["lstm", "gru synthetic.lag=50"]))
    for cells in (["lstm", "gru data.weights=[2.0]"], ["lstm", "gru synthetic.lag=50"]):
        require_comparable(cell_candidates(base, cells))


def test_a_cell_for_each_layer_needs_no_number_of_layers(text: Path) -> None:
    base = tiny(text)
    first, second = cell_candidates(base, ["lstm", "lstm+gru+elman"])
    assert (first.config.model.layers, second.config.model.layers) == (1, 3)
    with pytest.raises(UsageError, match="names 3 cells for 1 layer"):
        cell_candidates(base, ["lstm+gru+elman"], ["model.layers"])


def test_options_of_cells_may_have_spaces_in_brackets(text: Path) -> None:
    (one,) = cell_candidates(tiny(text), ['elman frozen=["W_hh", "a"] nonlinearity=relu'])
    assert one.config.model.frozen == ("W_hh", "a")
    with pytest.raises(UsageError, match=r"--cells: 'relu' in 'elman relu' is no option"):
        cell_candidates(tiny(text), ["elman relu"])

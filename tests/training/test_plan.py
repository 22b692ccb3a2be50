"""The plan of a run against the run itself."""

import re

import pytest

from rnncli.errors import DataError
from rnncli.training.plan import plan
from tests.training.runs import run, tiny_config, write_text


@pytest.fixture(autouse=True)
def few_timed_steps(monkeypatch):
    monkeypatch.setattr("rnncli.training.plan.TIMED_STEPS", 4)


def test_a_plan_says_what_the_run_will_be(text, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = tiny_config(text, training__epochs=7, optimizer__averaging="ema")
    rows = dict(plan(config))
    assert [path.name for path in tmp_path.iterdir()] == ["text.txt"]
    started = run(config, tmp_path / "run")[0]
    assert rows["model"] == "lstm, 1 layer of 8, embedding 6, softmax"
    assert rows["parameters"] == f"{started.parameters:,}"
    assert rows["training tokens"] == f"{started.train_tokens:,}"
    assert rows["validation tokens"] == f"{started.valid_tokens:,}"
    assert rows["steps an epoch"] == f"{started.steps_an_epoch:,}"
    assert rows["steps"] == f"{started.total_steps:,} (7 epochs)"
    assert rows["batch"] == "4 streams, 10 tokens"
    assert rows["vocabulary"].endswith("(char)")
    assert rows["machine"] == started.machine
    assert re.fullmatch(r"about \d+ s, 7 validations included", rows["time"])
    assert re.fullmatch(r"[\d.]+ ms a step, [\d,]+ tokens/s \(measured\)", rows["speed"])


def test_memory_counts_every_copy_of_the_weights(text):
    """Adam keeps two moments of each weight."""
    config = tiny_config(
        text,
        model__hidden_size=300,
        model__embedding_size=300,
        optimizer__name="adam",
        training__precision="float32",
    )
    rows = dict(plan(config))
    weights = int(rows["parameters"].replace(",", "")) * 4 / 1e6
    parts = re.findall(r"(\w[\w ]*) ([\d.]+) MB", rows["memory"].partition(": ")[2])
    found = {name: float(size) for name, size in parts}
    assert found["weights"] == found["gradients"] == pytest.approx(weights, abs=0.06)
    assert found["optimizer state"] == pytest.approx(2 * weights, abs=0.06)
    gates = 4 * 10 * 4 * 300 * 4 / 1e6  # B, T, gates, H, bytes
    assert gates < found["activations"] < 6 * gates
    total = float(re.match(r"about ([\d.]+) MB", rows["memory"])[1])
    assert total == pytest.approx(sum(found.values()), abs=0.5)


def test_limits_and_time(text):
    rows = dict(plan(tiny_config(text, training__epochs=0, training__max_seconds=60.0)))
    steps, why = re.fullmatch(r"([\d,]+) \((.*)\)", rows["steps"]).groups()
    assert why == "about as many as 60 s allow"
    milliseconds = float(re.match(r"[\d.]+", rows["speed"])[0])
    assert int(steps.replace(",", "")) == pytest.approx(60_000 / milliseconds, rel=0.2)
    assert rows["time"].startswith("about 60 s")
    rows = dict(plan(tiny_config(text, training__epochs=0)))
    assert rows["steps"] == "until it is stopped"
    assert "time" not in rows
    rows = dict(plan(tiny_config(text, training__epochs=2, training__max_steps=5)))
    assert rows["steps"] == "5 (training.max_steps)"


def test_whole_lines_and_other_shapes(text):
    config = tiny_config(
        text,
        training__state="reset",
        training__bptt=0,
        model__tied=True,
        model__layers=2,
        data__valid_fraction=0.0,
    )
    rows = dict(plan(config))
    assert rows["batch"] == "4 lines, whole lines"
    assert rows["model"] == "lstm, 2 layers of 8 + 6, embedding 6, tied softmax"
    assert rows["validation tokens"] == "none"


def test_a_text_of_one_step_and_one_of_none(tmp_path):
    path = write_text(tmp_path / "text.txt", lines=2)
    assert dict(plan(tiny_config(path)))["steps an epoch"] == "1"
    path.write_text("")
    with pytest.raises(DataError, match="empty"):
        plan(tiny_config(path))


def test_steps_that_are_not_finite(text, tmp_path, monkeypatch):
    """Nothing is recorded where the run would be."""
    monkeypatch.chdir(tmp_path)
    config = tiny_config(text, optimizer__name="sgd", optimizer__lr=1e38, optimizer__clip_norm=0.0)
    assert "measured" in dict(plan(config))["speed"]
    assert [path.name for path in tmp_path.iterdir()] == ["text.txt"]


def test_both_sides_of_a_translator_are_told(tmp_path):
    pairs = tmp_path / "pairs.tsv"
    pairs.write_text("".join(f"a b c {k % 7}\tx y {k % 5}\n" for k in range(40)))
    config = tiny_config(
        pairs, task="translate", training__state="reset", training__bptt=0, tokenizer__kind="word",
        source_tokenizer__kind="char", model__tied=True, model__embedding_size=6, model__layers=1,
        model__hidden_size=8, model__encoder_layers=2, model__direction="bidirectional",
        model__attention="general",
    )  # fmt: skip
    rows = dict(plan(config))
    assert "model" not in rows
    assert rows["encoder"] == "lstm, 2 layers of 8 + 8, bidirectional"
    attention = "general attention (after)"
    assert rows["decoder"] == f"lstm, 1 layer of 8, {attention}, embedding 6, tied softmax"
    assert rows["vocabulary"].endswith("(word)")
    assert rows["vocabulary of sources"].endswith("(char)")


@pytest.mark.parametrize("depth", [1, 4])
def test_the_memory_of_a_deep_transition_grows_with_its_depth(depth, text):
    config = tiny_config(
        text, model__cell="rhn", model__transition_depth=depth, model__hidden_size=64,
        training__precision="float32",
    )  # fmt: skip
    parts = dict(re.findall(r"(\w[\w ]*) ([\d.]+) [kM]B", dict(plan(config))["memory"]))
    gates = 4 * 10 * 2 * depth * 64 * 4 / 1e6  # B, T, rows, H, bytes
    assert float(parts["activations"]) > gates

"""The zoo: every entry loads, is the size that its paper states, and is documented."""

from __future__ import annotations

import math
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

from rnncli.config import Config, load_toml
from rnncli.errors import UsageError
from rnncli.sections import ModelConfig
from rnncli.zoo import Entry, list_entries, load_entry, names
from rnncli.zoo.__main__ import BEGIN, END, page
from tests.helpers import ROOT, cli_env

ENTRIES = list_entries()
REQUIRED = {
    "mikolov2010",
    "graves2013-char",
    "zaremba2014-small",
    "zaremba2014-medium",
    "zaremba2014-large",
    "examples-lstm-200",
    "examples-lstm-650",
    "examples-lstm-1500",
    "awd-lstm",
    "awd-lstm-char",
    "char-rnn",
    "pascanu2013-dts",
    "pascanu2013-dots-char",
    "zilly2017-rhn",
    "mujika2017-fs-lstm",
    "cho2014",
    "sutskever2014",
    "sutskever2014-small",
    "bahdanau2014",
    "luong2015",
    "lium2017-multi30k",
    "joeynmt-rnn",
    "captions",
    "captions-tiny",
}
PTB_CHARS = 50
KEYS = 88  # of a piano; music has them where text has a vocabulary

# Parameters that the papers state, the vocabulary they are for, and how far rounding may lead.
# Merity's count has the second biases of torch's LSTM.
STATED = {
    "zaremba2014-medium": (20e6, 10_000, 0.5e6),
    "zaremba2014-large": (66e6, 10_000, 0.5e6),
    "awd-lstm": (24e6, 10_000, 0.5e6),
    "awd-lstm-char": (13.8e6, PTB_CHARS, 0.05e6),
    "awd-lstm-enwik8": (47e6, 205, 0.5e6),
    "graves2013-char": (4.3e6, 49, 0.06e6),
    "pascanu2013-rnn-char": (420e3, PTB_CHARS, 5e3),
    "pascanu2013-dts-char": (540e3, PTB_CHARS, 5e3),
    "pascanu2013-dots-char": (790e3, PTB_CHARS, 5e3),
    "pascanu2013-srnn-char": (520e3, PTB_CHARS, 5e3),
    "pascanu2013-music-rnn-jsb": (75e3, KEYS, 1e3),
    "pascanu2013-music-rnn-nottingham": (465e3, KEYS, 2e3),
    "pascanu2013-music-dts-jsb": (585e3, KEYS, 2e3),
    "pascanu2013-music-dts-nottingham": (585e3, KEYS, 2e3),
    "pascanu2013-music-dots-jsb": (745e3, KEYS, 3e3),
    "pascanu2013-music-dots-nottingham": (745e3, KEYS, 3e3),
    "mogrifier-ptb": (24e6, 10_000, 0.05e6),
    "zilly2017-rhn": (23.5e6, 10_000, 0.5e6),
    "mujika2017-fs-lstm": (7.2e6, PTB_CHARS, 0.05e6),
    "karpathy2015-gru": (1.3e6, 87, 0.05e6),
}


@pytest.fixture(params=ENTRIES, ids=lambda entry: entry.name)
def entry(request: pytest.FixtureRequest) -> Entry:
    found: Entry = request.param
    return found


def test_the_required_entries_are_there() -> None:
    assert set(names()) >= REQUIRED
    assert names() == [entry.name for entry in ENTRIES]


def test_the_configuration_survives_toml(entry: Entry) -> None:
    assert Config.from_dict(tomllib.loads(entry.config.to_toml())) == entry.config


def test_what_is_printed_is_the_configuration(entry: Entry) -> None:
    printed = entry.toml()
    assert Config.from_dict(tomllib.loads(printed)) == entry.config
    comments = [line for line in printed.splitlines() if line.startswith("#")]
    told = " ".join(line.removeprefix("#").strip() for line in comments)
    for text in (entry.paper.title, entry.paper.figure, *entry.paper.differs):
        assert text in told
    assert max(map(len, comments)) <= 100


def test_a_file_names_only_what_it_sets_and_no_corpus(entry: Entry) -> None:
    tables = load_toml(ROOT / "rnncli" / "zoo" / f"{entry.name}.toml")
    assert list(tables)[-1] == "paper"
    assert "train" not in tables.get("data", {})
    assert {"model", "optimizer", "schedule", "training"} <= set(tables)
    assert ("tokenizer" in tables) == (entry.config.task != "music")
    assert {"name", "lr", "clip_norm"} <= set(tables["optimizer"])  # never left to our defaults


def test_the_paper_is_told_in_full(entry: Entry) -> None:
    paper = entry.paper
    for text in (paper.title, paper.authors, paper.venue, paper.section, paper.verified):
        assert text.strip() == text != ""
    assert 1990 <= paper.year <= 2030
    assert paper.metric.split()[0] in ("perplexity", "bits", "nats", "BLEU")
    assert paper.figure.startswith("none") or re.search(r"\d", paper.figure)
    assert all(text.endswith(".") for text in paper.differs)


def test_a_number_in_a_name_is_the_model_s() -> None:
    for size in (200, 650, 1500):
        model = load_entry(f"examples-lstm-{size}").config.model
        assert (model.hidden_size, model.embedding_size, model.tied) == (size, size, True)


@pytest.mark.parametrize("name", STATED)
def test_the_formula_gives_the_parameters_of_the_paper(name: str) -> None:
    stated, vocabulary, tolerance = STATED[name]
    assert abs(_parameters(load_entry(name).config.model, vocabulary) - stated) <= tolerance


def of_task(*tasks: str) -> list[str]:
    return [one.name for one in ENTRIES if one.config.task in tasks]


@pytest.mark.parametrize("name", of_task("translate"))
def test_a_model_of_translation_can_be_made(name: str) -> None:
    import torch

    from rnncli.models.encoder_decoder import EncoderDecoder

    config = load_entry(name).config
    with torch.device("meta"):
        model = EncoderDecoder(config.model, 1000)
    assert sum(parameter.numel() for parameter in model.parameters()) > 5e5
    assert config.training.state == "reset"


QUICK = ("cho2014", "luong2015", "captions-tiny")
TRANSLATORS = [
    pytest.param(name, marks=() if name in QUICK else pytest.mark.slow)
    for name in of_task("translate")
]


@pytest.mark.parametrize("name", TRANSLATORS)
def test_a_model_of_translation_is_trained_and_translates(name: str, tmp_path: Path) -> None:
    """In small sizes, everything else as the paper has it."""
    from rnncli.decoding.search_options import SearchOptions
    from rnncli.loading import load_translators
    from rnncli.translation import translator_of
    from tests.training.runs import run

    pairs = tmp_path / "pairs.tsv"
    pairs.write_text((ROOT / "sample_data" / "pairs.valid.tsv").read_text())
    config = load_entry(name).config
    small = {"model.hidden_size": 8, "model.embedding_size": 8, "training.max_steps": 2}
    for side in ("tokenizer", "source_tokenizer"):
        own = getattr(config, side)
        if own is not None and own.vocab_size:
            small[f"{side}.vocab_size"] = 320
    run(
        config.with_values({**small, "data.train": [str(pairs)], "training.threads": 1}),
        tmp_path / "run",
    )
    translator = translator_of(load_translators([tmp_path / "run"]), SearchOptions(2))
    assert len(translator.best(["one two", "", "three"])) == 3


@pytest.mark.slow
@pytest.mark.parametrize("name", of_task("lm", "music"))
def test_a_model_of_text_or_music_is_trained_and_writes(name: str, tmp_path: Path) -> None:
    """In small sizes, everything else as the paper has it."""
    from rnncli.training.events import EvalReport
    from tests.training.runs import run

    config = load_entry(name).config
    text = tmp_path / "text"
    sample = "music.txt" if config.task == "music" else "book.txt"
    lines = (ROOT / "sample_data" / sample).read_text().splitlines()
    text.write_text("\n".join(lines[:60]) + "\n")
    model = config.model
    small = {"model.hidden_size": 12, "training.max_steps": 2, "training.threads": 1}
    small |= {"data.train": [str(text)], "data.valid_fraction": 0.1}
    small |= {"model.embedding_size": 12} if model.input == "embedding" else {}
    small |= {"model.output_size": 12} if getattr(model, "output_size", None) else {}
    small |= {"model.slow_size": 6} if getattr(model, "slow_size", None) else {}
    small |= {"model.rank": 4} if getattr(model, "rank", None) else {}
    small |= {"model.projection_size": 12} if model.projection_size else {}
    events = run(config.with_values(small), tmp_path / "run")
    scores = [event.score for event in events if isinstance(event, EvalReport)]
    assert scores and all(math.isfinite(score) for score in scores)


@pytest.mark.parametrize("entry", [e for e in ENTRIES if "docs/results.md" in str(e.paper)])
def test_figures_that_are_ours_stand_in_the_results(entry: Entry) -> None:
    results = (ROOT / "docs" / "results.md").read_text(encoding="utf-8")
    figures = re.findall(r"\d+\.\d\d", entry.paper.figure)
    assert figures
    assert [figure for figure in figures if figure not in results] == []


@pytest.mark.parametrize("name", of_task("lm", "music"))
def test_the_model_has_the_parameters_of_the_formula(name: str) -> None:
    import torch

    from rnncli.models.language_model import LanguageModel
    from rnncli.models.music import MusicModel

    config = load_entry(name).config
    music = config.task == "music"
    by_word = config.tokenizer.kind == "word"
    vocabulary = KEYS if music else 10_000 if by_word else PTB_CHARS
    with torch.device("meta"):
        model = (MusicModel if music else LanguageModel)(config.model, vocabulary)
    counted = sum(parameter.numel() for parameter in model.parameters())
    assert counted == _parameters(config.model, vocabulary)


def _parameters(model: ModelConfig, vocabulary: int) -> int:
    """Embedding, cells, an output for each of the vocabulary."""
    one_hot = model.input == "one-hot"
    total = 0 if one_hot else vocabulary * model.embedding_size
    size = vocabulary if one_hot else model.embedding_size
    for layer, units in enumerate(model.layer_sizes()):
        options = model.cell_options(layer)
        total += _of_a_cell(model.cell, options, size, units)
        size = options.get("output_size") or units
    return total + vocabulary * (1 if model.tied else size + 1)


def _of_a_cell(cell: str, options: dict[str, Any], size: int, units: int) -> int:
    """By what each of its matrices leads from and to; a bias for every sum."""
    depth = options.get("transition_depth", 1)
    gates = {"elman": 1, "gru-cho2014": 3, "lstm": 4, "lstm-peephole": 4, "mogrifier": 4}.get(cell)
    if gates is not None:
        peepholes = 3 * units if cell == "lstm-peephole" else 0
        mogrifying = options.get("rounds", 0) * options.get("rank", 0) * (size + units)
        return gates * units * (size + units + 1) + peepholes + mogrifying
    if cell == "rhn":
        return 2 * units * (size + depth * (units + 1))
    if cell == "fs-rnn":
        slow = options["slow_size"]
        fast = size + slow + options["fast_layers"] * (units + 1)
        gains = 6 * (options["fast_layers"] * units + slow) if options["layer_norm"] else 0
        return 4 * units * fast + 4 * slow * (units + slow + 1) + gains
    assert cell in ("dt-rnn", "dts-rnn", "dot-rnn", "dots-rnn")
    reading = depth if options["transition_input"] == "all" else 1
    remembering = 2 * depth - 1 if options["shortcuts"] else depth
    out = options["output_depth"] * (options["output_size"] or units) * (units + 1)
    transition = units * (reading * size + remembering * units + depth)
    if options["nonlinearity"] != "lp":
        return transition + out
    learned = units * depth + options["output_depth"] * (options["output_size"] or units)
    return options["maxout_pieces"] * (transition + out) + learned  # and a p for every unit


@pytest.mark.parametrize("size", ["small", "medium", "large"])
def test_zaremba_s_summed_loss_is_converted(size: str) -> None:
    config = load_entry(f"zaremba2014-{size}").config
    norm = {"small": 5, "medium": 5, "large": 10}[size]
    assert config.optimizer.lr == config.training.bptt
    # A clipped step moves the weights by lr * norm, in both conventions the same.
    assert math.isclose(config.optimizer.lr * config.optimizer.clip_norm, norm, rel_tol=1e-4)


@pytest.mark.parametrize(
    ("name", "epochs", "factors"),
    [
        ("zaremba2014-small", (3, 4, 5, 12), (1, 0.5, 0.25, 0.5**9)),
        ("zaremba2014-medium", (5, 6, 38), (1, 1 / 1.2, 1.2**-33)),
        ("zaremba2014-large", (13, 14, 54), (1, 1 / 1.15, 1.15**-41)),
        ("awd-lstm-char", (299, 300, 399, 400, 499), (1, 0.1, 0.1, 0.01, 0.01)),
        ("awd-lstm-enwik8", (24, 25, 34, 35, 44), (1, 0.1, 0.1, 0.01, 0.01)),
        ("char-rnn", (9, 10, 11), (1, 0.97, 0.97**2)),
    ],
)
def test_the_rate_falls_when_the_paper_says(
    name: str, epochs: tuple[int, ...], factors: tuple[float, ...]
) -> None:
    from rnncli.training.schedule import Schedule

    schedule = Schedule(load_entry(name).config.schedule)
    found = [schedule.factor(step=0, epoch=epoch, progress=0.0) for epoch in epochs]
    assert found == pytest.approx(factors)


@pytest.mark.parametrize(
    ("name", "near"),
    [("zaremba-medium", "zaremba2014-medium"), ("awdlstm", "awd-lstm"), ("charrnn", "char-rnn")],
)
def test_an_unknown_name_is_answered_with_the_nearest(name: str, near: str) -> None:
    with pytest.raises(UsageError, match=f"did you mean '{near}'"):
        load_entry(name)


def test_a_path_is_no_name() -> None:
    with pytest.raises(UsageError):
        load_entry("../zoo/awd-lstm")


def test_the_page_is_current() -> None:
    text = (ROOT / "docs" / "zoo.md").read_text(encoding="utf-8")
    assert page(text, ENTRIES) == text, "run python -m rnncli.zoo"
    assert all(f"| `{entry.name}` |" in text for entry in ENTRIES)


def test_the_page_keeps_what_is_written_by_hand() -> None:
    written = page(f"before\n{BEGIN}old\n{END}after\n", ENTRIES[:1])
    assert written.startswith(f"before\n{BEGIN}") and written.endswith(f"{END}after\n")
    assert "old" not in written and ENTRIES[0].paper.title in written
    with pytest.raises(ValueError, match="end -->"):
        page(BEGIN, ENTRIES)


def test_the_zoo_needs_no_torch() -> None:
    code = (
        "import sys, rnncli.zoo; rnncli.zoo.list_entries();"
        "sys.exit(bool({'torch', 'numpy', 'sentencepiece'} & sys.modules.keys()))"
    )
    assert subprocess.run([sys.executable, "-c", code], env=cli_env()).returncode == 0

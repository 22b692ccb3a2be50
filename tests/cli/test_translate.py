"""``rnncli translate`` and ``evaluate`` on pairs, through the real entry point."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from rnncli.decoding.search_options import SearchOptions
from rnncli.loading import load_translators
from rnncli.translation import translator_of
from tests.helpers import ROOT, run_cli
from tests.training.test_translation import config, run, write_pairs
from tests.translators import lines, write_translator


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("translate")
    run(config(write_pairs(folder / "p.tsv"), training__epochs=8), folder / "run")
    return folder


def call(*arguments: object, input: bytes = b"") -> tuple[int, str, str]:
    """The real command line: its exit code, standard output and error."""
    done = run_cli(*map(str, arguments), input=input)
    return done.returncode, done.stdout.decode(), done.stderr.decode()


def test_one_line_out_for_each_line_in(folder: Path):
    code, out, err = call("translate", folder / "run", input=b"six two\n\nxyz \xff\nfive")
    assert code == 0
    lines = out.split("\n")
    assert (lines[0], lines[1], lines[3], lines[4:]) == ("TWO SIX", "", "FIVE", [""])
    assert "1 bad line" in err


def test_json_with_several_translations(folder: Path):
    code, out, _ = call("translate", folder / "run", "--json", "--n-best", 2, input=b"six two\n\n")
    assert code == 0
    first, second = map(json.loads, out.splitlines())
    assert first["translations"][0]["text"] == "TWO SIX"
    scores = [one["score"] for one in first["translations"]]
    assert len(scores) == 2 and scores == sorted(scores, reverse=True)
    assert second == {"source": "", "translations": []}


def test_evaluate_on_pairs(folder: Path):
    code, out, err = call("evaluate", folder / "run", folder / "p.tsv", "--json")
    assert code == 0, err
    figures = json.loads(out)
    assert figures["bleu"] > 95 and figures["exact_match"] > 0.95
    assert "tok:13a" in figures["signature"] and "version:" in figures["signature"]
    assert 1 < figures["perplexity"] < 1.1


@pytest.mark.slow
def test_wrong_models_and_files(folder: Path, tmp_path: Path):
    assert call("train", ROOT / "sample_data" / "book.txt", "--out", tmp_path / "lm",
                  "--max-steps", 1, "--hidden-size", 8)[0] == 0  # fmt: skip
    code, _, err = call("translate", tmp_path / "lm", input=b"a\n")
    assert code == 2 and "model for --task lm; this needs a model of translation" in err
    code, _, err = call("generate", folder / "run", input=b"a\n")
    assert code == 2 and "model for --task translate; this needs a language model" in err
    code, _, err = call("translate", folder / "run", "--n-best", 2, input=b"a\n")
    assert code == 2 and "--n-best: needs --json" in err
    (tmp_path / "s").write_text("a\nb\n")
    (tmp_path / "t").write_text("a\n")
    code, _, err = call("train", "--source", tmp_path / "s", "--target", tmp_path / "t",
                          "--out", tmp_path / "x")  # fmt: skip
    assert code == 65 and "has 2 lines and" in err


@pytest.mark.slow
def test_options_of_pairs(folder: Path, tmp_path: Path):
    """Each reaches the model; what is not given is chosen to go with them."""
    options = (
        "--source-tokenizer", "char", "--source-vocab-size", 20, "--label-smoothing", 0.2,
        "--reverse-source", "--set", "model.look_up=layers", "--hidden-size", 8,
    )  # fmt: skip
    code, _, err = call("train", folder / "p.tsv", "--task", "translate", *options,
                        "--max-steps", 2, "--out", tmp_path / "run")  # fmt: skip
    assert code == 0, err
    assert "a vocabulary for each side" in err
    info = json.loads(call("info", tmp_path / "run", "--json")[1])
    assert info["source_tokenizer"]["kind"] == "char"
    assert info["source_tokenizer"]["vocab_size"] <= 20
    model = info["config"]["model"]
    assert (model["layers"], model["attention"], model["reverse_source"]) == (2, "general", True)
    assert info["config"]["regularization"]["label_smoothing"] == 0.2
    code, out, err = call("translate", tmp_path / "run", input=b"six two\n")
    assert (code, out.count("\n")) == (0, 1), err
    code, _, err = call("train", folder / "p.tsv", "--task", "translate", "--set",
                        "model.context=every-step", "--max-steps", 2, "--hidden-size", 8,
                        "--out", tmp_path / "cho")  # fmt: skip
    assert code == 0, err


@pytest.mark.slow
def test_smaller_weights_translate_alike(folder: Path):
    for weights in ("float16", "int8"):
        code, out, err = call("translate", folder / "run", "--weights", weights, input=b"six two\n")
        assert (code, out) == (0, "TWO SIX\n"), err
    code, _, err = call("translate", folder / "run", "--weights", "int9", input=b"six two\n")
    assert code == 2 and "weights: unknown value 'int9'" in err


@pytest.mark.slow
def test_several_models_are_an_ensemble_and_must_agree(tmp_path: Path):
    one, other = (write_translator(tmp_path / f"{seed}", "word", seed) for seed in (0, 1))
    sources = "".join(f"{line}\n" for line in lines(12, seed=3))
    code, out, err = call("translate", one, "-m", other, input=sources.encode())
    assert code == 0, err
    translator = translator_of(load_translators([one, other]), SearchOptions())
    assert out.splitlines() == translator.best(sources.splitlines())
    (tmp_path / "pairs.tsv").write_text("".join(f"{a}\t{a}\n" for a in sources.splitlines()))
    code, out, err = call("evaluate", one, "-m", other, tmp_path / "pairs.tsv", "--json")
    assert code == 0 and "models:2" in json.loads(out)["perplexity_signature"], err
    spelled = write_translator(tmp_path / "char", "char")
    code, _, err = call("translate", one, "-m", spelled, input=b"a\n")
    assert code == 2 and "have different vocabularies" in err
    backward = write_translator(tmp_path / "backward", "word", reverse_source=True)
    code, _, err = call("translate", one, "-m", backward, input=b"a\n")
    assert code == 2 and "reads its sources backward" in err


def test_targets_alone_are_told_what_is_missing(tmp_path: Path):
    (tmp_path / "t").write_text("a\n")
    code, _, err = call("train", "--target", tmp_path / "t", "--out", tmp_path / "x")
    assert code == 2 and "--source" in err and "no training text" not in err

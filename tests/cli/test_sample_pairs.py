"""From the sample pairs to translations: a small model that learns, and what is done with it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from rnncli.evaluation.nbest import Hypothesis, parse
from tests.cli.in_process import Run, in_process
from tests.helpers import ROOT, run_cli

PAIRS, VALID = ROOT / "sample_data" / "pairs.tsv", ROOT / "sample_data" / "pairs.valid.tsv"
STEPS = 330
SOURCES = [line.split("\t")[0] for line in VALID.read_text().splitlines()][:40]
TARGETS = [line.split("\t")[1] for line in VALID.read_text().splitlines()][:40]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of less than ten seconds, with the models of its last two validations."""
    folder = tmp_path_factory.mktemp("pairs") / "run"
    done = run_cli(
        "train", PAIRS, "--task", "translate", "--valid", VALID, "--out", folder, "--threads", "1",
        "--hidden-size", "64", "--lr", "1e-2", "--max-steps", str(STEPS),
        "--set", f"training.valid_every_steps={STEPS // 3}", "--set", "training.keep_models=2",
        timeout=240,
    )  # fmt: skip
    err = done.stderr.decode()
    assert done.returncode == 0, err
    assert "tokens: word, one vocabulary for both sides" in err
    assert len(re.findall(r"^rnncli:   .+ -> .*$", err, re.M)) == 3 * 3, "shown as they improve"
    return folder


@pytest.fixture
def command(capfd: pytest.CaptureFixture[str]) -> Iterator[dict[str, Run]]:
    names = ("translate", "evaluate", "score", "rescore", "train")
    runs = {name: in_process(name, capfd) for name in names}
    yield {name: next(run) for name, run in runs.items()}
    for one in runs.values():
        next(one, None)


def lines_of(path: Path, lines: list[str]) -> Path:
    path.write_text("".join(f"{line}\n" for line in lines))
    return path


def bleu(command: dict[str, Run], model: Path, *options: str) -> float:
    scores = json.loads(command["evaluate"](model, VALID, *options, "--json"))
    assert scores["signature"].startswith("nrefs:1|case:mixed")
    return float(scores["bleu"])


def test_it_has_learned_to_translate(run: Path, command: dict[str, Run]) -> None:
    assert bleu(command, run) > 20.0
    assert bleu(command, run, "--beam-size", "1") > 20.0


def test_the_mean_of_its_last_models_translates_too(
    run: Path, command: dict[str, Run], tmp_path: Path
) -> None:
    kept = sorted(run.glob("model-*.safetensors"))
    assert len(kept) == 2
    done = run_cli("average", *kept, "--out", tmp_path / "mean.safetensors")
    assert done.returncode == 0, done.stderr
    assert bleu(command, tmp_path / "mean.safetensors") > 20.0


def test_a_list_is_in_order_and_its_scores_are_those_of_score(
    run: Path, command: dict[str, Run], tmp_path: Path
) -> None:
    sources = lines_of(tmp_path / "sources", SOURCES)
    found = [json.loads(line) for line in command["translate"](
        run, sources, "--n-best", 3, "--json").splitlines()]  # fmt: skip
    plain = command["translate"](run, sources).splitlines()
    assert [one["translations"][0]["text"] for one in found] == plain
    for one in found:
        scores = [each["score"] for each in one["translations"]]
        assert scores == sorted(scores, reverse=True)
    targets = lines_of(tmp_path / "targets", plain)
    given = command["score"](run, "--source", sources, "--target", targets).split()
    best = [one["translations"][0] for one in found]
    ended = [k for k, one in enumerate(best) if one["pieces"][-1] == "</s>"]
    assert len(ended) >= 25, "the others were cut"
    scores = [best[k]["logprob"] for k in ended]
    assert [float(given[k]) for k in ended] == pytest.approx(scores, abs=2e-3)


def test_words_are_aligned_with_words_that_mean_them(
    run: Path, command: dict[str, Run], tmp_path: Path
) -> None:
    """Of those that are known of the sample pairs, most."""
    known = {"child": "Kind", "house": "Haus", "garden": "Garten", "captain": "Kapitän",
             "brother": "Bruder", "kitchen": "Küche", "river": "Fluss", "boat": "Boot"}  # fmt: skip
    right = together = 0
    sources = lines_of(tmp_path / "sources", SOURCES)
    for one in map(json.loads, command["translate"](run, sources, "--json").splitlines()):
        words, best = one["source"].split(), one["translations"][0]
        looked = {target: source for source, target in best["alignment"]}
        for number, word in enumerate(best["text"].split()):
            for english, german in known.items():
                if word == german and english in words:
                    together += 1
                    right += words[looked[number]] == english
    assert together >= 5 and right / together > 0.6


def test_what_is_asked_of_a_translation_is_kept_to(
    run: Path, command: dict[str, Run], tmp_path: Path
) -> None:
    sources = lines_of(tmp_path / "sources", ["", SOURCES[0], ""])
    begun = command["translate"](run, sources, "--prefix", "wir wissen").split("\n")
    assert begun[0] == begun[2] == begun[3] == "" and begun[1].startswith("wir wissen ")
    short = command["translate"](run, sources, "--max-new-tokens", 2).split("\n")
    assert len(short[1].split()) == 2 and "cut at its greatest length" in command["translate"].err  # type: ignore[attr-defined]
    drawn = command["translate"](run, sources, "--explain")
    shown = command["translate"].err  # type: ignore[attr-defined]
    assert drawn == command["translate"](run, sources)
    assert "█" in shown


def test_a_list_is_rescored_and_the_best_kept(
    run: Path, command: dict[str, Run], tmp_path: Path
) -> None:
    sources = lines_of(tmp_path / "sources", SOURCES[:5])
    listed = command["translate"](run, sources, "--n-best", 3, "--format", "moses")
    (tmp_path / "list").write_text(listed)
    by_model = command["rescore"](
        run, tmp_path / "list", "--source", sources, "--best", "--weight", 1.0
    ).splitlines()
    every = [parse(line, "moses") for line in listed.splitlines()]
    for number, line in enumerate(by_model):
        own = [one for one in every if int(one.id) == number]
        assert len(own) == 3
        assert parse(line, "moses").text == max(own, key=_logprob).text


def _logprob(one: Hypothesis) -> float:
    return float(one.features.split()[1])


def test_a_run_goes_on(run: Path, command: dict[str, Run]) -> None:
    """With what it had: pairs, vocabulary, best model."""
    command["train"]("--out", run, "--resume", "--max-steps", STEPS + 3)
    err = command["train"].err  # type: ignore[attr-defined]
    assert f"going on after step {STEPS}" in err and f"done after {STEPS + 3} steps" in err

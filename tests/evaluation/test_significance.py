"""Confidence and paired tests: against sacreBLEU's own command line."""

from __future__ import annotations

import json
import random
import re
import subprocess
import sys
from pathlib import Path

import pytest

from rnncli.evaluation.significance import resampled
from rnncli.evaluation.translation import measure

WORDS = ["the", "The", "cat", "dog", "sat", "on", "a", "mat", ",", "ran", "home", "."]


def corpus() -> tuple[list[str], list[str], list[str]]:
    """References, and translations of two systems that change a word now and then."""
    rng = random.Random(0)
    references = [" ".join(rng.choices(WORDS, k=rng.randint(4, 12))) for _ in range(60)]

    def changed(line: str, share: float) -> str:
        words = line.split()
        return " ".join(rng.choice(WORDS) if rng.random() < share else word for word in words)

    return (
        references,
        [changed(line, 0.3) for line in references],
        [changed(line, 0.22) for line in references],
    )


def sacrebleu(folder: Path, *options: str) -> str:
    """What sacreBLEU's command prints for the corpus' files in ``folder``."""
    for name, lines in zip(("ref", "base", "sys"), corpus(), strict=True):
        (folder / name).write_text("".join(f"{line}\n" for line in lines))
    command = [sys.executable, "-m", "sacrebleu", "ref", "-m", "bleu", "chrf", "-w", "6"]
    done = subprocess.run(
        [*command, "--force", *options], cwd=folder, capture_output=True, check=True
    )
    return done.stdout.decode()


@pytest.mark.parametrize("lowercase", [False, True])
def test_confidence_is_sacrebleus(lowercase: bool, tmp_path: Path) -> None:
    options = ["-lc", "--chrf-lowercase"] if lowercase else []
    theirs = json.loads(sacrebleu(tmp_path, "-i", "sys", "--confidence", *options))
    references, _, system = corpus()
    (quality,) = measure([system], references, lowercase=lowercase, confidence=True)
    assert quality.estimates
    for one, expected in zip(quality.estimates, theirs, strict=True):
        assert one.score.value == pytest.approx(expected["score"], abs=1e-6)
        assert one.mean == pytest.approx(expected["confidence_mean"], abs=1e-4)
        assert one.half_width == pytest.approx(expected["confidence_var"], abs=1e-4)
        assert one.p_value is None
        assert one.score.signature == expected["signature"]
        assert f"case:{'lc' if lowercase else 'mixed'}" in one.score.signature
        assert "bs:1000" in one.score.signature
    (plain,) = measure([system], references, lowercase=lowercase)
    assert plain.bleu.value == quality.bleu.value
    assert plain.estimates is None


def test_the_paired_test_is_sacrebleus(tmp_path: Path) -> None:
    table = sacrebleu(tmp_path, "-i", "base", "sys", "--paired-bs", "-f", "text", "-w", "4")
    figures = re.findall(r"(\d+\.\d+) \((\d+\.\d+) ± (\d+\.\d+)\)", table)
    p_values = re.findall(r"p = (\d\.\d+)", table)
    references, base, system = corpus()
    ours = resampled([base, system], references)
    mine = [
        (f"{one.score.value:.4f}", f"{one.mean:.4f}", f"{one.half_width:.4f}")
        for row in ours
        for one in row
    ]
    assert mine == figures
    assert [f"{one.p_value:.4f}" for one in ours[1]] == p_values
    assert ours[0][0].p_value is None
    assert ours[1][0].p_value is not None
    assert 0.001 < ours[1][0].p_value < 0.1


def test_a_system_does_not_differ_from_itself() -> None:
    references, base, _ = corpus()
    _, same = measure([base, base], references)
    values = same.to_dict()
    assert values["p_value"] == {"bleu": 1.0, "chrf": 1.0}
    assert values["confidence"]["resamples"] == 1000
    assert set(values["confidence"]["bleu"]) == {"mean", "half_width"}
    _, blanks = measure([base, [f"{line}  \r" for line in base]], references)
    assert blanks.to_dict()["p_value"] == {"bleu": 1.0, "chrf": 1.0}

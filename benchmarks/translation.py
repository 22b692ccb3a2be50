"""What translation reaches in a given time: train, then translate the test text once.

    python benchmarks/translation.py DATA/multi30k --from de --to en --minutes 5 20

DATA/multi30k holds train, valid and test2016 with the languages' names as endings (captions of
Flickr, raw text). Every budget is a run of its own through the real command, with the
configuration that ``rnncli train`` chooses for it (options after ``--`` are handed on to it). The
wall clock is that of the whole process, from start-up to the saved model; BLEU is sacreBLEU's,
cased and lowercased, of translations by ``rnncli translate`` with a beam of 5, whose time is that
of the whole process, too.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from sacrebleu.metrics.bleu import BLEU

START_SECONDS = 3.0
"""Taken off the time given to training, for the start of Python and torch."""


def main() -> None:
    argv, passed_on = sys.argv[1:], []
    if "--" in argv:
        cut = argv.index("--")
        argv, passed_on = argv[:cut], argv[cut + 1 :]
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path, help="folder with the corpus")
    parser.add_argument("--from", dest="source", default="de")
    parser.add_argument("--to", dest="target", default="en")
    parser.add_argument("--minutes", type=float, nargs="+", default=[5, 20, 90])
    parser.add_argument("--test", default="test2016", help="valid to tune, test2016 once")
    parser.add_argument("--keep", type=Path, help="keep the runs in this folder")
    options = parser.parse_args(argv)

    def file(part: str, language: str) -> Path:
        return options.data / f"{part}.{language}"

    print(f"{options.source}-{options.target}: minutes, wall seconds, parameters, {options.test}")
    with tempfile.TemporaryDirectory() as scratch:
        for minutes in options.minutes:
            folder = (options.keep or Path(scratch)) / f"{options.source}-{minutes:g}m"
            began = time.perf_counter()
            rnncli(
                "train", "--source", file("train", options.source),
                "--target", file("train", options.target),
                "--valid-source", file("valid", options.source),
                "--valid-target", file("valid", options.target),
                "--out", folder, "--overwrite",
                "--max-time", f"{60 * minutes - START_SECONDS:g}s", *passed_on,
            )  # fmt: skip
            wall = time.perf_counter() - began
            info = json.loads(rnncli("info", folder, "--json"))
            began = time.perf_counter()
            translations = rnncli("translate", folder, file(options.test, options.source))
            seconds = time.perf_counter() - began
            report(minutes, wall, info, translations, file(options.test, options.target), seconds)


def report(
    minutes: float, wall: float, info: dict, translations: str, references: Path, seconds: float
) -> None:
    found = translations.split("\n")[:-1]
    expected = references.read_text(encoding="utf-8").split("\n")[:-1]
    figures = []
    for lowercase in (False, True):
        metric = BLEU(lowercase=lowercase)
        score = metric.corpus_score(found, [expected]).score
        figures.append(f"BLEU {score:.2f} ({metric.get_signature()})")
    print(
        f"{minutes:6g} {wall:8.1f} {info['parameters']:12,} {'  '.join(figures)}  "
        f"{len(found) / seconds:.1f} sentences/s",
        flush=True,
    )


def rnncli(*arguments: object) -> str:
    command = [sys.executable, "-m", "rnncli", *map(str, arguments)]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


if __name__ == "__main__":
    main()

"""What translation reaches in a given time: train, then translate the test text.

    python benchmarks/translation.py DATA/multi30k --from de --to en --minutes 5 20
    python benchmarks/translation.py DATA/multi30k --run RUN --from de --to en --test valid

DATA/multi30k holds train, valid and test2016 with the languages' names as endings (captions of
Flickr, raw text). Every budget is a run of its own through the real command, with the
configuration that ``rnncli train`` chooses for it (options after ``--`` are handed on to it);
``--run`` takes one that is there. The wall clock is that of the whole process, from start-up to the
saved model; BLEU is sacreBLEU's, cased and lowercased, of translations by ``rnncli translate``:
beams of 5, greedy, and beams with the decoder's weights in int8. Their time is that of the whole
process, and without its start (that of an empty input, in the same run).
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from pathlib import Path

from real_command import rnncli, split_arguments
from sacrebleu.metrics.bleu import BLEU

START_SECONDS = 3.0
"""Taken off the time given to training, for the start of Python and torch."""


def main() -> None:
    argv, passed_on = split_arguments()
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path, help="folder with the corpus")
    parser.add_argument("--from", dest="source", default="de")
    parser.add_argument("--to", dest="target", default="en")
    parser.add_argument("--minutes", type=float, nargs="+", default=[5, 20, 90])
    parser.add_argument("--test", default="test2016", help="valid to tune, test2016 once")
    parser.add_argument("--keep", type=Path, help="keep the runs in this folder")
    parser.add_argument("--run", type=Path, help="a run's folder: translate only")
    parser.add_argument("--threads", type=int, default=0, help="of translate; 0: all cores")
    options = parser.parse_args(argv)

    def file(part: str, language: str) -> Path:
        return options.data / f"{part}.{language}"

    languages = (options.source, options.target)
    print(f"{options.source}-{options.target}, {options.test}", flush=True)
    with tempfile.TemporaryDirectory() as scratch:
        for minutes in [None] if options.run else options.minutes:
            folder = options.run
            if folder is None:
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
                print(f"{minutes:g} minutes: {time.perf_counter() - began:.1f} s wall clock")
            info = json.loads(rnncli("info", folder, "--json"))
            print(f"{info['parameters']:,} parameters, {info['provenance']['epochs']} epochs")
            for name, more in WAYS.items():
                arguments = (folder, *more, "--threads", options.threads)
                files = (file(options.test, language) for language in languages)
                report(name, arguments, *files)


WAYS: dict[str, tuple[object, ...]] = {
    "beam 5": (),
    "greedy": ("--beam-size", 1),
    "beam 5, int8": ("--weights", "int8"),
}


def report(name: str, arguments: tuple[object, ...], source: Path, target: Path) -> None:
    began = time.perf_counter()
    rnncli("translate", *arguments, os.devnull)
    start = time.perf_counter() - began
    began = time.perf_counter()
    found = rnncli("translate", *arguments, source).split("\n")[:-1]
    seconds = time.perf_counter() - began
    expected = target.read_text(encoding="utf-8").split("\n")[:-1]
    figures = []
    for lowercase in (False, True):
        metric = BLEU(lowercase=lowercase)
        score = metric.corpus_score(found, [expected]).score
        figures.append(f"BLEU {score:.2f} ({metric.get_signature()})")
    words = sum(len(line.split()) for line in found)
    print(
        f"  {name:13s} {'  '.join(figures)}\n"
        f"  {'':13s} {len(found) / seconds:.1f} sentences/s with start-up; without it "
        f"{len(found) / (seconds - start):.1f}, {words / (seconds - start):,.0f} words/s",
        flush=True,
    )


if __name__ == "__main__":
    main()

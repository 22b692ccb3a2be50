"""What a language model reaches in a given time: train, then read the test text once.

    python benchmarks/language_models.py ptb DATA/ptb --minutes 1 5 20 60
    python benchmarks/language_models.py shakespeare DATA/shakespeare --minutes 5 20

DATA/ptb holds train.txt, valid.txt and test.txt (Mikolov's preparation of the Penn Treebank, by
word); DATA/shakespeare holds train.txt and valid.txt (tiny Shakespeare, by character, where the
figure is validation nats). Every budget is a run of its own through the real command, with the
configuration that ``rnncli train`` chooses for it (options after ``--`` are handed on to it); the
wall clock is that of the whole process, from start-up to the saved model. State is carried; the
text is read as one stream.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path

from real_command import rnncli, split_arguments

FILES = {
    "ptb": ("train.txt", "valid.txt", "test.txt"),
    "shakespeare": ("train.txt", "valid.txt", "valid.txt"),
}


def main() -> None:
    argv, passed_on = split_arguments()
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("corpus", choices=sorted(FILES))
    parser.add_argument("data", type=Path, help="folder with the corpus")
    parser.add_argument("--minutes", type=float, nargs="+", default=[1, 5, 20, 60])
    parser.add_argument("--keep", type=Path, help="keep the runs in this folder")
    options = parser.parse_args(argv)
    train, valid, test = (options.data / name for name in FILES[options.corpus])
    print(f"{options.corpus}: minutes, wall seconds, parameters, epochs, valid, {test.stem}")
    with tempfile.TemporaryDirectory() as scratch:
        for minutes in options.minutes:
            folder = (options.keep or Path(scratch)) / f"{options.corpus}-{minutes:g}m"
            began = time.perf_counter()
            rnncli(
                "train", train, "--valid", valid, "--out", folder, "--overwrite",
                "--max-time", f"{60 * minutes - START_SECONDS:g}s", *passed_on,
            )  # fmt: skip
            wall = time.perf_counter() - began
            info = json.loads(rnncli("info", folder, "--json"))
            figures = json.loads(rnncli("evaluate", folder, test, "--json"))
            print(
                f"{minutes:6g} {wall:8.1f} {info['parameters']:12,} "
                f"{info['provenance']['epochs']:7.2f} "
                f"{info['scores']['valid_perplexity']:9.3f} "
                f"perplexity {figures['perplexity']:.3f} nats/token "
                f"{figures['nats'] / figures['tokens']:.4f} ({figures['tokens']:,} tokens, "
                f"state {figures['state']})",
                flush=True,
            )


START_SECONDS = 3.0
"""Taken off the time given to training, for the start of Python and torch."""


if __name__ == "__main__":
    main()

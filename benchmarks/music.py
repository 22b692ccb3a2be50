"""Polyphonic music: what named configurations reach on JSB chorales and Nottingham.

    python benchmarks/music.py DATA/music --minutes 5
    python benchmarks/music.py DATA/music --only jsb --rows default pascanu2013-music-rnn-jsb

DATA/music holds jsb and nottingham as NAME.train.txt, NAME.valid.txt and NAME.test.txt. Each row is
one run of the real command: ``default`` with what ``rnncli train`` chooses, every other row a
published model's preset with ``--max-time`` put in place of its own limit. The best model by
validation then reads the test pieces once.

Figures are nats a frame, 88 keys: all nats over all frames of all pieces, the first frame of each
piece (predicted from silence) included. Beside it stand the mean over pieces of each one's mean,
and the figure without first frames; papers mostly do not say which they print.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path

from real_command import rnncli, split_arguments

SETS = ("jsb", "nottingham")
PRESETS = ("rnn", "dts", "dots", "dots-lp")


def main() -> None:
    argv, passed_on = split_arguments()
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path, help="folder with the pieces")
    parser.add_argument("--minutes", type=float, default=5.0, help="for each row")
    parser.add_argument("--only", choices=SETS, help="one of the sets")
    parser.add_argument("--rows", nargs="+", help="default, or names of rnncli zoo")
    parser.add_argument("--keep", type=Path, help="keep the runs in this folder")
    options = parser.parse_args(argv)
    print("set, row, parameters, epochs, wall seconds; nats a frame: valid; test (all frames; mean")
    print("of pieces; without first frames); accuracy on test")
    with tempfile.TemporaryDirectory() as scratch:
        for name in [options.only] if options.only else SETS:
            presets = [f"pascanu2013-music-{kind}-{name}" for kind in PRESETS]
            for row in options.rows or ["default", *presets]:
                folder = (options.keep or Path(scratch)) / f"{name}-{row}"
                print(measure(options.data, name, row, folder, options.minutes, passed_on))
                sys.stdout.flush()


def measure(
    data: Path, name: str, row: str, folder: Path, minutes: float, passed_on: list[str]
) -> str:
    train, valid, test = (data / f"{name}.{part}.txt" for part in ("train", "valid", "test"))
    chosen = ["--task", "music"]
    if row != "default":
        chosen = ["--preset", row, "--epochs", "0", "--set", "training.patience=0"]
    began = time.perf_counter()
    rnncli(
        "train", train, "--valid", valid, "--out", folder, "--overwrite", *chosen,
        "--max-time", f"{60 * minutes:g}s", *passed_on,
    )  # fmt: skip
    wall = time.perf_counter() - began
    info = json.loads(rnncli("info", folder, "--json"))
    figures = json.loads(rnncli("evaluate", folder, test, "--json"))
    return (
        f"{name:10s} {row:34s} {info['parameters']:9,} {info['provenance']['epochs']:7.1f} "
        f"{wall:6.0f}; {info['scores']['valid_nats']:.4f}; {figures['nats_per_frame']:.4f} "
        f"{figures['nats_per_frame_by_piece']:.4f} {figures['nats_per_frame_without_first']:.4f}; "
        f"{figures['accuracy']:.4f}"
    )


if __name__ == "__main__":
    main()

"""How long commands take to answer: whole processes, in turns, medians.

python benchmarks/startup.py --rounds 15
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

BOOK = Path(__file__).parent.parent / "sample_data" / "book.txt"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=15)
    options = parser.parse_args()
    program = str(Path(sys.executable).parent / "rnncli")
    with tempfile.TemporaryDirectory() as scratch:
        word, bpe = str(Path(scratch) / "word.tok"), str(Path(scratch) / "bpe.tok")
        for path, kind in ((word, "word"), (bpe, "bpe")):
            subprocess.run(
                [program, "tokenize", "train", str(BOOK), "--tokenizer", kind, "--vocab-size",
                 "1000", "--out", path], check=True, stderr=subprocess.DEVNULL,
            )  # fmt: skip
        commands = {
            "python -c pass": [sys.executable, "-c", "pass"],
            "rnncli --help": [program, "--help"],
            "rnncli zoo": [program, "zoo"],
            "tokenize encode (word)": [program, "tokenize", "encode", word],
            "tokenize encode (bpe)": [program, "tokenize", "encode", bpe],
        }
        times: dict[str, list[float]] = {name: [] for name in commands}
        for _ in range(options.rounds):
            for name, command in commands.items():
                began = time.perf_counter()
                subprocess.run(command, input=b"hi\n", stdout=subprocess.DEVNULL, check=True)
                times[name].append(1000 * (time.perf_counter() - began))
        for name, values in times.items():
            print(f"{name:24s} {statistics.median(values):6.0f} ms (best {min(values):.0f})")


if __name__ == "__main__":
    main()

"""Peak memory of training while the corpus grows.

    python benchmarks/memory.py --megabytes 10 100 1000

Each corpus is made from the sample text with the words shuffled line by line, so that nothing is
trivially repeated, and trained on for a few steps through the real command. Peak resident memory is
that of the largest process (``ru_maxrss`` of the children), measured twice: with an empty cache of
token ids, and again when they are there.
"""

from __future__ import annotations

import argparse
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

BOOK = Path(__file__).parent.parent / "sample_data" / "book.txt"


def make_corpus(path: Path, megabytes: int) -> None:
    rng = random.Random(1)
    lines = [line.split() for line in BOOK.read_text(encoding="utf-8").splitlines() if line]
    size = 0
    with path.open("w", encoding="utf-8") as file:
        while size < megabytes * 1_000_000:
            block = []
            for _ in range(200):
                words = rng.choice(lines)
                start = rng.randrange(len(words))
                block.append(" ".join(words[start:] + words[:start]))
            text = "\n".join(block) + "\n"
            size += file.write(text)


def run(corpus: Path, folder: Path, tokenizer: str, cache: Path) -> tuple[float, float]:
    """Seconds and peak megabytes of a short training run."""
    command = [
        sys.executable, "-c", CHILD, sys.executable, "-m", "rnncli", "train", str(corpus),
        "--out", str(folder), "--overwrite", "--tokenizer", tokenizer, "--max-steps", "10",
        "--hidden-size", "128", "--set", "data.valid_fraction=0.001",
    ]  # fmt: skip
    began = time.perf_counter()
    done = subprocess.run(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, check=True,
        env={**os.environ, "RNNCLI_CACHE": str(cache)},
    )  # fmt: skip
    return time.perf_counter() - began, int(done.stdout) / 1024


CHILD = """
import resource, subprocess, sys
subprocess.run(sys.argv[1:], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--megabytes", type=int, nargs="+", default=[10, 100, 1000])
    parser.add_argument("--tokenizer", nargs="+", default=["char", "bpe"])
    options = parser.parse_args()
    print("MB of text, tokenizer: seconds and peak MB, first run / second run")
    with tempfile.TemporaryDirectory() as scratch:
        for megabytes in options.megabytes:
            corpus = Path(scratch) / f"{megabytes}.txt"
            make_corpus(corpus, megabytes)
            for tokenizer in options.tokenizer:
                cache = Path(scratch) / f"cache-{megabytes}-{tokenizer}"
                first = run(corpus, Path(scratch) / "run", tokenizer, cache)
                second = run(corpus, Path(scratch) / "run", tokenizer, cache)
                print(
                    f"{megabytes:6d} {tokenizer:8s} {first[0]:7.1f} s {first[1]:7.0f} MB / "
                    f"{second[0]:7.1f} s {second[1]:7.0f} MB",
                    flush=True,
                )
            corpus.unlink()


if __name__ == "__main__":
    main()

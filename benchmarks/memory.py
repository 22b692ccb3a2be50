"""Peak memory of training while the corpus grows.

    python benchmarks/memory.py --megabytes 10 100 1000

Each corpus is made from the sample text with the words shuffled line by line, so that nothing is
trivially repeated, and trained on for a few steps through the real command. Peak resident memory is
that of the largest process (``ru_maxrss`` of the children), and beside it what of that is its own
(``RssAnon``, looked at every 20 ms): the rest are pages of files, of the mapped token ids above
all, which the system takes back when it needs them. Both are measured twice: with an empty cache of
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
                block.append(" ".join(rng.sample(words, len(words))))
            text = "\n".join(block) + "\n"
            size += file.write(text)


def run(corpus: Path, folder: Path, tokenizer: str, cache: Path) -> tuple[float, float, float]:
    """Seconds of a short training run, its peak megabytes, and those that are its own."""
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
    peak, own = map(int, done.stdout.split())
    return time.perf_counter() - began, peak / 1024, own / 1024


CHILD = """
import re, resource, subprocess, sys, time
from pathlib import Path

def own(pid):
    try:
        found = re.search(r"RssAnon:\\s+(\\d+)", Path(f"/proc/{pid}/status").read_text())
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return 0
    return max([int(found[1]) if found else 0, *map(own, children)])

process = subprocess.Popen(sys.argv[1:], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
most = 0
while process.poll() is None:
    most = max(most, own(process.pid))
    time.sleep(0.02)
assert process.returncode == 0
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss, most)
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--megabytes", type=int, nargs="+", default=[10, 100, 1000])
    parser.add_argument("--tokenizer", nargs="+", default=["char", "bpe"])
    options = parser.parse_args()
    print("MB of text, tokenizer: seconds, peak MB (its own), first run / second run")
    with tempfile.TemporaryDirectory() as scratch:
        for megabytes in options.megabytes:
            corpus = Path(scratch) / f"{megabytes}.txt"
            make_corpus(corpus, megabytes)
            for tokenizer in options.tokenizer:
                cache = Path(scratch) / f"cache-{megabytes}-{tokenizer}"
                first = run(corpus, Path(scratch) / "run", tokenizer, cache)
                second = run(corpus, Path(scratch) / "run", tokenizer, cache)
                figures = " / ".join(
                    f"{seconds:7.1f} s {peak:6.0f} MB ({own:.0f})"
                    for seconds, peak, own in (first, second)
                )
                print(f"{megabytes:6d} {tokenizer:8s} {figures}", flush=True)
            corpus.unlink()


if __name__ == "__main__":
    main()

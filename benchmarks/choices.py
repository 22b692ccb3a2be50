"""What the fast choices cost in quality: equal updates, one thing changed at a time.

    python benchmarks/choices.py DATA/ptb --steps 830

The same model on the Penn Treebank by word, with products in float32 or bfloat16 and the loss over
the whole vocabulary or over sampled words, each with ``--seeds`` seeds: validation perplexity (in
float32, over the whole vocabulary, state carried) and the seconds that training took.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

VARIANTS = (
    ("float32", 0),
    ("bfloat16", 0),
    ("bfloat16", 1000),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path, help="folder with train.txt and valid.txt")
    parser.add_argument("--steps", type=int, default=830)
    parser.add_argument("--hidden-size", type=int, default=320)
    parser.add_argument("--seeds", type=int, default=1)
    options = parser.parse_args()
    valid = options.data / "valid.txt"
    print(
        f"{options.steps} updates of 32 x 35 words, 2 LSTM layers of {options.hidden_size}, tied:"
    )
    with tempfile.TemporaryDirectory() as scratch:
        for precision, sampled in VARIANTS:
            results = []
            for seed in range(1, options.seeds + 1):
                folder = Path(scratch) / f"{precision}-{sampled}-{seed}"
                began = time.perf_counter()
                rnncli(
                    "train", options.data / "train.txt", "--valid", valid, "--out", folder,
                    "--max-steps", options.steps, "--hidden-size", options.hidden_size,
                    "--batch-size", 32, "--bptt", 35, "--seed", seed, "--precision", precision,
                    "--set", f"training.sampled_softmax={sampled}",
                )  # fmt: skip
                seconds = time.perf_counter() - began
                figures = json.loads(rnncli("evaluate", folder, valid, "--columns", "20", "--json"))
                results.append(f"{figures['perplexity']:7.2f} in {seconds:5.1f} s")
            output = f"{sampled} sampled words" if sampled else "whole vocabulary"
            print(f"  {precision:9s} {output:18s} {'   '.join(results)}", flush=True)


def rnncli(*arguments: object) -> str:
    command = [sys.executable, "-m", "rnncli", *map(str, arguments)]
    return subprocess.run(
        command, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ).stdout


if __name__ == "__main__":
    main()

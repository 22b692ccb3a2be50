"""The ladder of encoder-decoders: small models of one size, each with one thing more.

    python benchmarks/ladder.py DATA/multi30k
    python benchmarks/ladder.py DATA/multi30k --epochs 10 --only "Cho 2014" "Bahdanau 2014"

128 units and vectors of 128 everywhere, the same optimiser, batches and passes over the pairs;
words of raw text (5,000 for each side) until subwords come. From "Luong 2015" on each row adds to
the one above. Every row is a run of ``rnncli train``, whose best model by validation loss
translates the test text with a beam of 5 (``rnncli evaluate``); BLEU is sacreBLEU's, of lines of
raw text.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

from real_command import rnncli, split_arguments

COMMON: dict[str, Any] = {
    "model.hidden_size": 128,
    "model.embedding_size": 128,
    "model.embedding_scale": 8.0,
    "model.tied": "false",
    "model.shared_embedding": "false",
    "regularization.dropout": 0.2,
    "regularization.label_smoothing": 0.0,
    "regularization.subword_dropout": 0.0,
    "optimizer.lr": 3e-3,
    "training.batch_size": 64,
    "training.best_by": "loss",
    "tokenizer.kind": "word",
    "tokenizer.vocab_size": 5000,
    "source_tokenizer.kind": "word",
    "source_tokenizer.vocab_size": 5000,
}
SUTSKEVER = {
    "model.cell": "lstm", "model.layers": 2, "model.direction": "forward",
    "model.attention": "none", "model.bridge": "last",
}  # fmt: skip
CHO = {
    "model.cell": "gru-cho2014", "model.layers": 1, "model.readout": "maxout",
    "model.bridge": "linear",
}  # fmt: skip
REVERSED = {"model.reverse_source": "true"}
LUONG = {**SUTSKEVER, **REVERSED, "model.attention": "general"}
FEEDING = {**LUONG, "model.look_up": "feeding"}
SUBWORDS = {
    **FEEDING, "tokenizer.kind": "bpe", "tokenizer.vocab_size": 4000,
    "source_tokenizer.kind": None, "source_tokenizer.vocab_size": None,
}  # fmt: skip
SMOOTHED = {**SUBWORDS, "regularization.label_smoothing": 0.1}

ROWS: dict[str, dict[str, Any]] = {
    "Sutskever 2014, forward": SUTSKEVER,
    "Sutskever 2014, source reversed": {**SUTSKEVER, **REVERSED},
    "Cho 2014": {**CHO, "model.direction": "forward", "model.context": "every-step"},
    "Bahdanau 2014": {
        **CHO, "model.direction": "bidirectional", "model.attention": "additive",
        "model.look_up": "before",
    },
    "Luong 2015": LUONG,
    "+ input feeding": FEEDING,
    "+ subwords": SUBWORDS,
    "+ label smoothing": SMOOTHED,
}  # fmt: skip
ENSEMBLE = "+ label smoothing"
"""The row of which an ensemble is made."""


def main() -> None:
    argv, passed_on = split_arguments()
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path, help="folder with the corpus")
    parser.add_argument("--from", dest="source", default="de")
    parser.add_argument("--to", dest="target", default="en")
    parser.add_argument("--epochs", type=int, default=5, help="of each row")
    parser.add_argument("--only", nargs="+", choices=[*ROWS], help="rows of the table")
    parser.add_argument("--ensemble", type=int, default=3, help="models in it; 1: none")
    parser.add_argument("--test", default="test2016")
    parser.add_argument("--keep", type=Path, help="keep the runs in this folder")
    options = parser.parse_args(argv)
    print("| | parameters | epochs | validation, nats a token | BLEU | chrF |")
    print("|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as scratch:
        for name in options.only or ROWS:
            number = list(ROWS).index(name)
            folder = (options.keep or Path(scratch)) / f"{number}-1"
            train(options, ROWS[name], folder, 1, passed_on)
            report(options, name, [folder])
            if name == ENSEMBLE and options.ensemble > 1:
                several = [folder]
                for seed in range(2, options.ensemble + 1):
                    several.append(folder.with_name(f"{number}-{seed}"))
                    train(options, ROWS[name], several[-1], seed, passed_on)
                report(options, f"+ ensemble of {options.ensemble}", several)


def train(
    options: argparse.Namespace, row: dict[str, Any], folder: Path, seed: int, more: list[str]
) -> None:
    sides = {
        f"--{prefix}{side}": options.data / f"{part}.{getattr(options, side)}"
        for part, prefix in (("train", ""), ("valid", "valid-"))
        for side in ("source", "target")
    }
    settings = {**COMMON, **row}
    rnncli(
        "train", *(word for pair in sides.items() for word in pair),
        *(w for k, v in settings.items() if v is not None for w in ("--set", f"{k}={v}")),
        "--seed", seed, "--out", folder, "--overwrite", "--epochs", options.epochs, *more,
    )  # fmt: skip


def report(options: argparse.Namespace, name: str, folders: list[Path]) -> None:
    info = json.loads(rnncli("info", folders[0], "--json"))
    others = [word for folder in folders[1:] for word in ("-m", folder)]
    sides = [
        word
        for side in ("source", "target")
        for word in (f"--{side}", options.data / f"{options.test}.{getattr(options, side)}")
    ]
    found = json.loads(rnncli("evaluate", folders[0], *others, *sides, "--json"))
    print(
        f"| {name} | {len(folders) * info['parameters']:,} | {info['provenance']['epochs']:.1f} | "
        f"{info['scores']['valid_nats']:.3f} | {found['bleu']:.2f} | {found['chrf']:.1f} |",
        flush=True,
    )


if __name__ == "__main__":
    main()

"""Translation beside JoeyNMT: the same model, data, subwords and batch size, in one run.

    python benchmarks/translation_peer.py DATA/multi30k --joeynmt VENV/bin/python --minutes 5

VENV is an environment with JoeyNMT 2.3.0 (``pip install joeynmt``). Both train the model that
``rnncli zoo`` calls joeynmt-rnn for the same time, one after the other, whole processes with their
start; both then translate the test text, greedily and with beams of 5, and one line by itself. One
sentencepiece model of 8,000 pieces, made here from both sides, is given to both.

Printed: source and target tokens a second in training, without validation; BLEU of greedy
translations of the validation text along the way; sentences a second without the start (that of a
single line); seconds for one line from a process of its own, and, for rnncli, from one that is
there; peak resident memory.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

import sentencepiece
from sacrebleu.metrics.bleu import BLEU

PIECES = 8000
BATCH = 64


@dataclass
class Figures:
    pairs_per_second: list[float] = field(default_factory=list)
    bleu_at: list[tuple[float, float]] = field(default_factory=list)
    """Minutes since the start, and BLEU on the validation text."""
    megabytes: float = 0.0


@dataclass(frozen=True)
class Corpus:
    folder: Path
    source: str
    target: str

    def file(self, part: str, side: str) -> Path:
        return self.folder / f"{part}.{side}"

    def lines(self, part: str, side: str) -> list[str]:
        return self.file(part, side).read_text(encoding="utf-8").split("\n")[:-1]


def run_for(command: list[object], seconds: float, folder: Path) -> float:
    """Run a process for so long, with its output in ``folder``; its peak memory in MB."""
    with (folder / "out").open("w") as out, (folder / "err").open("w") as err:
        process = subprocess.Popen(list(map(str, command)), stdout=out, stderr=err, cwd=folder)
        deadline, done = time.monotonic() + seconds, 0
        while not done:
            time.sleep(0.2)
            if time.monotonic() > deadline:
                os.kill(process.pid, signal.SIGTERM)
            done, _, usage = os.wait4(process.pid, os.WNOHANG)
        process.returncode = 0
    if time.monotonic() < deadline:
        sys.exit(f"{command} ended too early: {(folder / 'err').read_text()[-2000:]}")
    return usage.ru_maxrss / 1024


def filtered(command: list[object], text: str, folder: Path) -> tuple[str, float, float]:
    """Output of a process that reads ``text``, its seconds, and its peak memory in MB."""
    (folder / "in").write_text(text, encoding="utf-8")
    began = time.perf_counter()
    names = (("in", "r"), ("out", "w"), ("err", "w"))
    read, write, err = ((folder / name).open(mode) for name, mode in names)
    with read, write, err:
        process = subprocess.Popen(
            list(map(str, command)), stdin=read, stdout=write, stderr=err, cwd=folder
        )
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = 0
    if status:
        sys.exit(f"{command}: {(folder / 'err').read_text()[-2000:]}")
    seconds = time.perf_counter() - began
    return (folder / "out").read_text(encoding="utf-8"), seconds, usage.ru_maxrss / 1024


# -- JoeyNMT ---------------------------------------------------------------------------------


def joeynmt_config(corpus: Corpus, pieces: Path, folder: Path, beam: int) -> Path:
    """Its configuration files are YAML, of which JSON is a part."""

    def side(language: str) -> dict[str, object]:
        return {
            "lang": language, "max_length": 50, "lowercase": False, "normalize": False,
            "level": "bpe", "voc_limit": PIECES, "voc_min_freq": 1,
            "voc_file": str(folder / "vocabulary.txt"), "tokenizer_type": "sentencepiece",
            "tokenizer_cfg": {"model_file": str(pieces), "pretokenizer": "none"},
        }  # fmt: skip

    def layers(**more: object) -> dict[str, object]:
        return {
            "type": "recurrent", "rnn_type": "gru", "num_layers": 1, "hidden_size": 256,
            "embeddings": {"embedding_dim": 256}, "dropout": 0.2, **more,
        }  # fmt: skip

    config = {
        "name": "peer", "joeynmt_version": "2.3.0", "model_dir": str(folder / "model"),
        "use_cuda": False, "fp16": False, "random_seed": 42,
        "data": {
            "train": str(corpus.folder / "train"), "dev": str(corpus.folder / "valid"),
            "dataset_type": "plain", "src": side(corpus.source), "trg": side(corpus.target),
            "special_symbols": {
                "unk_token": "<unk>", "unk_id": 0, "pad_token": "<pad>", "pad_id": 1,
                "bos_token": "<s>", "bos_id": 2, "eos_token": "</s>", "eos_id": 3,
            },
        },
        "testing": {
            "beam_size": beam, "beam_alpha": 1.0, "eval_metrics": ["bleu"], "batch_size": 64,
            "batch_type": "sentence", "max_output_length": 80,
        },
        "training": {
            "optimizer": "adam", "adam_betas": [0.9, 0.999], "learning_rate": 0.001,
            "scheduling": "exponential", "decrease_factor": 1.0,  # as it is
            "clip_grad_norm": 1.0, "normalization": "batch", "shuffle": True,
            "batch_size": BATCH, "batch_type": "sentence", "epochs": 1000, "overwrite": True,
            "logging_freq": 50, "validation_freq": 250, "early_stopping_metric": "bleu",
            "print_valid_sents": [],
            "keep_best_ckpts": 2,
        },
        "model": {
            "tied_embeddings": False, "tied_softmax": False,
            "encoder": layers(bidirectional=True),
            "decoder": layers(
                hidden_dropout=0.2, input_feeding=True, init_hidden="bridge",
                attention="bahdanau",
            ),
        },
    }  # fmt: skip
    path = folder / f"beam{beam}.yaml"
    path.write_text(json.dumps(config))
    return path


def train_joeynmt(python: Path, config: Path, folder: Path, seconds: float, mean: float) -> Figures:
    """``mean``: target tokens of a pair; its log counts those."""
    figures = Figures()
    began = datetime.now()
    figures.megabytes = run_for([python, "-m", "joeynmt", "train", config, "-t"], seconds, folder)
    for line in (folder / "model" / "train.log").read_text().split("\n"):
        if found := re.search(r"Tokens per Sec: *([\d.]+)", line):
            figures.pairs_per_second.append(float(found[1]) / mean)
        elif (found := re.search(r"bleu: *([\d.]+)", line)) and "Evaluation result" in line:
            at = datetime.strptime(line[:19], "%Y-%m-%d %H:%M:%S")
            figures.bleu_at.append(((at - began).total_seconds() / 60, float(found[1])))
    return figures


# -- rnncli ----------------------------------------------------------------------------------


def train_rnncli(
    corpus: Corpus, pieces: Path, folder: Path, seconds: float, mean: float
) -> Figures:
    figures = Figures()
    figures.megabytes = run_for(
        [
            sys.executable, "-m", "rnncli", "train", "--preset", "joeynmt-rnn",
            "--source", corpus.file("train", corpus.source),
            "--target", corpus.file("train", corpus.target),
            "--valid-source", corpus.file("valid", corpus.source),
            "--valid-target", corpus.file("valid", corpus.target),
            "--set", f"tokenizer.model={pieces}", "--set", "training.best_by=bleu",
            "--set", "training.valid_every_steps=250", "--set", "schedule.name=constant",
            "--out", folder / "run", "--overwrite",
        ],
        seconds, folder,
    )  # fmt: skip
    trained = 0.0
    for line in (folder / "run" / "metrics.jsonl").read_text().split("\n")[:-1]:
        event = json.loads(line)
        if event["event"] == "StepReport":
            figures.pairs_per_second.append(event["tokens_per_second"] / mean)
            trained = event["seconds"]
        elif event["event"] == "EvalReport":
            at = (trained + event["seconds"]) / 60
            figures.bleu_at.append((at, event["scores"]["bleu"]))
    return figures


def latency(command: list[object], line: str) -> float:
    """Median seconds for a line, typed to a process that is there."""
    with subprocess.Popen(
        list(map(str, command)), stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL, text=True, bufsize=1,
    ) as process:  # fmt: skip
        assert process.stdin is not None and process.stdout is not None
        found = []
        for _ in range(21):
            began = time.perf_counter()
            process.stdin.write(line + "\n")
            process.stdin.flush()
            process.stdout.readline()
            found.append(time.perf_counter() - began)
        process.stdin.close()
    return statistics.median(found[1:])


# -- both ------------------------------------------------------------------------------------


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path, help="folder with the corpus")
    parser.add_argument("--joeynmt", type=Path, required=True, help="a Python that has JoeyNMT")
    parser.add_argument("--from", dest="source", default="de")
    parser.add_argument("--to", dest="target", default="en")
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--test", default="valid")
    parser.add_argument(
        "--keep", type=Path, help="keep models and logs here; if they are there, translate only"
    )
    options = parser.parse_args()
    corpus = Corpus(options.data.resolve(), options.source, options.target)
    python = options.joeynmt.absolute()  # of its environment, not what that links to
    with tempfile.TemporaryDirectory() as scratch:
        folder = options.keep.absolute() if options.keep else Path(scratch)
        compare(corpus, python, folder, 60 * options.minutes, options.test)


def train_pieces(texts: list[list[str]], path: Path) -> None:
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter([line for lines in texts for line in lines]),
        model_prefix=str(path.with_suffix("")), vocab_size=PIECES, model_type="bpe",
        character_coverage=1.0, minloglevel=2,
    )  # fmt: skip


def train_both(
    corpus: Corpus, python: Path, config: Path, scratch: Path, seconds: float, means: list[float]
) -> None:
    ours, joey = scratch / "rnncli", scratch / "joeynmt"
    of_both = {
        "JoeyNMT": train_joeynmt(python, config, joey, seconds, means[1]),
        "rnncli": train_rnncli(corpus, scratch / "pieces.model", ours, seconds, means[1]),
    }
    for name, found in of_both.items():
        speed = statistics.median(found.pairs_per_second) * sum(means)
        curve = "  ".join(f"{at:.1f}: {bleu:.1f}" for at, bleu in found.bleu_at)
        print(f"{name:8s} training {speed:,.0f} tokens/s, {found.megabytes:,.0f} MB", flush=True)
        print(f"{'':8s} BLEU (valid) by minutes  {curve}")


def compare(corpus: Corpus, python: Path, scratch: Path, seconds: float, test: str) -> None:
    pieces, joey, ours = scratch / "pieces.model", scratch / "joeynmt", scratch / "rnncli"
    trained = joey.exists()
    for folder in (joey, ours):
        folder.mkdir(parents=True, exist_ok=True)
    texts = [corpus.lines("train", side) for side in (corpus.source, corpus.target)]
    if not trained:
        train_pieces(texts, pieces)
    model = sentencepiece.SentencePieceProcessor(model_file=str(pieces))
    names = [model.id_to_piece(n) for n in range(len(model))]
    specials = ["<unk>", "<pad>", "<s>", "</s>"]
    rest = [name for name in names if name not in specials]
    (joey / "vocabulary.txt").write_text("\n".join([*specials, *rest]) + "\n", encoding="utf-8")
    means = [1 + sum(map(len, model.encode(lines))) / len(lines) for lines in texts]
    print(f"{sum(means):.1f} source and target tokens a pair, ends included", flush=True)
    configs = {beam: joeynmt_config(corpus, pieces, joey, beam) for beam in (1, 5)}
    if not trained:
        train_both(corpus, python, configs[1], scratch, seconds, means)
    if not any(joey.rglob("*.ckpt")):
        raise SystemExit("JoeyNMT saved no model in this time, so that nothing can be translated")
    source, expected = corpus.lines(test, corpus.source), corpus.lines(test, corpus.target)
    run: list[object] = [sys.executable, "-m", "rnncli", "translate", ours / "run"]
    for beam in (1, 5):
        translate = {
            "JoeyNMT": ([python, "-m", "joeynmt", "translate", configs[beam]], joey),
            "rnncli": ([*run, "--beam-size", beam], ours),
            "int8": ([*run, "--beam-size", beam, "--weights", "int8"], ours),
        }
        for name, (command, folder) in translate.items():
            _, start, _ = filtered(command, source[0] + "\n", folder)
            text, whole, megabytes = filtered(command, "\n".join(source) + "\n", folder)
            lines = text.split("\n")[:-1]
            bleu = BLEU().corpus_score(lines, [expected]).score
            print(
                f"{name:8s} beam {beam}: {len(source) / (whole - start):.1f} sentences/s, BLEU "
                f"{bleu:.2f}, {megabytes:,.0f} MB, a process for one line {start:.2f} s",
                flush=True,
            )
        ms = 1000 * latency([*run, "--beam-size", beam], source[0])
        print(f"{'rnncli':8s} beam {beam}: {ms:.0f} ms for a line typed to a process that is there")


if __name__ == "__main__":
    main()

"""A good configuration for parallel text that nobody has tuned for."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rnncli.sections import DataConfig
from rnncli.text.lines import Source
from rnncli.text.pairs import PairFiles, pair_files
from rnncli.training.defaults import (
    LOOK_BYTES,
    VALID_BYTES,
    glance,
    measure_speed,
    rare_words_count,
    share_seen_once,
)

SMALL_BYTES = 500_000
DEFAULT_SECONDS = 600.0
BYTES_A_TOKEN = 4.2
SIZES = (128, 192, 256, 320, 384, 448, 512)
MOST_LETTERS = 12
"""Characters a word of a text whose words have spaces between them, at most."""
R_DROP, LEAST_TWICE = 3.0, 14
"""alpha of regularised dropout, and how often it has to see the pairs to pay, with 320 units."""
EFFICIENCY = 0.7
"""Share of the speed of large products that a run reaches, validations and all."""
SUBWORDS, SUBWORDS_TWICE = 4000, 8000
"""Pieces of a vocabulary; those of pairs that are run twice, which have the time for more."""


def choose(data: DataConfig, fixed: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Values for every setting that matters and is not in ``fixed``, and the reasons.

    ``fixed``: dotted names that the user has set. Raises FileError for a file that cannot be read.
    """
    sides = (tuple(fixed.get(f"data.{side}", ())) for side in ("source", "target"))
    files = pair_files(data.train, *sides)
    names = (path for one in files for path in (one.table, one.source, one.target))
    seen = [glance(DataConfig(train=(path,))) for path in names if path is not None]
    size = sum(one.bytes for one in seen)
    small = size < SMALL_BYTES
    look = _look(files)
    spaced = look.spaced
    kind = str(fixed.get("tokenizer.kind", "bpe" if not small or not spaced else "word"))
    extent = _Extent(128, 0.0, bool(fixed.get("regularization.r_drop")))
    if not small:
        extent = _extent(size, look.bytes_a_pair, fixed)
    H, passes, twice = int(fixed.get("model.hidden_size", extent.H)), extent.passes, extent.twice
    look_up = str(fixed.get("model.look_up", "after"))
    every_step = fixed.get("model.context") == "every-step"
    dot = fixed.get("model.attention") == "dot"
    risk = bool(fixed.get("training.risk_candidates"))
    embedded = fixed.get("model.input") != "one-hot"
    usual = 0.25 if twice else 0.2 if small else _dropout(passes)
    rate = float(fixed.get("regularization.dropout", usual))
    values: dict[str, Any] = {
        "tokenizer.kind": kind,
        "model.layers": 2 if look_up == "layers" else 1,
        "model.hidden_size": H,
        "model.embedding_size": H,
        "model.direction": "forward" if dot else "bidirectional",
        "model.attention": "none" if every_step else "general",
        "model.bridge": "linear",
        "model.tied": embedded and fixed.get("model.output") != "adaptive",
        "model.embedding_scale": 8.0 if embedded else 1.0,
        "regularization.dropout": rate,
        "regularization.locked": True,
        "regularization.label_smoothing": 0.0 if risk else 0.1,
        "optimizer.lr": 2e-4 if risk else 3e-3 if small else 1.5e-3 if twice else 2e-3,
        "training.state": "reset",
        "training.bptt": 0,
        "training.batch_size": 32 if small or twice else 64,
        "training.best_by": ("loss" if small else "bleu" if look.measured_by_word else "chrf"),
        "schedule.warmup_steps": 100,
    }
    if twice:
        values["regularization.r_drop"] = R_DROP
    pieces = _subwords(size) if small else SUBWORDS_TWICE if twice else SUBWORDS
    if kind in ("bpe", "unigram") and "tokenizer.model" not in fixed:
        values["tokenizer.vocab_size"] = pieces
    if kind == "word":
        values["tokenizer.min_count"] = rare_words_count(look.seen_once)
    batch = int(fixed.get("training.batch_size") or values["training.batch_size"])
    steps = size / look.bytes_a_pair / batch  # an epoch
    held = min(0.05 * size, VALID_BYTES) / look.bytes_a_pair
    asked = any(fixed.get(f"training.{name}") for name in ("epochs", "max_steps"))
    if 0 < passes < 3:  # some validations before the first epoch is over
        # A validation translates as well, and takes a step's time for every batch of it.
        often = max(20, round(passes * steps / 12), round(10 * held / batch))
        values["training.valid_every_steps"] = often
    elif steps < 20 and not asked:  # and not hundreds of a few pairs
        values["training.valid_every_steps"] = 20
    validated = any(fixed.get(f"data.{name}") for name in ("valid", "valid_source"))
    if not validated and 0.05 * size > VALID_BYTES:
        values["data.valid_fraction"] = round(VALID_BYTES / size, 6)
    separate = any(name.startswith("source_tokenizer.") for name in fixed)
    if separate:
        of_source = str(fixed.get("source_tokenizer.kind", kind))
        values["source_tokenizer.kind"] = of_source
        if of_source in ("bpe", "unigram") and "source_tokenizer.model" not in fixed:
            values["source_tokenizer.vocab_size"] = pieces
        elif of_source == "word":
            values["source_tokenizer.min_count"] = rare_words_count(look.seen_once)
    limit: list[str] = []
    if not any(fixed.get(f"training.{n}") for n in ("epochs", "max_steps", "max_seconds")):
        values["training.max_seconds"] = DEFAULT_SECONDS
        limit = [
            f"time: no limit was given, so {DEFAULT_SECONDS / 60:g} minutes (--max-time, --epochs)"
        ]
    if "training.epochs" not in fixed:
        values["training.epochs"] = 0
    vocabularies = "a vocabulary for each side" if separate else "one vocabulary for both sides"
    why = f"the text has {size / 1e6:.2f} MB" if spaced else "its words have no spaces between"
    settled = ("tokenizer.kind", "tokenizer.model", "training.start_from")
    reasons = [
        *limit,
        *(
            [f"tokens: {kind}, {vocabularies}, since {why}"]
            if not any(fixed.get(name) for name in settled)
            else []
        ),
        *(
            []
            if "model.hidden_size" in fixed
            else [f"size: {H} units a layer, a direction of the encoder and in the decoder"]
        ),
        *(
            ["direction: forward, since dot needs annotations of the decoder's size"]
            if dot and "model.direction" not in fixed
            else []
        ),
        *(
            [
                f"regularisation: dropout {rate:g}{' and R-Drop' if twice else ''}, for about "
                f"{passes:.2g} passes over the pairs"
            ]
            if passes and "regularization.dropout" not in fixed
            else []
        ),
    ]
    return {name: value for name, value in values.items() if name not in fixed}, reasons


@dataclass(frozen=True)
class _Look:
    """What the beginnings of parallel files tell. ``spaced``: both sides have spaces between words
    (where one has none a sentence would be one word); ``measured_by_word``: targets have, and more
    than four words, of which BLEU compares four in a row; ``seen_once``: the share of all words
    that occur once."""

    spaced: bool
    measured_by_word: bool
    bytes_a_pair: float
    seen_once: float


def _look(files: Sequence[PairFiles]) -> _Look:
    sides: tuple[list[str], list[str]] = ([], [])
    for one in files:
        for number, path in enumerate((one.source, one.target)):
            if path is not None:
                sides[number].extend(_beginning(path))
        for line in _beginning(one.table) if one.table is not None else ():
            for side, text in zip(sides, line.split("\t"), strict=False):
                side.append(text)
    words = [[word for line in side for word in line.split()] for side in sides]
    letters = [sum(map(len, side)) for side in sides]
    spaced = [a <= MOST_LETTERS * max(1, len(b)) for a, b in zip(letters, words, strict=True)]
    lines = [max(1, len(side)) for side in sides]
    sizes = [sum(len(line.encode()) + 1 for line in side) for side in sides]
    return _Look(
        all(spaced),
        spaced[1] and len(words[1]) > 4 * lines[1],
        max(2.0, sum(size / count for size, count in zip(sizes, lines, strict=True))),
        share_seen_once([*words[0], *words[1]]),
    )


def _beginning(path: str) -> list[str]:
    """The lines of its first megabyte."""
    with Source.of(path).open() as stream:
        text = stream.read(LOOK_BYTES).decode(errors="ignore")
    return text.removesuffix("\n").split("\n")


def _subwords(size: int) -> int:
    """Pieces of a small text of ``size`` bytes, which has not so many to offer."""
    return max(500, min(SUBWORDS, size // 100))


@dataclass(frozen=True)
class _Extent:
    """Hidden units, passes over the pairs, and whether every pair is run twice (R-Drop)."""

    H: int
    passes: float
    twice: bool


def _extent(size: int, bytes_a_pair: float, fixed: Mapping[str, Any]) -> _Extent:
    """For pairs of ``size`` bytes: what was asked for, or what the time allows. With time enough
    pairs are run twice, which is worth more than larger layers are."""
    seconds = float(fixed.get("training.max_seconds") or 0)
    steps = int(fixed.get("training.max_steps") or 0)
    given = fixed.get("regularization.r_drop")
    tokens, speed = size / 2 / BYTES_A_TOKEN, 0.0
    own = int(fixed.get("model.hidden_size", 0))
    sizes = (own,) if own else SIZES

    def asked(runs: int) -> float:
        """Passes that were asked for, the steps those of batches as they are for so many runs."""
        batch = int(fixed.get("training.batch_size") or (32 if runs > 1 else 64))
        if both := int(fixed.get("training.batch_tokens") or 0):
            batch = max(1, round(both * BYTES_A_TOKEN / bytes_a_pair))
        pairs = steps * batch * int(fixed.get("training.accumulate") or 1)
        epochs = float(fixed.get("training.epochs") or math.inf)
        return min(epochs, pairs * bytes_a_pair / size if steps else math.inf)

    def passes(H: int, runs: int) -> float:
        """Of a layer on each side, the encoder's in both directions, and the output layer."""
        pieces = SUBWORDS_TWICE if runs > 1 else SUBWORDS
        a_token = 6 * (3 * 8 * H * H + 3 * H * H + pieces * H) * runs
        possible = (seconds or DEFAULT_SECONDS) * EFFICIENCY * speed / a_token / tokens
        return min(possible, asked(runs))

    if not seconds and math.isfinite(asked(1)):
        return _Extent(320, asked(2 if given else 1), bool(given))
    speed = measure_speed(fixed)

    def fitting(least: int, power: float, runs: int) -> list[int]:
        return [H for H in sizes if passes(H, runs) >= least * (H / 320) ** power]

    without = ("training.risk_candidates", "training.sampled_softmax")
    may = given is None and not any(fixed.get(name) for name in without)
    may = may and fixed.get("regularization.dropout") != 0
    large = [H for H in fitting(LEAST_TWICE, 6, 2) if own or H >= 320] if may else []
    twice = bool(given) or bool(large)
    runs = 2 if twice else 1
    H = max(large or fitting(7, 2.5, runs), default=sizes[0])
    return _Extent(H, passes(H, runs), twice)


def _dropout(passes: float) -> float:
    """The more passes, the more of it; 0.2 for the forty of docs/results.md, where 0.3 and pieces
    drawn anew learned more slowly, and less. (With R-Drop 0.25.)"""
    for limit, rate in ((3, 0.1), (60, 0.2)):
        if passes <= limit:
            return rate
    return 0.3

"""A good configuration for a text that nobody has tuned for.

Everything follows from four numbers: the size of the text, its kind (already split into words or
not), the time the user gives and the speed of this machine. Every choice comes with its reason.
"""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rnncli.cell_table import CELLS
from rnncli.errors import FileError
from rnncli.model_section import cell_names
from rnncli.sections import DataConfig
from rnncli.text.lines import Source
from rnncli.text.tokenizers import load_sentencepiece

DEFAULT_SECONDS = 600.0
LOOK_BYTES = 1 << 20
CHAR_LIMIT_BYTES = 30_000_000
LEARNING_RATES = {"sgd": 5.0, "adagrad": 0.05, "adadelta": 1.0}
"""Where the rate that suits Adam and RMSprop does not; gradients are clipped at norm 1."""


VALID_BYTES = 1_000_000
"""So much held-out text is enough to tell models apart."""
MOST_WORDS = 60_000
SAMPLED = 1000
"""Words that a batch's loss samples."""


@dataclass(frozen=True)
class Glance:
    """What a look at the beginning of the training files tells. ``alphabet``: how many different
    characters there are; ``tokenized``: whether rare words are ``<unk>`` already; ``seen_once``:
    the share of its words that occur once."""

    bytes: int
    words_a_byte: float
    characters_a_byte: float
    alphabet: int
    tokenized: bool
    seen_once: float
    compressed: bool


def glance(data: DataConfig) -> Glance:
    """Look at the first megabyte of each training file.

    Raises FileError when one is unreadable, DataError when it is not the gzip file it should be.
    """
    total, seen = 0, b""
    compressed = False
    for name in data.train:
        source = Source.of(name)
        try:
            size = os.stat(source.path).st_size
        except OSError as error:
            raise FileError.of("read", name, error) from None
        with source.open() as file:
            seen += file.read(LOOK_BYTES)
        if source.gzipped:
            compressed, size = True, size * 3  # English shrinks to about a third
        total += size
    size, text = max(1, len(seen)), seen.decode("utf-8", "ignore")
    words, characters = len(seen.split()), len(text)
    return Glance(
        total,
        words / size,
        characters / size,
        len(set(text)),
        1000 * seen.count(b" <unk> ") > words,
        share_seen_once(text.split()),
        compressed,
    )


def choose(data: DataConfig, fixed: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Values for every setting that matters and is not in ``fixed``, and the reasons.

    ``fixed``: dotted names that the user has set; what follows from them is chosen to fit.
    """
    seen = glance(data)
    reasons: list[str] = []
    values: dict[str, Any] = {}
    given = fixed.get("tokenizer.model")
    if "training.start_from" in fixed:
        given = None  # the tokenizer is that of the model
    ready = load_sentencepiece(str(given)) if given else None
    kind = str(fixed.get("tokenizer.kind") or (ready and ready.kind) or _tokenizer(seen, reasons))
    vocab = int(fixed.get("tokenizer.vocab_size") or (ready.vocab_size if ready else 0))
    if kind in ("bpe", "unigram") and not vocab:
        vocab = 8000 if seen.bytes < 300_000_000 else 16000
        values["tokenizer.vocab_size"] = vocab
    tokens = _token_count(kind, seen)
    V = {"byte": 256, "char": seen.alphabet + 2}.get(
        kind, vocab or min(MOST_WORDS, int(60 * tokens**0.37))
    )
    if kind == "word" and not seen.tokenized:
        values["tokenizer.min_count"] = rare_words_count(seen.seen_once)
        if V == MOST_WORDS and not vocab:
            values["tokenizer.vocab_size"] = MOST_WORDS
    if "data.valid" not in fixed and 0.05 * seen.bytes > VALID_BYTES:
        values["data.valid_fraction"] = round(VALID_BYTES / seen.bytes, 6)
    words = V > 256
    embedded = fixed.get("model.input") != "one-hot"
    bptt = int(fixed.get("training.bptt") or (35 if words else 64))
    usual = max(1, min(16, tokens // bptt)) if tokens < 300_000 else 32
    batch = int(fixed.get("training.batch_size") or usual)
    H, passes = _extent(V, tokens, batch * bptt, fixed, values, reasons)
    steps = passes * tokens / (batch * bptt)
    whole = fixed.get("model.output") != "adaptive"
    large = V > 4000 and whole
    twice = bool(fixed.get("regularization.r_drop"))  # over the whole vocabulary
    sampled = large and not twice and int(fixed.get("training.sampled_softmax", SAMPLED)) > 0
    timed = fixed.get("training.max_seconds") or "training.max_seconds" in values
    endless = "training.max_steps" in fixed and passes > 60  # not a validation for every step
    if (timed or endless) and fixed.get("training.state") != "reset":
        held = tokens * _held_bytes(seen, fixed) / max(1, seen.bytes)
        if sampled:  # validation is over the whole vocabulary
            held *= (16 * H * H + V * H) / (16 * H * H + SAMPLED * H)
        values["training.valid_every_steps"] = _valid_every(passes, steps, held / (batch * bptt))
    advised = _dropout(passes, words) * _share_of_text(_layers(fixed) * 8 * H * H, tokens)
    advised = max(0.1, advised) if twice else round(advised, 2)
    rate = float(fixed.get("regularization.dropout", advised))
    optimizer = str(fixed.get("optimizer.name", "adamw"))
    fixes_input = fixes_weight(fixed, "W_xh")  # and so what it reads
    values |= {
        "tokenizer.kind": kind,
        "model.layers": _layers(fixed),
        "model.hidden_size": H,
        "model.embedding_size": _embedding_size(H, words, fixed),
        "model.tied": words and embedded and whole and not fixes_input,
        "model.embedding_scale": 8.0 if embedded else 1.0,
        "regularization.dropout": rate,
        "regularization.dropout_output": round(min(0.6, rate * 1.25), 3),
        "regularization.locked": True,
        "regularization.weight_drop": (
            round(rate / 2, 3) if passes > 6 and not fixes_input else 0.0
        ),
        "training.batch_size": batch,
        "training.bptt": bptt,
        "optimizer.lr": LEARNING_RATES.get(optimizer, round(4e-3 * min(1.0, 384 / H), 5)),
        "schedule.warmup_steps": int(min(200, 0.05 * steps)),
    }
    if "regularization.dropout" not in fixed:
        reasons.append(
            f"regularisation: dropout {rate:g}; the more passes and the less text, the more of it"
        )
    if words:
        values["regularization.dropout_embedding"] = round(rate / 4, 3)
        if optimizer == "adamw":  # for the others it is an L2 penalty, and far too strong a one
            values["optimizer.weight_decay"] = 0.1
    if large and not twice:
        values["training.sampled_softmax"] = SAMPLED
        values["training.sampled_fraction"] = 0.9
    if large and not twice and "training.sampled_softmax" not in fixed:
        reasons.append(
            "output: the loss samples 1000 words a batch during the first 90 % of the run; "
            "validation uses the whole vocabulary"
        )
    return {name: value for name, value in values.items() if name not in fixed}, reasons


def _extent(
    V: int,
    tokens: int,
    tokens_a_step: int,
    fixed: Mapping[str, Any],
    values: dict[str, Any],
    reasons: list[str],
) -> tuple[int, float]:
    """Hidden units, and passes over the text: what the time allows, or what was asked for."""
    seconds = float(fixed.get("training.max_seconds") or 0.0)
    asked = float(fixed.get("training.epochs") or 0)
    steps = int(fixed.get("training.max_steps") or 0)
    if steps:
        asked = min(asked or float("inf"), steps * tokens_a_step / tokens)
    if "training.epochs" not in fixed:
        values["training.epochs"] = 0
    if asked and not seconds:
        H = int(fixed.get("model.hidden_size") or _largest(lambda _: asked, tokens))
        if "model.hidden_size" not in fixed:
            reasons.append(
                f"size: {_layers(fixed)} layers of {H} for {asked:.2g} passes over the text"
            )
        return H, asked
    if not seconds:
        seconds = DEFAULT_SECONDS
        values["training.max_seconds"] = seconds
        reasons.append(
            f"time: no limit was given, so {seconds / 60:g} minutes (--max-time, --epochs)"
        )
    twice = bool(fixed.get("regularization.r_drop"))
    speed = measure_speed(fixed)

    def passes(H: int) -> float:
        output = V * H * (0.3 if V > 4000 and not twice else 1.0)
        a_token = 6 * (_layers(fixed) * 8 * H * H + output) * (2 if twice else 1)
        possible = seconds * speed / a_token / tokens
        return min(possible, asked) if asked else possible

    H = int(fixed.get("model.hidden_size") or _largest(passes, tokens))
    if "model.hidden_size" not in fixed:
        reasons.append(
            f"size: {_layers(fixed)} layers of {H}; at some {speed / 1e9:.0f} Gflop/s, "
            f"{seconds / 60:g} minutes are about {passes(H):.2g} passes over {tokens:,} tokens"
        )
    return H, passes(H)


def _embedding_size(H: int, words: bool, fixed: Mapping[str, Any]) -> int:
    """That of the output matrix, where the two are shared. A character needs no more than 128
    numbers, and its product with W_xh takes as many operations as they are long."""
    if words or fixed.get("model.tied") or fixed.get("model.residual", "none") != "none":
        return int(fixed.get("model.projection_size") or H)
    return min(H, 128)


def _layers(fixed: Mapping[str, Any]) -> int:
    """As many as cells are named; two of one cell."""
    named = len(_cells(fixed))
    return int(fixed.get("model.layers", named if named > 1 else 2))


def _cells(fixed: Mapping[str, Any]) -> tuple[str, ...]:
    return cell_names(str(fixed.get("model.cell", "lstm")))


def fixes_weight(fixed: Mapping[str, Any], name: str) -> bool:
    """Whether the first layer's cell does not learn its weight ``name``."""
    first = CELLS.get(_cells(fixed)[0])
    return first is not None and name in first.frozen


def _held_bytes(seen: Glance, fixed: Mapping[str, Any]) -> float:
    """Of the text that is validated on."""
    path = fixed.get("data.valid")
    if path is not None and path != "-" and os.path.isfile(path):
        return os.stat(path).st_size * (3.0 if str(path).endswith(".gz") else 1.0)
    return min(0.05 * seen.bytes, VALID_BYTES)


def share_seen_once(words: Sequence[str]) -> float:
    """The share of ``words`` that occur once; 0 of none."""
    counts = Counter(words).values()
    return sum(count == 1 for count in counts) / max(1, len(words))


def rare_words_count(seen_once: float) -> int:
    """How often a word has to occur to be one of the vocabulary. One of its own for every word that
    was seen would leave ``<unk>`` nothing to learn from; of a few lines hardly any occurs twice."""
    return 1 if seen_once > 1 / 3 else 2


SIZES = (64, 96, 128, 192, 256, 320, 384, 448, 512, 640, 768, 896, 1024)


def _largest(passes: Callable[[int], float], tokens: int) -> int:
    """The largest size that sees the text often enough: 2 passes for 256 units, 12 for 512; whose
    two layers have no more than 60 weights a token."""
    fitting = [H for H in SIZES if passes(H) >= 12 * (H / 512) ** 2.5 and 60 * tokens >= 16 * H * H]
    return max(fitting, default=SIZES[0])


def _valid_every(passes: float, steps: float, held: float) -> int:
    """Steps between validations, 0 for once an epoch: some are wanted before the first epoch is
    over, and not hundreds of a text that is read hundreds of times. ``held``: as many steps would
    go over the held-out text; a tenth of the time may."""
    if passes < 3:
        return max(20, round(steps / 12), round(6 * held))
    return round(steps / 50) if passes > 60 else 0


def _tokenizer(seen: Glance, reasons: list[str]) -> str:
    if seen.tokenized:
        reasons.append('tokens: words, since the text holds "<unk>" and so is already split')
        return "word"
    if seen.bytes <= CHAR_LIMIT_BYTES:
        reasons.append(f"tokens: characters, since the text is small ({seen.bytes / 1e6:.2f} MB)")
        return "char"
    reasons.append(f"tokens: subwords (bpe), since the text is large ({seen.bytes / 1e6:.0f} MB)")
    return "bpe"


def _token_count(kind: str, seen: Glance) -> int:
    """Roughly how many tokens the text has."""
    if kind == "byte":
        return max(1, seen.bytes)
    characters, words = seen.bytes * seen.characters_a_byte, seen.bytes * seen.words_a_byte
    if kind == "char":
        return max(1, int(characters))
    if kind == "word":
        return max(1, int(words * 1.05))
    # Scripts without spaces have characters of three bytes, of which a piece has one or two.
    a_piece = 1.5 if seen.characters_a_byte < 0.45 else 4.5
    return max(1, int(max(words * 1.4, characters / a_piece)))


def measure_speed(fixed: Mapping[str, Any]) -> float:
    """Flop/s that a recurrent layer can hope for here, with the device, precision and threads of
    ``fixed``, rounded to a power of the square root of two so that the same machine chooses the
    same size again."""
    import torch

    from rnncli.runtime import prepare, product_speed

    device, precision = (str(fixed.get(f"training.{n}", "auto")) for n in ("device", "precision"))
    runtime = prepare(device, precision, int(fixed.get("training.threads") or 0))
    share = 0.65 if runtime.dtype == torch.float32 else 0.45  # of a product's, in whole steps
    hoped = share * product_speed(runtime.dtype, runtime.device.type)
    return float(2 ** (round(2 * math.log2(hoped)) / 2))


def _share_of_text(weights: int, tokens: int) -> float:
    """How much of the dropout that 10^6 tokens ask for is wanted where layers have so many
    ``weights``: what is much larger than they are they cannot learn by heart. (Found on the
    characters of Penn Treebank, docs/results.md.)"""
    return min(1.0, weights / tokens) ** 2


def _dropout(passes: float, words: bool) -> float:
    """Found on Penn Treebank and tiny Shakespeare, some 10^6 tokens each. Words need less of it,
    since their weights decay."""
    later = ((12, 0.25), (20, 0.3), (40, 0.35)) if words else ((9, 0.25), (12, 0.3), (20, 0.4))
    for limit, rate in ((1.5, 0.0), (3, 0.1), (5, 0.2), *later):
        if passes <= limit:
            return rate
    return 0.45 if words else 0.5

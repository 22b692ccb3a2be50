"""A good configuration for a text that nobody has tuned for.

Everything follows from four numbers: the size of the text, its kind (already split into words or
not), the time the user gives and the speed of this machine. Every choice comes with its reason.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rnncli.config import DataConfig
from rnncli.errors import FileError
from rnncli.text.lines import Source

DEFAULT_SECONDS = 600.0
LOOK_BYTES = 1 << 20
CHAR_LIMIT_BYTES = 30_000_000


@dataclass(frozen=True)
class Glance:
    """What a look at the beginning of the training files tells."""

    bytes: int
    words_a_byte: float
    tokenized: bool
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
    words = len(seen.split())
    return Glance(total, words / max(1, len(seen)), b" <unk> " in seen, compressed)


def choose(data: DataConfig, fixed: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Values for every setting that matters and is not in ``fixed``, and the reasons.

    ``fixed``: dotted names that the user has set; what follows from them is chosen to fit.
    """
    seen = glance(data)
    values: dict[str, Any] = {}
    reasons: list[str] = []

    kind = fixed.get("tokenizer.kind") or _tokenizer(seen, reasons)
    vocab = int(fixed.get("tokenizer.vocab_size") or 0)
    if kind in ("bpe", "unigram") and not vocab:
        vocab = 8000 if seen.bytes < 300_000_000 else 16000
        values["tokenizer.vocab_size"] = vocab
    tokens = _token_count(kind, seen)
    guess = {"byte": 256, "char": 120, "word": vocab or min(60_000, int(60 * tokens**0.37))}
    V = guess.get(kind, vocab)
    values["tokenizer.kind"] = kind

    limited = any(fixed.get(f"training.{n}") for n in ("epochs", "max_steps", "max_seconds"))
    seconds = float(fixed.get("training.max_seconds") or DEFAULT_SECONDS)
    if not limited:
        values["training.max_seconds"] = seconds
        reasons.append(
            f"time: no limit was given, so {seconds / 60:g} minutes (--max-time, --epochs)"
        )
    if not fixed.get("training.epochs"):
        values["training.epochs"] = 0
    layers = int(fixed.get("model.layers") or 2)
    size, epochs, speed = _size(V, layers, tokens, seconds, fixed)
    if fixed.get("training.epochs"):
        epochs = float(fixed["training.epochs"])
    values |= {"model.layers": layers, "model.hidden_size": size, "model.embedding_size": size}
    values["model.tied"] = V > 256
    if "model.hidden_size" not in fixed:
        reasons.append(
            f"size: {layers} layers of {size}; this machine computes about {speed / 1e9:.0f} "
            f"Gflop/s, which is some {epochs:.2g} passes over {tokens:,} tokens in "
            f"{seconds / 60:g} minutes"
        )
    rate = _dropout(epochs, V)
    values |= {
        "regularization.dropout": rate,
        "regularization.dropout_input": rate,
        "regularization.dropout_output": round(min(0.6, rate * 1.25), 2),
        "regularization.locked": True,
    }
    if V > 256:
        values["regularization.dropout_embedding"] = round(rate / 4, 2)
        values["regularization.weight_drop"] = round(rate * 0.8, 2) if epochs > 6 else 0.0
    reasons.append(f"regularisation: dropout {rate:g}, the more passes the more of it")
    batch, bptt = _batch(tokens, V)
    values |= {"training.batch_size": batch, "training.bptt": bptt}
    if V > 4000:
        values["training.sampled_softmax"] = max(1000, V // 10)
        reasons.append(
            f"output: {values['training.sampled_softmax']} of {V:,} words are sampled for the loss "
            "in the first 85 % of the run; validation uses all of them"
        )
    values |= {
        "optimizer.name": "adamw",
        "optimizer.lr": 4e-3 if size <= 512 else 3e-3,
        "optimizer.beta2": 0.99,
        "optimizer.clip_norm": 1.0,
        "schedule.name": "cosine",
        "schedule.warmup_steps": 100,
    }
    return {k: v for k, v in values.items() if k not in fixed}, reasons


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
    if kind in ("byte", "char"):
        return max(1, seen.bytes)
    words = seen.bytes * seen.words_a_byte
    return max(1, int(words * (1.05 if kind == "word" else 1.4)))


def _size(
    V: int, layers: int, tokens: int, seconds: float, fixed: Mapping[str, Any]
) -> tuple[int, float, float]:
    """Hidden size, the passes over the text that the time allows with it, and flop/s."""
    speed = _measure_speed()

    def passes(H: int) -> float:
        recurrent = layers * 8 * H * H
        output = V * H * (0.3 if V > 4000 else 1.0)
        return seconds * speed / (6 * (recurrent + output)) / tokens

    if "model.hidden_size" in fixed:
        H = int(fixed["model.hidden_size"])
        return H, passes(H), speed
    sizes = (64, 96, 128, 192, 256, 320, 384, 448, 512, 640, 768, 896, 1024)
    wanted = 6.0 if V > 256 else 10.0
    fitting = [H for H in sizes if passes(H) >= wanted * (H / 512) ** 1.0]
    H = max(fitting, default=sizes[0])
    return H, passes(H), speed


def _measure_speed() -> float:
    """Flop/s that a recurrent layer can hope for here, to within some tens of percent."""
    import torch

    from rnncli.runtime import prepare

    runtime = prepare()
    a = torch.ones(512, 512, dtype=runtime.dtype, device=runtime.device)
    best = 0.0
    for _ in range(5):
        began = time.perf_counter()
        for _ in range(8):
            out = a @ a
        float(out[0, 0])
        best = max(best, 8 * 2 * 512**3 / (time.perf_counter() - began))
    return 0.45 * best


def _dropout(epochs: float, V: int) -> float:
    """More passes over the same text, more noise: found on Penn Treebank and tiny Shakespeare."""
    table = ((1.5, 0.0), (3, 0.1), (6, 0.2), (10, 0.3), (20, 0.4), (40, 0.5))
    for limit, rate in table:
        if epochs <= limit:
            return rate
    return 0.55


def _batch(tokens: int, V: int) -> tuple[int, int]:
    """Streams and steps: smaller for small texts, so that there are enough updates."""
    if V > 256:
        return (16 if tokens < 200_000 else 32, 35)
    for limit, batch in ((300_000, 16), (3_000_000, 32)):
        if tokens < limit:
            return batch, 64
    return 64, 64

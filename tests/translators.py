"""Encoder-decoders that were never trained, sure enough of what they say to be searched."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import torch

from rnncli.checkpoint import write_model
from rnncli.config import Config
from rnncli.models.encoder_decoder import EncoderDecoder
from rnncli.sections import ModelConfig, TokenizerConfig
from rnncli.text.tokenizers import Tokenizer, train_tokenizer

WORDS = ("the", "cat", "sat", "on", "a", "mat", "and", "ran", "dog")


def lines(count: int, seed: int = 0) -> list[str]:
    """Lines of up to six words, some of them blank."""
    rng = random.Random(seed)
    return [" ".join(rng.choices(WORDS, k=rng.randrange(7))) for _ in range(count)]


def tokenizer_of(kind: str) -> Tokenizer:
    size = 280 if kind in ("bpe", "unigram") else 0
    return train_tokenizer(TokenizerConfig(kind, vocab_size=size), lines(200))


def network(tokenizer: Tokenizer, seed: int = 0, **config: Any) -> EncoderDecoder:
    torch.manual_seed(seed)
    model = EncoderDecoder(_config(config), tokenizer.vocab_size).eval().requires_grad_(False)
    weight = model.output.matrix(model.tied_weight)
    weight *= 4.0  # surer predictions
    return model


def _config(config: dict[str, Any]) -> ModelConfig:
    usual = {
        "layers": 1, "hidden_size": 16, "embedding_size": 12, "attention": "general",
        "direction": "bidirectional", "init": "uniform", "init_scale": 0.8,
    }  # fmt: skip
    return ModelConfig(**{**usual, **config})


def write_translator(
    folder: Path, kind: str, seed: int = 0, provenance: dict[str, Any] | None = None, **config: Any
) -> Path:
    """Such a model as a run's folder."""
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = tokenizer_of(kind)
    write_model(
        folder / "model.safetensors",
        config=Config(
            task="translate", tokenizer=TokenizerConfig(kind=kind), model=_config(config)
        ),
        tokenizer=tokenizer,
        weights=network(tokenizer, seed, **config).state_dict(),
        scores={},
        provenance=provenance or {},
    )
    return folder

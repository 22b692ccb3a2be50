"""A model's file made into a network that runs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from rnncli.checkpoint import Header, read_model
from rnncli.config import Config
from rnncli.errors import ModelError, UsageError
from rnncli.models.language_model import LanguageModel
from rnncli.text.tokenizers import Tokenizer


@dataclass(frozen=True)
class Loaded:
    """A trained language model, ready to evaluate (no dropout, no gradients)."""

    path: Path
    header: Header
    config: Config
    tokenizer: Tokenizer
    model: LanguageModel


def load_language_model(path: Path, device: torch.device | str = "cpu") -> Loaded:
    """Read, verify and build the language model in ``path`` (a file or a run's folder).

    Raises FileError, ModelError for a damaged file, UsageError when it is a model of another task.
    """
    saved = read_model(path)
    if saved.config.task != "lm":
        raise UsageError(
            f"{path} is a model for --task {saved.config.task}; this needs a language model"
        )
    if saved.tokenizer is None:
        raise ModelError(f"{path} is damaged: a language model without a tokenizer")
    with torch.device("meta"):
        model = LanguageModel(saved.config.model, saved.tokenizer.vocab_size)
    expected = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    found = {name: tuple(tensor.shape) for name, tensor in saved.weights.items()}
    if expected != found:
        wrong = sorted(set(expected.items()) ^ set(found.items()))[0]
        raise ModelError(
            f"{path}: the weights do not fit its configuration: {wrong[0]} {list(wrong[1])} is "
            f"{'missing' if wrong in expected.items() else 'unexpected'}"
        )
    model.load_state_dict(saved.weights, assign=True)
    model.embedding.materialize(device)
    model.to(device).eval().requires_grad_(False)
    return Loaded(path, saved.header, saved.config, saved.tokenizer, model)

"""A model's file made into a network that runs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import torch
from torch import nn

from rnncli.checkpoint import Header, SavedModel, read_model, unlike_weight
from rnncli.config import Config
from rnncli.decoding.music_ensemble import MusicEnsemble
from rnncli.errors import ModelError, UsageError
from rnncli.models.encoder_decoder import EncoderDecoder
from rnncli.models.language_model import LanguageModel
from rnncli.models.music import MusicModel
from rnncli.models.sequence_reader import SequenceReader
from rnncli.text.music import KEYS
from rnncli.text.tokenizers import Tokenizer

Network = TypeVar("Network", bound=nn.Module)

TASK_MODELS = {
    "lm": "a language model",
    "music": "a model of music",
    "translate": "a model of translation",
}


@dataclass(frozen=True)
class Loaded:
    """A trained language model, ready to evaluate (no dropout, no gradients)."""

    path: Path
    header: Header
    config: Config
    tokenizer: Tokenizer
    model: LanguageModel


@dataclass(frozen=True)
class LoadedTranslator:
    """A trained encoder-decoder, ready to translate (no dropout, no gradients)."""

    path: Path
    header: Header
    config: Config
    tokenizer: Tokenizer
    model: EncoderDecoder
    source_tokenizer: Tokenizer | None = None


@dataclass(frozen=True)
class LoadedMusic:
    """A trained model of polyphonic music, ready to evaluate (no dropout, no gradients)."""

    path: Path
    header: Header
    config: Config
    model: MusicModel


@dataclass(frozen=True)
class LoadedReader:
    """A trained model of a synthetic task, ready to evaluate (no dropout, no gradients)."""

    path: Path
    header: Header
    config: Config
    model: SequenceReader


def load_language_model(path: Path, device: torch.device | str = "cpu") -> Loaded:
    """Read, verify and build the language model in ``path`` (a file or a run's folder).

    Raises FileError, ModelError for a damaged file, UsageError when it is a model of another task.
    """
    saved = _read(path, "lm")
    if saved.tokenizer is None:
        raise ModelError(f"{path} is damaged: a language model without a tokenizer")
    with torch.device("meta"):
        model = LanguageModel(saved.config.model, saved.tokenizer.vocab_size)
    model = _fill(model, saved, path)
    model.embedding.materialize(device)
    return Loaded(path, saved.header, saved.config, saved.tokenizer, _ready(model, device))


def load_translators(
    paths: Sequence[Path], device: torch.device | str = "cpu"
) -> list[LoadedTranslator]:
    """Read, verify and build the encoder-decoders in ``paths``, for an ensemble where there are
    several. Raises as ``load_language_model``, and UsageError for unlike vocabularies or sources
    that are not all read in one direction."""
    models = [_load_translator(path, device) for path in paths]
    for other in models[1:]:
        if _fingerprints(other) != _fingerprints(models[0]):
            raise UsageError(
                f"{other.path} and {models[0].path} have different vocabularies; an ensemble needs "
                "models trained with one tokenizer"
            )
        if other.config.model.reverse_source != models[0].config.model.reverse_source:
            raise UsageError(
                f"{other.path} and {models[0].path}: one of them reads its sources backward "
                "(model.reverse_source); an ensemble needs models that agree"
            )
    return models


def _load_translator(path: Path, device: torch.device | str) -> LoadedTranslator:
    saved = _read(path, "translate")
    if saved.tokenizer is None:
        raise ModelError(f"{path} is damaged: a model of translation without a tokenizer")
    with torch.device("meta"):
        source_size = None if saved.source_tokenizer is None else saved.source_tokenizer.vocab_size
        model = EncoderDecoder(saved.config.model, saved.tokenizer.vocab_size, source_size)
    model = _fill(model, saved, path)
    for embedding in (model.source_embedding, model.target_embedding):
        embedding.materialize(device)
    model = _ready(model, device)
    return LoadedTranslator(
        path, saved.header, saved.config, saved.tokenizer, model, saved.source_tokenizer
    )


def _fingerprints(one: LoadedTranslator) -> tuple[str, str]:
    source = one.source_tokenizer or one.tokenizer
    return source.fingerprint, one.tokenizer.fingerprint


def load_music_model(path: Path, device: torch.device | str = "cpu") -> LoadedMusic:
    """Read, verify and build the model of music in ``path``; raises as ``load_language_model``."""
    saved = _read(path, "music")
    with torch.device("meta"):
        model = MusicModel(saved.config.model, KEYS)
    model = _ready(_fill(model, saved, path), device)
    return LoadedMusic(path, saved.header, saved.config, model)


def load_music_models(
    paths: Sequence[Path], device: torch.device | str = "cpu"
) -> MusicModel | MusicEnsemble:
    """The model of music in one of ``paths``, an ensemble of several; raises as
    ``load_music_model``, and as ``MusicEnsemble``."""
    models = [load_music_model(path, device).model for path in paths]
    return models[0] if len(models) == 1 else MusicEnsemble(models)


def load_sequence_reader(
    path: Path, sizes: Callable[[Config], tuple[int, int]], device: torch.device | str = "cpu"
) -> LoadedReader:
    """Read, verify and build the model of a synthetic task in ``path``. ``sizes``: the numbers of
    inputs and outputs that its configuration means. Raises as ``load_language_model``."""
    saved = read_model(path)
    if not saved.config.task.startswith("synthetic:"):
        raise UsageError(
            f"{path} is a model for --task {saved.config.task}; this needs one of a synthetic task"
        )
    with torch.device("meta"):
        model = SequenceReader(saved.config.model, *sizes(saved.config))
    model = _ready(_fill(model, saved, path), device)
    return LoadedReader(path, saved.header, saved.config, model)


def _read(path: Path, task: str) -> SavedModel:
    saved = read_model(path)
    if saved.config.task != task:
        raise UsageError(
            f"{path} is a model for --task {saved.config.task}; this needs {TASK_MODELS[task]}"
        )
    return saved


def _fill(model: Network, saved: SavedModel, path: Path) -> Network:
    """``model``, made without storage, with the weights of ``saved``; raises ModelError when they
    are not its own."""
    if unlike := unlike_weight(model.state_dict(), saved.weights):
        name, expected, found = unlike
        raise ModelError(
            f"{path}: the weights do not fit its configuration: {name} is {found or 'missing'} and "
            f"should be {expected or 'absent'}"
        )
    model.load_state_dict(saved.weights, assign=True)
    return model


def _ready(model: Network, device: torch.device | str) -> Network:
    model.to(device).eval().requires_grad_(False)
    return model

"""A run that begins with the weights of another one: transfer to other data or another loss."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from rnncli.checkpoint import NO_TOKENIZER, SavedModel, read_header, read_model, unlike_weight
from rnncli.config import Config
from rnncli.errors import UsageError
from rnncli.text.tokenizers import Tokenizer
from rnncli.training.run_folder import flat

KEPT = ("task", "tokenizer", "source_tokenizer")
"""Parts of a configuration that a model is nothing without."""


@dataclass(frozen=True)
class Start:
    """A model to begin with."""

    path: str
    saved: SavedModel

    @property
    def tokenizers(self) -> tuple[Tokenizer, ...]:
        """As ``rnncli.training.tasks.open_task`` takes them."""
        both = (self.saved.tokenizer, self.saved.source_tokenizer)
        return tuple(one for one in both if one is not None)

    @property
    def note(self) -> str:
        weights = self.saved.header.weights_sha256[:12]
        return f"The first weights are those of {self.path} (sha256 {weights}...)."

    def fill(self, model: nn.Module) -> None:
        """Give ``model`` the weights. Raises UsageError when it has other ones."""
        if unlike := unlike_weight(model.state_dict(), self.saved.weights):
            name, own, given = unlike
            raise UsageError(
                f"training.start_from: {self.path} holds another model: the weight {name} is "
                f"{given or 'missing'} in it and {own or 'missing'} in this one; leave out what "
                "changes its [model]"
            )
        model.load_state_dict(self.saved.weights)


def read_start(config: Config) -> Start | None:
    """What a run with ``config`` begins with, None for fresh weights. Raises as ``read_model``, and
    UsageError for a model of another task or with other tokenizers."""
    path = config.training.start_from
    if path is None:
        return None
    saved = read_model(Path(path))
    theirs, ours = _kept(saved.config), _kept(config)
    for name in (*ours, *theirs):
        if theirs.get(name) != ours.get(name):
            raise UsageError(
                f"training.start_from: {name} is {ours.get(name, 'none')!r} and "
                f"{theirs.get(name, 'none')!r} in {path}, whose weights belong to it; leave it out"
            )
    return Start(path, saved)


def start_values(path: Path) -> dict[str, Any]:
    """Dotted names and values of what a run takes from the model that it begins with. Raises as
    ``read_header``."""
    header = read_header(path)
    sections = ["task", "model"]
    if header.tokenizer_kind != NO_TOKENIZER:  # else the task does not know such settings
        sections += ["tokenizer", "source_tokenizer"]
    return flat({name: header.config[name] for name in sections if name in header.config})


def _kept(config: Config) -> dict[str, Any]:
    values = config.to_dict()
    return flat({name: values[name] for name in KEPT if name in values})

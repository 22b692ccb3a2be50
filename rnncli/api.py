"""The Python interface: ``rnncli.load`` and ``rnncli.train``."""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from rnncli.config import Config
from rnncli.decoding.filters import Filters
from rnncli.decoding.sampling import Limits, Sample
from rnncli.evaluation.scoring import LineScorer
from rnncli.evaluation.strings import encode_string
from rnncli.evaluation.text import evaluate_text
from rnncli.generation import encode_prompt
from rnncli.generation import generate as generate_events
from rnncli.loading import Loaded, load_language_model
from rnncli.metrics import LanguageModelScores
from rnncli.nn.stack import Run
from rnncli.text.corpus import encode_file
from rnncli.text.tokenizers import Tokenizer

if TYPE_CHECKING:
    from rnncli.training.events import Event


class Model:
    """A trained language model. ``config`` is that of the run that made it."""

    def __init__(self, loaded: Loaded) -> None:
        self._loaded = loaded

    @property
    def config(self) -> Config:
        return self._loaded.config

    @property
    def tokenizer(self) -> Tokenizer:
        return self._loaded.tokenizer

    @property
    def weights(self) -> dict[str, torch.Tensor]:
        """Every matrix and bias by its name: ``stack.cells.0.W_xh`` (G, I), ``W_hh`` (G, H) and
        ``a`` (G,) of the first layer, as docs/cells.md has their rows, ``output.W_hy`` (V, H) and
        ``output.b`` (V,), ``embedding.weight`` (V, E). Zoneout puts ``cell.`` before these names;
        an LSTM or a GRU with ``transition_depth`` above 1 has ``cell.`` for its first step and
        ``further.0.`` and so on for the others. A tied output has no W_hy. They are the model's
        own, not copies."""
        return {name: weight.detach() for name, weight in self._loaded.model.named_parameters()}

    def score(self, lines: Sequence[str]) -> list[float]:
        """The natural logarithm of each line's probability, its end included. Each line is scored
        by itself; the numbers are those of ``rnncli score``."""
        return [-score.total_nats for score in self._scorer(lines)]

    @cached_property
    def _scorer(self) -> LineScorer:
        return LineScorer([self._loaded], strip_lines=self.config.data.strip_lines)

    def generate(
        self,
        prompt: str = "",
        *,
        max_new_tokens: int = 500,
        min_new_tokens: int = 0,
        temperature: float = 1.0,
        top_k: int = 0,
        top_p: float = 1.0,
        min_p: float = 0.0,
        greedy: bool = False,
        stop: Sequence[str] = (),
        no_unk: bool = False,
        seed: int | None = None,
    ) -> str:
        """What follows ``prompt``, without it, as ``rnncli generate`` samples it; the same ``seed``
        gives the same text. Raises UsageError for a value out of range."""
        unk = (self.tokenizer.unk_id,) if no_unk and self.tokenizer.unk_id is not None else ()
        events = generate_events(
            [self._loaded],
            encode_prompt(self.tokenizer, prompt),
            rows=1,
            limits=Limits(max_new_tokens, min_new_tokens, tuple(stop)),
            filters=Filters(temperature, top_k, top_p, min_p, unk),
            greedy=greedy,
            seed=secrets.randbits(63) if seed is None else seed,
            precision="float32",
        )
        return next(event.text for event in events if isinstance(event, Sample))

    def evaluate(
        self, text: str | Path, *, state: str | None = None, columns: int = 1
    ) -> LanguageModelScores:
        """The loss of a text (a ``str``) or of a file (a ``Path``), in every unit.

        ``state``: carried or reset, None: as in training; ``columns``: parallel streams that the
        text is cut into, 1 is exact. Raises FileError for a file that cannot be read, DataError for
        an empty text.
        """
        strip = self.config.data.strip_lines
        if isinstance(text, Path):
            stream = encode_file(self.tokenizer, text, strip_lines=strip)
        else:
            stream = encode_string(self.tokenizer, text, strip_lines=strip)
        return evaluate_text(
            [self._loaded],
            stream,
            state=state or self.config.training.state,
            columns=columns,
            run_as=Run(),
            notes=("lines:stripped",) if strip else (),
        ).scores


def load(path: str | Path, device: torch.device | str = "cpu") -> Model:
    """The language model in a file or in a run's folder.

    Raises FileError when it cannot be read, ModelError when it is damaged, UsageError when it is a
    model of another task.
    """
    return Model(load_language_model(Path(path), device))


def train(config: Config, folder: str | Path, *, resume: bool = False) -> Iterator[Event]:
    """Train a model into ``folder``: the events of the run as they happen. The run goes on only
    while they are taken; ``for event in rnncli.train(config, "run"): ...``.

    Raises as ``rnncli.training.run.train`` does.
    """
    from rnncli.training.run import train as events

    return events(config, Path(folder), resume=resume)

"""Everything that ``evaluate`` measures of a text: the static figures, and apart from them those
of models that adapt to the text or are averaged over dropout masks."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch

from rnncli.errors import UsageError, choices_hint
from rnncli.evaluation.cache import CacheConfig, add_cache
from rnncli.evaluation.dynamic import (
    DynamicConfig,
    dynamic_nats,
    dynamic_note,
    gradient_statistics,
)
from rnncli.evaluation.ensemble import dropout_rates, mean_probability
from rnncli.evaluation.language_model import Predicted, Totals, evaluating, model_device, predict
from rnncli.evaluation.pieces import PIECE, Piece, column_pieces, line_pieces
from rnncli.loading import Loaded
from rnncli.metrics import LanguageModelScores
from rnncli.nn.stack import Run
from rnncli.sections import STATES, RegularizationConfig
from rnncli.text.corpus import Progress, TokenStream


@dataclass(frozen=True)
class Extras:
    """What to measure beside the static figures. ``dynamic_train``: training text for the gradient
    statistics of dynamic evaluation. ``mc_dropout``: passes under dropout, 0 for none; ``seed``
    draws their masks."""

    cache: CacheConfig | None = None
    dynamic: DynamicConfig | None = None
    dynamic_train: TokenStream | None = None
    mc_dropout: int = 0
    seed: int = 1


@dataclass(frozen=True)
class Evaluation:
    """``scores`` are those of the model as it was trained (of several models: of the mean of their
    probabilities). ``apart``: by name, figures of models that are not: ``cache``, ``dynamic``,
    ``mc_dropout``. ``columns``: parallel streams, 0 when state is reset at every line."""

    scores: LanguageModelScores
    columns: int
    apart: dict[str, LanguageModelScores] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """The object that ``evaluate --json`` prints."""
        counts = ("tokens", "words", "characters", "bytes", "oov")
        apart = {
            name: {key: v for key, v in scores.to_dict().items() if key not in counts}
            for name, scores in self.apart.items()
        }
        return {**self.scores.to_dict(), "columns": self.columns, **apart}


def evaluate_text(
    models: Sequence[Loaded],
    text: TokenStream,
    *,
    state: str,
    columns: int = 1,
    run_as: Run,
    extras: Extras | None = None,
    notes: tuple[str, ...] = (),
    progress: Progress | None = None,
) -> Evaluation:
    """Measure a text. ``state``: carried or reset; ``notes`` go into the signatures; ``progress``
    hears of the tokens run so far and in all.

    Raises UsageError for a combination that has no meaning, DataError for an empty text.
    """
    extras = extras or Extras()
    _check(models, state, columns, extras)
    rates = [dropout_rates(loaded.config) for loaded in models] if extras.mc_dropout else []
    passes = len(models) * (1 + extras.mc_dropout) + (extras.dynamic is not None)
    total = passes * len(text.ids) + (len(extras.dynamic_train.ids) if extras.dynamic_train else 0)
    text_under = _TextUnder(models, text, state, columns, run_as, notes, _Work(progress, total))
    apart: dict[str, LanguageModelScores] = {}
    with evaluating(*(loaded.model for loaded in models)):
        scores, cached = text_under.static(extras.cache)
        if cached:
            apart["cache"] = cached
        if extras.mc_dropout:
            apart["mc_dropout"] = text_under.dropout(rates, extras.mc_dropout, extras.seed)
    if extras.dynamic:
        apart["dynamic"] = text_under.dynamic(extras.dynamic, extras.dynamic_train)
    return Evaluation(scores, text_under.columns, apart)


class _TextUnder:
    """A text under models, measured in one way after the other."""

    def __init__(
        self,
        models: Sequence[Loaded],
        text: TokenStream,
        state: str,
        columns: int,
        run_as: Run,
        notes: tuple[str, ...],
        work: _Work,
    ) -> None:
        self.columns = 0 if state == "reset" else min(columns, len(text.ids))
        self._models, self._text, self._state, self._run_as = models, text, state, run_as
        self._boundary, self._unk = models[0].tokenizer.boundary_id, models[0].tokenizer.unk_id
        self._work = work
        dtype = str(run_as.dtype).removeprefix("torch.")
        self._notes = (
            *((f"columns:{self.columns}",) if self.columns > 1 else ()),
            *((f"models:{len(models)}",) if len(models) > 1 else ()),
            *((f"products:{dtype}",) if dtype != "float32" else ()),
            *notes,
        )

    def static(
        self, cache: CacheConfig | None
    ) -> tuple[LanguageModelScores, LanguageModelScores | None]:
        """The figures of the models as they are, and those with a cache, from one pass."""
        run, plain = self._mean([None] * len(self._models)), Totals(self._unk)
        if cache is None:
            return self._scores(plain.read(run)), None
        cached = Totals(self._unk).read(add_cache(plain.watch(run), cache))
        return self._scores(plain.sums), self._scores(cached, cache.note)

    def dropout(
        self, rates: Sequence[RegularizationConfig], passes: int, seed: int
    ) -> LanguageModelScores:
        """The mean over ``passes`` of each model under dropout with its own rates."""
        with _seeded(model_device(self._models[0].model), seed):
            sums = Totals(self._unk).read(self._mean(rates, passes))
        return self._scores(sums, f"mc-dropout:passes={passes},seed={seed}")

    def dynamic(self, config: DynamicConfig, train: TokenStream | None) -> LanguageModelScores:
        """The first model's figures when it goes on learning."""
        model, advance, statistics = self._models[0].model, self._work.advance, None
        if train is not None:
            statistics = gradient_statistics(
                model, train.ids, self._boundary, segment=config.segment,
                fingerprint=train.fingerprint, run_as=self._run_as, advance=advance,
            )  # fmt: skip
        summed = dynamic_nats(
            model, self._text.ids, self._boundary, config, statistics,
            run_as=self._run_as, unk_id=self._unk, advance=advance,
        )  # fmt: skip
        return self._scores((summed.nats, summed.oov_nats), dynamic_note(config, statistics))

    def _mean(
        self, rates: Sequence[RegularizationConfig | None], passes: int = 1
    ) -> Iterator[Predicted]:
        """The mean probability of ``passes`` runs of each model, with its dropout rates."""
        runs = [
            self._watched(predict(loaded.model, self._pieces(), self._run_as, dropout))
            for loaded, dropout in zip(self._models, rates, strict=True)
            for _ in range(passes)
        ]
        return runs[0] if len(runs) == 1 else mean_probability(runs)

    def _pieces(self) -> Iterator[Piece]:
        if self._state == "reset":
            return line_pieces(self._text.ids, self._boundary, PIECE)
        return column_pieces(self._text.ids, self._boundary, self.columns, PIECE)

    def _watched(self, run: Iterable[Predicted]) -> Iterator[Predicted]:
        for part in run:
            self._work.advance(part.targets.numel())
            yield part

    def _scores(self, sums: tuple[float, float], *more: str) -> LanguageModelScores:
        return LanguageModelScores(
            *sums,
            self._text.counts,
            self._models[0].tokenizer.kind,
            self._state,
            notes=(*self._notes, *more),
        )


class _Work:
    """Tells ``progress`` how much is done."""

    def __init__(self, progress: Progress | None, total: int) -> None:
        self._progress, self._total, self._done = progress, total, 0

    def advance(self, tokens: int) -> None:
        self._done = min(self._done + tokens, self._total)  # padding counts for nothing
        if self._progress:
            self._progress(self._done, self._total)


@contextmanager
def _seeded(device: torch.device, seed: int) -> Iterator[None]:
    """With random numbers from ``seed``; afterwards they go on as if nothing had been."""
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield


def _check(models: Sequence[Loaded], state: str, columns: int, extras: Extras) -> None:
    if state not in STATES:
        raise UsageError(f"--state: unknown value {state!r}{choices_hint(state, STATES)}")
    if columns < 1:
        raise UsageError(f"--columns {columns}: it must be at least 1")
    if extras.mc_dropout < 0:
        raise UsageError(f"--mc-dropout {extras.mc_dropout}: it must be at least 1, or 0 for none")
    if state == "reset" and columns > 1:
        raise UsageError(
            "--columns: with --state reset every line is a stream of its own; leave it out"
        )
    for option, wanted in (("--cache-window", extras.cache), ("--dynamic", extras.dynamic)):
        if wanted and state == "reset":
            raise UsageError(
                f"{option}: adapting to a text needs --state carried; this is --state reset"
            )
        if wanted and len(models) > 1:
            raise UsageError(f"{option} works on one model, not on an ensemble of {len(models)}")
    if extras.dynamic and columns > 1:
        raise UsageError("--dynamic: the text is learned from in its order; leave out --columns")

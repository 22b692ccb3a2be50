"""Everything that ``evaluate`` measures of a text: the static figures, and apart from them those
of models that adapt to the text or are averaged over dropout masks."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from rnncli.config import STATES
from rnncli.errors import DataError, UsageError, choices_hint
from rnncli.evaluation.cache import CacheConfig, add_cache
from rnncli.evaluation.dynamic import (
    DynamicConfig,
    dynamic_nats,
    dynamic_note,
    gradient_statistics,
)
from rnncli.evaluation.ensemble import dropout_rates, mean_probability
from rnncli.evaluation.language_model import Totals, evaluating, model_device, predict
from rnncli.evaluation.pieces import PIECE, Piece, column_pieces, line_pieces
from rnncli.loading import Loaded
from rnncli.metrics import LanguageModelScores
from rnncli.nn.stack import Run
from rnncli.text.corpus import Counts, TokenStream
from rnncli.text.protocol import Ids, id_dtype, without_surrogates
from rnncli.text.tasks import Chunk, EncodeTask, TextOptions
from rnncli.text.tokenizers import Tokenizer


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
) -> Evaluation:
    """Measure a text. ``state``: carried or reset; ``notes`` go into the signatures.

    Raises UsageError for a combination that has no meaning, DataError for an empty text.
    """
    extras = extras or Extras()
    _check(models, state, columns, extras)
    first, ids = models[0], text.ids
    columns = 0 if state == "reset" else min(columns, len(ids))
    boundary, unk = first.tokenizer.boundary_id, first.tokenizer.unk_id
    notes = (
        *(() if columns < 2 else (f"columns:{columns}",)),
        *(() if len(models) == 1 else (f"models:{len(models)}",)),
        *(
            ()
            if run_as.dtype == torch.float32
            else (f"products:{str(run_as.dtype).removeprefix('torch.')}",)
        ),
        *notes,
    )

    def pieces() -> Iterator[Piece]:
        if state == "reset":
            return line_pieces(ids, boundary, PIECE)
        return column_pieces(ids, boundary, columns, PIECE)

    def scores(sums: tuple[float, float], *more: str) -> LanguageModelScores:
        return LanguageModelScores(
            *sums, text.counts, first.tokenizer.kind, state, notes=(*notes, *more)
        )

    static, apart = Totals(unk), {}
    with evaluating(*(loaded.model for loaded in models)):
        runs = [predict(loaded.model, pieces(), run_as) for loaded in models]
        run = runs[0] if len(runs) == 1 else mean_probability(runs)
        if extras.cache:
            cached = Totals(unk).read(add_cache(static.watch(run), extras.cache))
            apart["cache"] = scores(cached, extras.cache.note)
        else:
            static.read(run)
        if extras.mc_dropout:
            with _seeded(model_device(first.model), extras.seed):
                runs = [
                    predict(loaded.model, pieces(), run_as, dropout_rates(loaded.config))
                    for loaded in models
                    for _ in range(extras.mc_dropout)
                ]
                averaged = Totals(unk).read(mean_probability(runs))
            note = f"mc-dropout:passes={extras.mc_dropout},seed={extras.seed}"
            apart["mc_dropout"] = scores(averaged, note)
    if extras.dynamic:
        adapted, note = _dynamic(first, text, run_as, extras.dynamic, extras.dynamic_train)
        apart["dynamic"] = scores(adapted, note)
    return Evaluation(scores(static.sums), columns, apart)


def encode_string(tokenizer: Tokenizer, text: str, *, strip_lines: bool = False) -> TokenStream:
    """A text as ids, as ``encode_file`` gives those of a file. Raises DataError if it is empty."""
    if not text:
        raise DataError("the text is empty; expected at least one line")
    options = TextOptions(strip_lines, byte_exact=tokenizer.kind == "byte")
    text = without_surrogates(text).removesuffix("\n") + "\n"
    data = text.encode()
    header, payload = EncodeTask(tokenizer, options).run(Chunk(data, "text", 1))
    ids: Ids = np.frombuffer(payload, id_dtype(tokenizer.vocab_size))
    counts = Counts().plus(header, again=False)
    return TokenStream(ids, counts, hashlib.sha256(data).hexdigest())


def _dynamic(
    loaded: Loaded, text: TokenStream, run_as: Run, config: DynamicConfig, train: TokenStream | None
) -> tuple[tuple[float, float], str]:
    """The nats of all tokens and of the unknown ones, and the note for the signature."""
    boundary, unk = loaded.tokenizer.boundary_id, loaded.tokenizer.unk_id
    statistics = None
    if train is not None:
        statistics = gradient_statistics(
            loaded.model, train.ids, boundary,
            segment=config.segment, fingerprint=train.fingerprint, run_as=run_as,
        )  # fmt: skip
    summed = dynamic_nats(
        loaded.model, text.ids, boundary, config, statistics, run_as=run_as, unk_id=unk
    )
    return (summed.nats, summed.oov_nats), dynamic_note(config, statistics)


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

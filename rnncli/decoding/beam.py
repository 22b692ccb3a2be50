"""Beam search: the most probable continuations of several sources at once."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from rnncli.decoding.constraints import allow_where_stuck, forbid_repeats, read_prefix
from rnncli.decoding.filters import NEVER, forbid
from rnncli.decoding.protocol import AnyStepper, DecoderState
from rnncli.errors import DataError, UsageError, choices_hint

NORMALIZATIONS = ("wu", "avg")

MOST_PENALTY = 20.0
"""A power of the length that no float overflows by."""


@dataclass(frozen=True)
class BeamOptions:
    """``end_id`` ends a hypothesis (None: only its length does) once it has ``min_new_tokens``
    before it; ``max_new_tokens`` counts the end. Scores are log-probabilities divided by a power
    alpha, ``length_penalty``, of the length with the end: of (5 + length) / 6 for
    ``length_normalization`` wu (Wu et al. 2016, sec. 7, eq. 14), of the length itself for avg; 0
    compares log-probabilities as they are. ``forbidden`` tokens are never taken, nor one that would
    repeat an n-gram of ``no_repeat_ngram`` tokens (0: they may). A search is over after
    ``patience`` times ``beam_size`` ends (Kasai et al. 2022, sec. 2.2), and when nothing alive can
    become better. Raises UsageError for a value out of range."""

    beam_size: int
    max_new_tokens: int
    min_new_tokens: int = 0
    end_id: int | None = None
    length_penalty: float = 0.0
    forbidden: tuple[int, ...] = ()
    length_normalization: str = "wu"
    no_repeat_ngram: int = 0
    patience: float = math.inf

    def __post_init__(self) -> None:
        least = {"beam_size": 1, "max_new_tokens": 0, "min_new_tokens": 0, "no_repeat_ngram": 0}
        for name, low in least.items():
            if getattr(self, name) < low:
                raise UsageError(f"{name}: {getattr(self, name)} is below its least value, {low}")
        if not 0.0 <= self.length_penalty <= MOST_PENALTY:
            raise UsageError(
                f"length_penalty: {self.length_penalty:g} is out of range; it must be from 0 to "
                f"{MOST_PENALTY:g}"
            )
        if not self.patience > 0:
            raise UsageError(f"patience: {self.patience:g} is out of range; it must be above 0")
        if self.length_normalization not in NORMALIZATIONS:
            raise UsageError(
                f"length_normalization: unknown value {self.length_normalization!r}"
                f"{choices_hint(self.length_normalization, NORMALIZATIONS)}"
            )

    def score(self, logprob: float, length: int) -> float:
        """What hypotheses of ``length`` tokens are compared by."""
        units = (5 + length) / 6 if self.length_normalization == "wu" else max(1, length)
        penalty: float = units**self.length_penalty
        return logprob / penalty


@dataclass(frozen=True)
class Hypothesis:
    """``tokens`` without the end; ``logprob``: nats, with the end; ``score``: after the length
    penalty; ``finished``: it ended by its end token rather than its length; ``logprobs``: of each
    token, then of the end if there is one."""

    tokens: tuple[int, ...]
    logprob: float
    score: float
    finished: bool
    logprobs: tuple[float, ...] = ()


def beam_search(
    stepper: AnyStepper,
    tokens: Tensor,
    state: DecoderState,
    options: BeamOptions,
    prefix: Tensor | None = None,
) -> list[list[Hypothesis]]:
    """tokens: (S,), the last (or first) token of each source, not yet in ``state`` of S rows;
    prefix: (S, P), with what every hypothesis of a source begins, counted as part of it but not by
    the limits of its length. Returns at most ``beam_size`` hypotheses for each source, best first.

    A hypothesis that ends is kept while its beam goes on with the others, until there are so many
    (``patience``) or none alive can become better than the kept ones; a source that is over leaves
    the batch. A beam of one is greedy. Raises DataError when the model's probabilities are no
    numbers.
    """
    found = search(stepper, tokens, state, options, prefix)
    return [hypotheses[: options.beam_size] for hypotheses in found]


def search(
    stepper: AnyStepper,
    tokens: Tensor,
    state: DecoderState,
    options: BeamOptions,
    prefix: Tensor | None = None,
) -> list[list[Hypothesis]]:
    """As ``beam_search``, with all hypotheses that the search saw the end of."""
    K, end = options.beam_size, options.end_id
    done: list[list[Hypothesis]] = [[] for _ in tokens]
    live = list(range(len(tokens)))  # the sources that are searched on
    with torch.inference_mode():
        if prefix is None:
            prefix = tokens.new_empty(len(tokens), 0)
        tokens, state, given = read_prefix(stepper, tokens, state, prefix)
        beam = _Beam(prefix, torch.nn.functional.pad(given, (1, 0)).cumsum(1))
        longest = prefix.shape[1] + options.max_new_tokens
        for count in range(1, options.max_new_tokens + 1):
            logits, state = stepper.step(tokens, state)
            taken = _candidates(logits, beam, options, count, len(live))
            ends = taken.tokens == end if end is not None else taken.tokens < 0
            # An end counts only among the best K, where a token that is no end would go on.
            counted = ends[:, :K] & (taken.sums[:, :K] > NEVER)
            for source, rank in counted.nonzero().tolist():
                done[live[source]].append(beam.hypothesis(taken, source, rank, options, True))
            if bool(taken.sums[:, 0].isnan().any()):
                raise DataError(
                    "the model's probabilities are not numbers; its weights are damaged"
                )
            taken = taken.without(ends, K)
            best = taken.sums[:, 0].tolist()
            if count == options.max_new_tokens:
                for source, rank in (taken.sums > NEVER).nonzero().tolist():
                    done[live[source]].append(beam.hypothesis(taken, source, rank, options, False))
                break
            going_on = [
                k for k, number in enumerate(live)
                if not _is_over(done[number], best[k], longest, options)
            ]  # fmt: skip
            if not going_on:
                break
            sources = None
            if len(going_on) < len(live):
                live = [live[k] for k in going_on]
                sources = torch.tensor(going_on, device=tokens.device)
                taken = taken.of(sources)
            rows, tokens = taken.rows.flatten(), taken.tokens.flatten()
            if K > 1 or sources is not None:
                state = state.regroup(rows, sources)
            beam = beam.grown(taken)
    if not options.max_new_tokens:
        return [[beam.whole(row, options)] for row in live]
    return [sorted(hypotheses, key=lambda h: -h.score) for hypotheses in done]


def _is_over(
    done: Sequence[Hypothesis], best_alive: float, longest: int, options: BeamOptions
) -> bool:
    """Whether enough have ended, or nothing alive, at best ``best_alive`` now, can enter the
    ``beam_size`` best."""
    if best_alive == NEVER:
        return True
    size = options.beam_size
    if len(done) >= (1 if size == 1 else options.patience * size):  # greedy: the end came first
        return True
    if len(done) < size:
        return False
    worst = sorted(h.score for h in done)[-size]
    # Log-probabilities only fall; the penalty divides the least at the greatest length.
    return options.score(best_alive, longest) <= worst


@dataclass(frozen=True)
class _Taken:
    """Candidates of each source, best first: (S, C) each. ``rows``: of the beam, what they go on
    from; ``sums``: log-probabilities of all their tokens, NEVER for what is no candidate."""

    rows: Tensor
    tokens: Tensor
    sums: Tensor

    def without(self, ends: Tensor, most: int) -> _Taken:
        """The first ``most`` that are no ``ends``; where there are fewer, ends fill the place, with
        NEVER. ends: (S, C) bool."""
        if ends.shape[1] == 1:
            return _Taken(self.rows, self.tokens, self.sums.masked_fill(ends, NEVER))
        order = ends.byte().argsort(dim=1, stable=True)[:, :most]
        sums = self.sums.masked_fill(ends, NEVER).gather(1, order)
        return _Taken(self.rows.gather(1, order), self.tokens.gather(1, order), sums)

    def of(self, sources: Tensor) -> _Taken:
        return _Taken(self.rows[sources], self.tokens[sources], self.sums[sources])


@dataclass(frozen=True)
class _Beam:
    """The hypotheses alive, those of a source side by side. ``tokens``: (B, t) so far; ``sums``:
    (B, t + 1) float64, the log-probability of the first 0, 1, ... of them."""

    tokens: Tensor
    sums: Tensor

    def grown(self, taken: _Taken) -> _Beam:
        rows = taken.rows.flatten()
        return _Beam(
            torch.cat([self.tokens[rows], taken.tokens.view(-1, 1)], 1),
            torch.cat([self.sums[rows], taken.sums.view(-1, 1)], 1),
        )

    def hypothesis(
        self, taken: _Taken, source: int, rank: int, options: BeamOptions, ended: bool
    ) -> Hypothesis:
        """A candidate as it is, after its last token."""
        row = int(taken.rows[source, rank])
        tokens, sums = self.tokens[row].tolist(), self.sums[row].tolist()
        if not ended:
            tokens.append(int(taken.tokens[source, rank]))
        return _hypothesis(tokens, [*sums, float(taken.sums[source, rank])], options, ended)

    def whole(self, row: int, options: BeamOptions) -> Hypothesis:
        return _hypothesis(self.tokens[row].tolist(), self.sums[row].tolist(), options, False)


def _hypothesis(
    tokens: Sequence[int], sums: Sequence[float], options: BeamOptions, ended: bool
) -> Hypothesis:
    logprobs = tuple(b - a for a, b in pairwise(sums))
    score = options.score(sums[-1], len(logprobs))
    return Hypothesis(tuple(tokens), sums[-1], score, ended, logprobs)


def _candidates(
    logits: Tensor, beam: _Beam, options: BeamOptions, count: int, sources: int
) -> _Taken:
    """The best continuations of each source, twice as many as its beam is wide, so that as many as
    it is wide go on though all others end; one for a beam of one, which ends with its first end.
    logits: (S * W, V)."""
    K, W = options.beam_size, len(logits) // sources
    log_p = _allowed(torch.log_softmax(logits, 1), beam.tokens, options, count)
    first = torch.arange(0, len(logits), W, device=logits.device).unsqueeze(1)
    if K == 1:
        best, tokens = log_p.max(1, keepdim=True)
        return _Taken(first, tokens, beam.sums[:, -1:] + best)
    # The best of a source are among the best of each of its rows.
    width = min(2 * K, log_p.shape[1])
    best, tokens = log_p.topk(width, 1)
    sums = (beam.sums[:, -1:] + best).view(sources, -1)
    found, places = sums.topk(min(2 * K, W * width), 1)
    tokens = tokens.view(sources, -1).gather(1, places)
    return _Taken(first + places // width, tokens, found)


def _allowed(logits: Tensor, history: Tensor, options: BeamOptions, count: int) -> Tensor:
    """``logits`` (B, V) without the tokens that may not be the ``count``-th new one."""
    never = list(options.forbidden)
    early = options.end_id is not None and count <= options.min_new_tokens
    if options.end_id is not None and early:
        never.append(options.end_id)
    allowed = logits
    if never:
        allowed = forbid(logits, torch.tensor(never, device=logits.device))
    if options.no_repeat_ngram:
        allowed = forbid_repeats(allowed, history, options.no_repeat_ngram)
        if options.end_id is not None and early:
            ends = torch.tensor([options.end_id], device=logits.device)
            allowed = allow_where_stuck(allowed, ends, logits)
    return allowed

"""Beam search: the most probable continuations of several sources at once."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from rnncli.decoding.protocol import AnyStepper, DecoderState
from rnncli.errors import UsageError

NEVER = -math.inf


@dataclass(frozen=True)
class BeamOptions:
    """``end_id`` ends a hypothesis (None: only its length does) once it has ``min_new_tokens``
    before it; ``max_new_tokens`` counts the end. ``length_penalty`` is the exponent alpha of Wu et
    al. (2016, sec. 7): scores are divided by ((5 + length) / 6) ** alpha; 0 compares
    log-probabilities as they are. ``forbidden`` tokens are never taken. Raises UsageError for a
    value out of range."""

    beam_size: int
    max_new_tokens: int
    min_new_tokens: int = 0
    end_id: int | None = None
    length_penalty: float = 0.0
    forbidden: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        for name, low in (("beam_size", 1), ("max_new_tokens", 0), ("min_new_tokens", 0)):
            if getattr(self, name) < low:
                raise UsageError(f"{name}: {getattr(self, name)} is below its least value, {low}")
        if not 0.0 <= self.length_penalty < math.inf:
            raise UsageError(
                f"length_penalty: {self.length_penalty:g} is out of range; it must be at least 0"
            )

    def score(self, logprob: float, length: int) -> float:
        """What hypotheses of ``length`` tokens are compared by."""
        penalty: float = ((5 + length) / 6) ** self.length_penalty
        return logprob / penalty


@dataclass(frozen=True)
class Hypothesis:
    """``tokens`` without the end; ``logprob``: nats, with the end; ``score``: after the length
    penalty; ``finished``: it ended by its end token rather than its length."""

    tokens: tuple[int, ...]
    logprob: float
    score: float
    finished: bool


class _Source:
    """The hypotheses of one source. Those alive are in the order of the beam's rows."""

    def __init__(self, options: BeamOptions) -> None:
        self.options = options
        self.alive: list[tuple[int, ...]] = [()] * options.beam_size
        self.done: list[Hypothesis] = []

    def finish(self, tokens: tuple[int, ...], logprob: float, *, ended: bool) -> None:
        score = self.options.score(logprob, len(tokens) + ended)
        self.done.append(Hypothesis(tokens, logprob, score, ended))

    def advance(
        self, rows: Sequence[int], tokens: Sequence[int], logprobs: Sequence[float]
    ) -> tuple[list[int], list[int], list[float]]:
        """Take the candidates, best first: which of the rows go on, with what token, and their
        log-probabilities; as many as the beam is wide, filled up with impossible ones.

        An end counts only among the best ``beam_size``, where a token that is no end would go on.
        """
        options = self.options
        kept: list[tuple[int, int, float]] = []
        for rank, (row, token, logprob) in enumerate(zip(rows, tokens, logprobs, strict=True)):
            if logprob == NEVER or len(kept) == options.beam_size:
                break
            if token != options.end_id:
                kept.append((row, token, logprob))
            elif rank < options.beam_size:
                self.finish(self.alive[row], logprob, ended=True)
        self.alive = [(*self.alive[row], token) for row, token, _ in kept]
        fill = options.beam_size - len(kept)
        self.alive += [()] * fill
        kept += [(0, 0, NEVER)] * fill
        next_rows, next_tokens, next_logprobs = zip(*kept, strict=True)
        return list(next_rows), list(next_tokens), list(next_logprobs)

    def is_over(self, best_alive: float) -> bool:
        """Whether nothing alive, at best ``best_alive`` now, can enter the ``beam_size`` best."""
        if best_alive == NEVER:
            return True
        size = self.options.beam_size
        if len(self.done) < size:
            return False
        if size == 1:  # greedy: the end came first
            return True
        worst = sorted(h.score for h in self.done)[-size]
        # Log-probabilities only fall; the penalty divides the least at the greatest length.
        return self.options.score(best_alive, self.options.max_new_tokens) <= worst

    def best(self) -> list[Hypothesis]:
        return sorted(self.done, key=lambda h: -h.score)[: self.options.beam_size]


def beam_search(
    stepper: AnyStepper, tokens: Tensor, state: DecoderState, options: BeamOptions
) -> list[list[Hypothesis]]:
    """tokens: (S,), the last (or first) token of each source, not yet in ``state`` of S rows.
    Returns at most ``beam_size`` hypotheses for each source, best first.

    A hypothesis that ends is kept while its beam goes on with the others, until none alive can
    become better than the kept ones; a source that is over leaves the batch.
    """
    if options.max_new_tokens == 0:
        return [[Hypothesis((), 0.0, 0.0, False)] for _ in tokens]
    K, device = options.beam_size, tokens.device
    sources = [_Source(options) for _ in range(len(tokens))]
    live = list(sources)
    with torch.inference_mode():
        each = torch.arange(len(tokens), device=device).repeat_interleave(K)
        tokens, state = tokens[each], state.select(each)
        # All rows of a source are alike before the first step: only the first may be taken.
        sums = torch.full((len(sources), K), NEVER, dtype=torch.float64, device=device)
        sums[:, 0] = 0.0
        for count in range(1, options.max_new_tokens + 1):
            logits, state = stepper.step(tokens, state)
            candidates = _candidates(logits, sums, options, count)
            chosen = [
                source.advance(*lists)
                for source, *lists in zip(live, *(c.tolist() for c in candidates), strict=True)
            ]
            if count == options.max_new_tokens:
                break
            going_on = [k for k, c in enumerate(chosen) if not live[k].is_over(max(c[2]))]
            if not going_on:
                return [source.best() for source in sources]
            rows = [k * K + row for k in going_on for row in chosen[k][0]]
            state = state.select(torch.tensor(rows, device=device))
            tokens = torch.tensor([t for k in going_on for t in chosen[k][1]], device=device)
            sums = torch.tensor(
                [chosen[k][2] for k in going_on], dtype=torch.float64, device=device
            )
            live = [live[k] for k in going_on]
    for source, (_, _, logprobs) in zip(live, chosen, strict=True):
        for words, logprob in zip(source.alive, logprobs, strict=True):
            if logprob > NEVER:
                source.finish(words, logprob, ended=False)
    return [source.best() for source in sources]


def _candidates(
    logits: Tensor, sums: Tensor, options: BeamOptions, count: int
) -> tuple[Tensor, Tensor, Tensor]:
    """The best continuations of each source, twice as many as its beam is wide, so that as many as
    it is wide go on though all others end. logits: (S * K, V), sums: (S, K) -> rows of the source,
    tokens, log-probabilities: (S, at most 2 K), best first."""
    S, K = sums.shape
    log_p = torch.log_softmax(logits.float(), 1)
    never = list(options.forbidden)
    if options.end_id is not None and count <= options.min_new_tokens:
        never.append(options.end_id)
    if never:
        log_p[:, never] = NEVER
    width = min(2 * K, log_p.shape[1])
    # The best of a source are among the best of each of its rows.
    best, tokens = log_p.topk(width, 1)
    total = (sums.unsqueeze(2) + best.view(S, K, width)).view(S, K * width)
    logprobs, places = total.topk(min(2 * K, K * width), 1)
    return places // width, tokens.view(S, K * width).gather(1, places), logprobs

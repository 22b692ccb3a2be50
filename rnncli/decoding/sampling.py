"""Sampling from a model, several rows at once, each with its own random numbers."""

from __future__ import annotations

import hashlib
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from rnncli.decoding.constraints import allow_where_stuck, forbid_repeats
from rnncli.decoding.filters import Filters, forbid
from rnncli.decoding.protocol import AnyStepper, DecoderState
from rnncli.decoding.stops import StopText
from rnncli.errors import DataError, UsageError
from rnncli.text.protocol import StreamDecoder

_AHEAD = 128


@dataclass(frozen=True)
class Limits:
    """When a row ends. ``stop``: strings; ``end_ids``: tokens, such as ``</s>``, that are not part
    of the text. Neither ends a row before ``min_new_tokens``: the tokens are not drawn, the strings
    pass. Raises UsageError for a value out of range."""

    max_new_tokens: int
    min_new_tokens: int = 0
    stop: tuple[str, ...] = ()
    end_ids: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if self.max_new_tokens < 0:
            raise UsageError(
                f"max_new_tokens: {self.max_new_tokens} is out of range; it must be at least 0"
            )
        if not 0 <= self.min_new_tokens <= self.max_new_tokens:
            raise UsageError(
                f"min_new_tokens: {self.min_new_tokens} is out of range; it must be from 0 to "
                f"max_new_tokens, {self.max_new_tokens}"
            )
        if "" in self.stop:
            raise UsageError("stop: an empty text would stop before the first token; leave it out")


@dataclass(frozen=True, slots=True)
class Piece:
    """Text that is certain now; the pieces of a row make up its ``Sample.text``."""

    row: int
    text: str


@dataclass(frozen=True)
class Sample:
    """A row that has ended. ``logprob``: nats of ``tokens`` (with an end token or a stop string)
    under the model itself, whatever the filters; ``logprobs``: of each of them.
    ``finish_reason``: "stop" or "length"."""

    row: int
    tokens: tuple[int, ...]
    text: str
    logprob: float
    finish_reason: str
    logprobs: tuple[float, ...] = ()


class Uniform:
    """Uniform numbers in [0, 1) for each of several rows, ``width`` at a time; those of row k
    depend on the seed and its name, else on the seed and k, alone."""

    def __init__(
        self, seed: int, rows: int, width: int = 1, names: Sequence[Hashable] | None = None
    ) -> None:
        self._size = (_AHEAD, width)
        seeds = [_row_seed(seed, name) for name in names or range(rows)]
        self._generators = [torch.Generator().manual_seed(one) for one in seeds]
        self._ahead: list[Tensor] = []

    def next(self, rows: Sequence[int]) -> Tensor:
        """The next numbers of each of ``rows``: (B, width) float64. The other rows' are passed
        over."""
        if not self._ahead:
            block = torch.stack(
                [
                    torch.rand(self._size, dtype=torch.float64, generator=generator)
                    for generator in self._generators
                ],
                dim=1,
            )
            # So far below 1 that the product with the total mass stays below the total.
            self._ahead = list(block.clamp_max_(1.0 - 2.0**-32).flip(0))
        numbers = self._ahead.pop()
        return numbers if len(rows) == len(numbers) else numbers[list(rows)]


def _row_seed(seed: int, row: Hashable) -> int:
    digest = hashlib.sha256(f"{seed} {row}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def draw(logits: Tensor, uniform: Tensor) -> Tensor:
    """One token a row by inverting the distribution function. logits: (B, V), -inf for what is
    never drawn; uniform: (B, 1) float64 in [0, 1) -> (B, 1) int64."""
    mass = torch.softmax(logits, 1).cumsum(1, dtype=torch.float64)
    return torch.searchsorted(mass, uniform.to(mass.device) * mass[:, -1:], right=True)


class _Row:
    """One row on its way: its tokens and its text so far."""

    def __init__(self, number: int, decoder: StreamDecoder, limits: Limits) -> None:
        self.number = number
        self.logprobs: list[float] = []
        self.finish_reason = ""
        self._tokens: list[int] = []
        self._text: list[str] = []
        self._decoder = decoder
        self._limits = limits
        self._stops = StopText(limits.stop)

    def push(self, token: int) -> str:
        """Take ``token``; the text that is certain now. Sets ``finish_reason`` at the end."""
        self._tokens.append(token)
        limits, count = self._limits, len(self._tokens)
        if token in limits.end_ids:
            self.finish_reason, text = "stop", self._rest()
        else:
            armed = count >= limits.min_new_tokens
            text, stopped = self._stops.push(self._decoder.push(token), armed)
            if stopped:
                self.finish_reason = "stop"
            elif count == limits.max_new_tokens:
                self.finish_reason, text = "length", text + self._rest()
        self._text.append(text)
        return text

    def _rest(self) -> str:
        """What the decoder and the stop strings still hold back."""
        text, _ = self._stops.push(self._decoder.finish())
        return text + self._stops.finish()

    def sample(self) -> Sample:
        text = "".join(self._text)
        return Sample(
            self.number, tuple(self._tokens), text, sum(self.logprobs), self.finish_reason,
            tuple(self.logprobs),
        )  # fmt: skip


def sample(
    stepper: AnyStepper,
    tokens: Tensor,
    state: DecoderState,
    *,
    decoders: Sequence[StreamDecoder],
    limits: Limits,
    filters: Filters,
    greedy: bool = False,
    seed: int = 0,
    names: Sequence[Hashable] | None = None,
    no_repeat_ngram: int = 0,
    history: Tensor | None = None,
) -> Iterator[Piece | Sample]:
    """Continue B rows. tokens: (B,), the last token of each row, not yet in ``state``;
    ``decoders``: one a row.

    ``greedy`` takes the most probable token at every step. Every step yields a Piece for each row
    that has new text, in order; after its last Piece a row's Sample, and the row leaves the batch.
    The random numbers of row k depend on ``seed`` and k alone, or on ``seed`` and the k-th of
    ``names``. With ``no_repeat_ngram`` no token is taken that would repeat an n-gram of so many
    tokens, those of ``history`` (B, t) before the row's own.
    """
    live = [_Row(k, decoder, limits) for k, decoder in enumerate(decoders)]
    uniform = None if greedy else Uniform(seed, len(live), names=names)
    ends = torch.tensor(limits.end_ids, dtype=torch.int64, device=tokens.device)
    seen = tokens.new_empty(len(live), 0) if history is None else history
    for count in range(1, limits.max_new_tokens + 1):
        with torch.inference_mode():
            logits, state = stepper.step(tokens, state)
            log_p = torch.log_softmax(logits, 1)
            early = limits.end_ids and count <= limits.min_new_tokens
            allowed = forbid(log_p, ends) if early else log_p
            if no_repeat_ngram:
                allowed = forbid_repeats(allowed, seen, no_repeat_ngram)
                allowed = allow_where_stuck(allowed, ends, log_p) if early else allowed
            allowed = filters(allowed)
            if uniform is None:
                column = allowed.argmax(1, keepdim=True)
            else:
                column = draw(allowed, uniform.next([row.number for row in live]))
            tokens = column.squeeze(1)
            chosen = tokens.tolist()
            if max(chosen) >= logits.shape[1]:
                raise DataError(
                    "the model's probabilities are not numbers; its weights are damaged"
                )
            logprobs = log_p.gather(1, column).tolist()
        for row, token, (logprob,) in zip(live, chosen, logprobs, strict=True):
            row.logprobs.append(logprob)
            if text := row.push(token):
                yield Piece(row.number, text)
            if row.finish_reason:
                yield row.sample()
        if no_repeat_ngram:
            seen = torch.cat([seen, column], 1)
        kept = [k for k, row in enumerate(live) if not row.finish_reason]
        if len(kept) < len(live):
            if not kept:
                return
            live = [live[k] for k in kept]
            with torch.inference_mode():
                index = torch.tensor(kept, device=tokens.device)
                tokens, state, seen = tokens[index], state.select(index), seen[index]
    for row in live:  # only when nothing was to be generated
        row.finish_reason = "length"
        yield row.sample()

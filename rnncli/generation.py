"""Text from language models: a prompt in, samples or the most probable line out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch

from rnncli.decoding.beam import BeamOptions, beam_search
from rnncli.decoding.ensemble import Ensemble, EnsembleState
from rnncli.decoding.filters import Filters
from rnncli.decoding.protocol import AnyStepper, DecoderState
from rnncli.decoding.sampling import Limits, Piece, Sample, sample
from rnncli.errors import UsageError
from rnncli.loading import Loaded
from rnncli.models.stepper import prepare_stepper, read_prompt
from rnncli.runtime import prepare
from rnncli.text.protocol import StreamDecoder, Tokenizer

_CONTEXT = 16
"""Tokens of the prompt that the text's decoder sees: more than the bytes of any character."""


def settle_machine(device: str, threads: int, rows: int) -> torch.device:
    """Set torch for ``rows`` at a time and return the device. ``threads`` 0: one for one row, whose
    small products lose more by waiting for each other than they gain, else all cores."""
    runtime = prepare(device, "float32", threads or int(rows == 1))
    if rows == 1:
        torch.set_float32_matmul_precision("highest")  # oneDNN is slower for single rows
    return runtime.device


def encode_prompt(tokenizer: Tokenizer, prompt: str) -> list[int]:
    """The prompt's tokens after the boundary that stands before every text."""
    return [tokenizer.boundary_id, *map(int, tokenizer.encode_text(prompt))]


def count_unseen(tokenizer: Tokenizer, tokens: Sequence[int]) -> int:
    """How many of ``tokens`` stand for what the training text did not have."""
    return sum(token == tokenizer.unk_id for token in tokens)


def generate(
    models: Sequence[Loaded],
    prompt: Sequence[int],
    *,
    rows: int,
    limits: Limits,
    filters: Filters,
    greedy: bool,
    seed: int,
    precision: str,
) -> Iterator[Piece | Sample]:
    """Continue ``prompt`` (``encode_prompt``) in ``rows`` ways; several models are an ensemble,
    the mean of their probabilities.

    ``precision`` is that of the weights (``rnncli.models.packed``). Raises UsageError when the
    models have different vocabularies, or this machine no products in that precision.
    """
    stepper, state = _ready(models, prompt, precision)
    device = models[0].model.embedding.weight.device
    first = torch.zeros(rows, dtype=torch.int64, device=device)
    decoders = [_decoder_after(models[0].tokenizer, prompt) for _ in range(rows)]
    return sample(
        stepper, first + prompt[-1], state.select(first),
        decoders=decoders, limits=limits, filters=filters, greedy=greedy, seed=seed,
    )  # fmt: skip


def complete(
    models: Sequence[Loaded],
    prompt: Sequence[int],
    *,
    rows: int,
    options: BeamOptions,
    precision: str,
) -> Iterator[Piece | Sample]:
    """The ``rows`` most probable continuations of ``prompt`` that beam search finds, best first, as
    the events of ``generate``; raises UsageError as it does."""
    stepper, state = _ready(models, prompt, precision)
    device = models[0].model.embedding.weight.device
    first = torch.tensor(prompt[-1:], dtype=torch.int64, device=device)
    (found,) = beam_search(stepper, first, state, options)
    for row, hypothesis in enumerate(found[:rows]):
        decoder = _decoder_after(models[0].tokenizer, prompt)
        text = "".join(map(decoder.push, hypothesis.tokens)) + decoder.finish()
        reason = "stop" if hypothesis.finished else "length"
        yield Piece(row, text)
        yield Sample(row, hypothesis.tokens, text, hypothesis.logprob, reason)


def _ready(
    models: Sequence[Loaded], prompt: Sequence[int], precision: str
) -> tuple[AnyStepper, DecoderState]:
    """The models as one stepper, and its state before the last token of ``prompt``: one row."""
    for other in models[1:]:
        if other.tokenizer.fingerprint != models[0].tokenizer.fingerprint:
            raise UsageError(
                f"{other.path} and {models[0].path} have different vocabularies; models of an "
                "ensemble must be trained with the same tokenizer"
            )
    states = [read_prompt(loaded.model, prompt) for loaded in models]
    steppers = [prepare_stepper(loaded.model, precision) for loaded in models]
    if len(models) == 1:
        return steppers[0], states[0]
    return Ensemble(steppers, mixed=True), EnsembleState(tuple(states))


def _decoder_after(tokenizer: Tokenizer, prompt: Sequence[int]) -> StreamDecoder:
    """A decoder that knows what its text follows: whether a space comes first, for one."""
    decoder = tokenizer.decoder()
    for token in prompt[1:][-_CONTEXT:]:
        decoder.push(token)
    return decoder

"""Text from language models: a prompt in, samples or the most probable line out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch

from rnncli.decoding.ensemble import Ensemble, EnsembleState
from rnncli.decoding.filters import Filters
from rnncli.decoding.protocol import AnyStepper, DecoderState
from rnncli.decoding.sampling import Limits, Piece, Sample, sample
from rnncli.errors import UsageError
from rnncli.loading import Loaded
from rnncli.models.stepper import read_prompt
from rnncli.text.protocol import StreamDecoder, Tokenizer


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
) -> Iterator[Piece | Sample]:
    """Continue ``prompt`` (``encode_prompt``) in ``rows`` ways; several models are an ensemble.

    Raises UsageError when the models have different vocabularies.
    """
    stepper, state = _ready(models, prompt)
    device = models[0].model.embedding.weight.device
    first = torch.zeros(rows, dtype=torch.int64, device=device)
    decoders = [_decoder_after(models[0].tokenizer, prompt) for _ in range(rows)]
    return sample(
        stepper, first + prompt[-1], state.select(first),
        decoders=decoders, limits=limits, filters=filters, greedy=greedy, seed=seed,
    )  # fmt: skip


def _ready(models: Sequence[Loaded], prompt: Sequence[int]) -> tuple[AnyStepper, DecoderState]:
    """The models as one stepper, and its state before the last token of ``prompt``: one row."""
    for other in models[1:]:
        if other.tokenizer.fingerprint != models[0].tokenizer.fingerprint:
            raise UsageError(
                f"{other.path} and {models[0].path} have different vocabularies; models of an "
                "ensemble must be trained with the same tokenizer"
            )
    states = [read_prompt(loaded.model, prompt) for loaded in models]
    if len(models) == 1:
        return models[0].model, states[0]
    return Ensemble([loaded.model for loaded in models]), EnsembleState(tuple(states))


def _decoder_after(tokenizer: Tokenizer, prompt: Sequence[int]) -> StreamDecoder:
    """A decoder that knows what its text follows: whether a space comes first, for one."""
    decoder = tokenizer.decoder()
    for token in prompt[1:]:
        decoder.push(token)
    return decoder

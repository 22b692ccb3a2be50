"""Minimum risk training: translations are drawn, and those that are worth more become more likely.

Shen et al. 2016, *Minimum Risk Training for Neural Machine Translation*, sec. 3: of a source x some
candidates S(x) are drawn from the model, the reference is added, and with

    Q(y | x) = P(y | x)^alpha / sum over y' in S(x) of P(y' | x)^alpha
    risk = sum over y in S(x) of Q(y | x) Delta(y)

the mean risk a source is made small. Delta is 1 - BLEU of the sentence, by sacreBLEU. The gradient
is that of risk / alpha, so that it does not vanish with alpha.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from rnncli.decoding.filters import Filters
from rnncli.decoding.sampling import Limits, Sample, sample
from rnncli.errors import DataError
from rnncli.evaluation.translation import sentence_bleu
from rnncli.models.encoder_decoder import EncoderDecoder
from rnncli.models.penalties import activation_penalty
from rnncli.models.prepared_decoder import prepare_decoder
from rnncli.nn.stack import Run
from rnncli.sections import RegularizationConfig, TrainingConfig
from rnncli.text.pairs import Line, target_batch
from rnncli.text.tokenizers import Tokenizer
from rnncli.training.task import Loss

Tokens = tuple[int, ...]


def risk_loss(
    model: EncoderDecoder,
    tokenizer: Tokenizer,
    source: Tensor,
    references: Sequence[Line],
    longest: int,
    training: TrainingConfig,
    rates: RegularizationConfig,
    run_as: Run,
    seed: int,
) -> Loss:
    """source: (S, B), ``references``: the tokens of its B targets; a drawn translation has
    ``longest`` tokens at most. ``nats`` are the references'."""
    count = training.risk_candidates
    try:
        drawn = draw_candidates(model, tokenizer, source, count, longest, seed)
    except DataError:  # no probabilities: the run is diverging, and the loop will say so
        return Loss(torch.zeros((), device=source.device), math.nan, 0, 1.0)
    rows, costs, counted = [], [], []
    for reference, some in zip(references, drawn, strict=True):
        of_one, its_costs, its_counted = _candidates(reference, some, tokenizer)
        rows += of_one
        costs.append(its_costs)
        counted.append(its_counted)
    arrays = target_batch([np.array(row, np.int64) for row in rows], tokenizer.boundary_id)
    inputs, targets, mask = (torch.from_numpy(array).to(source.device) for array in arrays)
    model.train()
    raw, h = model.readings(source, inputs, run_as, rates)
    with torch.no_grad():
        each = model.output.nats(h[mask], targets[mask], model.tied_weight)
        nats = h.new_zeros(mask.shape).masked_scatter_(mask, each.to(h.dtype)).sum(0)
        shape = (len(references), -1)
        weights = risk_gradient(
            nats.view(shape),
            torch.tensor(costs, dtype=h.dtype, device=source.device),
            torch.tensor(counted, device=source.device),
            training.risk_sharpness,
        )
        scale = (weights / len(references)).view(-1).expand(mask.shape)[mask]
    objective = model.output.loss(
        h[mask], targets[mask], scale.to(h.dtype), model.tied_weight, run_as.dtype
    )
    objective = objective + activation_penalty(raw, raw, mask, rates)
    tokens = int(mask.view(len(mask), *shape)[:, :, 0].sum())
    return Loss(objective, float(nats.view(shape)[:, 0].sum()) / max(1, tokens), tokens, 1.0)


def risk_gradient(nats: Tensor, costs: Tensor, counted: Tensor, sharpness: float) -> Tensor:
    """The derivatives of risk / alpha with respect to the candidates' negative log-likelihoods:
    -Q(y) (Delta(y) - risk). nats, costs (Delta) and counted (false: not in the set): (B, K) ->
    (B, K). ``sharpness``: alpha."""
    log_q = (-sharpness * nats).masked_fill(~counted, -torch.inf)
    q = torch.softmax(log_q, dim=1)
    risk = (q * costs).sum(1, keepdim=True)
    return -q * (costs - risk)


def draw_candidates(
    model: EncoderDecoder,
    tokenizer: Tokenizer,
    source: Tensor,
    count: int,
    longest: int,
    seed: int,
) -> list[list[Sample]]:
    """``count`` translations of each source, of ``longest`` tokens at most, drawn from the model
    without dropout. source: (S, B)."""
    model.eval()
    boundary = tokenizer.boundary_id
    rows = source.shape[1] * count
    stepper = prepare_decoder(model)
    with torch.inference_mode():
        state = stepper.start(source, source.shape[1])
        each = torch.arange(source.shape[1], device=source.device).repeat_interleave(count)
        state = state.regroup(each, None)
        first = torch.full((rows,), boundary, device=source.device)
    events = sample(
        stepper, first, state,
        decoders=[tokenizer.decoder() for _ in range(rows)],
        limits=Limits(longest, end_ids=(boundary,)), filters=Filters(), seed=seed,
    )  # fmt: skip
    found = {event.row: event for event in events if isinstance(event, Sample)}
    ordered = [found[row] for row in range(rows)]
    return [ordered[k : k + count] for k in range(0, rows, count)]


def _candidates(
    reference: Line, drawn: Sequence[Sample], tokenizer: Tokenizer
) -> tuple[list[Tokens], list[float], list[bool]]:
    """The reference and what was drawn: tokens, costs, and whether each is in the set, which has
    nothing twice and nothing that was cut."""
    first = tuple(int(token) for token in reference)
    text = tokenizer.decode(first)
    rows, costs, counted, seen = [first], [0.0], [True], {first}
    for one in drawn:
        tokens = one.tokens[:-1]
        new = one.finish_reason == "stop" and tokens not in seen
        counted.append(new)
        rows.append(tokens if new else ())
        costs.append(1.0 - sentence_bleu(one.text, text) / 100 if new else 0.0)
        if new:
            seen.add(tokens)
    return rows, costs, counted

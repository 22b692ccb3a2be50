"""What an encoder-decoder is trained by: the likelihood of targets, and what holds it back."""

from __future__ import annotations

import torch
from torch import Tensor

from rnncli.models.encoder_decoder import EncoderDecoder
from rnncli.models.penalties import activation_penalty
from rnncli.nn.consistency import consistent_loss, passes_of
from rnncli.nn.softmax import SampledVocabulary
from rnncli.nn.stack import Run
from rnncli.sections import RegularizationConfig


def pair_loss(
    model: EncoderDecoder,
    source: Tensor,
    inputs: Tensor,
    targets: Tensor,
    mask: Tensor,
    run_as: Run,
    rates: RegularizationConfig,
    sampling: SampledVocabulary | None = None,
) -> tuple[Tensor, Tensor]:
    """source: (S, B); inputs, targets: (T, B), where ``inputs[t]`` is the token before
    ``targets[t]``; mask: (T, B), false for padding. Returns the mean nats a target token, and
    what penalties, label smoothing and R-Drop add to it for the gradient."""
    flat, tied, output = targets[mask], model.tied_weight, model.output
    if rates.r_drop:
        # The gradient of the nats is in ``loss``, too.
        raw, h = model.readings(source.repeat(1, 2), inputs.repeat(1, 2), run_as, rates)
        passes = passes_of(h, mask)
        loss, nats = consistent_loss(
            passes, output.matrix(tied), output.b, flat, rates.r_drop, run_as.dtype
        )
        extra, rows = loss - nats, passes.flatten(0, 1)
        flat, mask = flat.repeat(2), mask.repeat(1, 2)
    else:
        raw, h = model.readings(source, inputs, run_as, rates)
        rows = h[mask]
        scale = torch.full(flat.shape, 1.0 / max(1, len(flat)), device=flat.device)
        nats = output.loss(rows, flat, scale, tied, run_as.dtype, sampling)
        extra = nats.new_zeros(())
    extra = extra + activation_penalty(raw, raw, mask, rates)
    if rates.label_smoothing:
        extra = extra + rates.label_smoothing * output.smoothing(rows, flat, tied)
    return nats, extra

"""What a search must keep to beside the model: no repeated n-grams, and a given beginning."""

from __future__ import annotations

import torch
from torch import Tensor

from rnncli.decoding.filters import NEVER
from rnncli.decoding.protocol import AnyStepper, DecoderState


def forbid_repeats(logits: Tensor, history: Tensor, n: int) -> Tensor:
    """Leave out every token that would complete an n-gram that its row has already (Paulus et al.
    2018, sec. 2.5). logits: (B, V); history: (B, t), the tokens of each row so far."""
    if n < 1 or history.shape[1] < n:
        return logits
    grams = history.unfold(1, n, 1)  # (B, t - n + 1, n)
    last = history[:, history.shape[1] - n + 1 :]  # (B, n - 1)
    rows, places = (grams[:, :, :-1] == last.unsqueeze(1)).all(2).nonzero(as_tuple=True)
    if not len(rows):
        return logits
    logits = logits.clone()
    logits[rows, grams[rows, places, -1]] = NEVER
    return logits


def allow_where_stuck(logits: Tensor, ids: Tensor, before: Tensor) -> Tensor:
    """The rows of logits (B, V) in which no token is left get those of ``ids`` (N,) back, as they
    are in ``before`` (B, V): what can only end may end."""
    stuck = logits.amax(1, keepdim=True) == NEVER
    restored = logits.index_copy(1, ids, before.index_select(1, ids))
    return torch.where(stuck, restored, logits)


def read_prefix(
    stepper: AnyStepper, tokens: Tensor, state: DecoderState, prefix: Tensor
) -> tuple[Tensor, DecoderState, Tensor]:
    """Go along a given beginning. tokens: (B,), not yet in ``state``; prefix: (B, P) -> the last
    token of each row (B,), not yet in the state returned, and the log-probabilities of the prefix
    (B, P) float64."""
    found = [torch.empty(len(tokens), 0, dtype=torch.float64, device=tokens.device)]
    for column in prefix.t():
        logits, state = stepper.step(tokens, state)
        tokens = column
        found.append(torch.log_softmax(logits.double(), 1).gather(1, column.unsqueeze(1)))
    return tokens, state, torch.cat(found, 1)

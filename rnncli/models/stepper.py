"""A language model made ready to generate: the prompt in one pass, then one token at a time."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from rnncli.models.language_model import LanguageModel
from rnncli.nn.stack import Run
from rnncli.nn.state import State


def read_prompt(model: LanguageModel, prompt: Sequence[int]) -> State:
    """The state, one row, after all tokens of ``prompt`` (N,) but the last, which is for the first
    step. All time steps of a layer are one product."""
    device = model.embedding.weight.device
    state = model.start(None, 1)
    if len(prompt) > 1:
        with torch.inference_mode():
            inputs = torch.tensor(prompt[:-1], dtype=torch.int64, device=device).unsqueeze(1)
            _, state = model.hidden(inputs, state, Run())
    return state

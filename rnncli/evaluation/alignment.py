"""Where a translation looked: attention weights beside the pieces that they belong to.

The matrices of Bahdanau, Cho and Bengio 2015 (fig. 3), which are the soft alignment of the two
sentences.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from rnncli.errors import UsageError
from rnncli.loading import LoadedTranslator
from rnncli.text.pairs import source_batch
from rnncli.text.protocol import LINE_END
from rnncli.translation import Translated


@dataclass(frozen=True)
class Alignment:
    """``source`` and ``target``: S and T pieces in the order of the text, ``</s>`` for an end that
    was read or predicted. ``weights``: (T, S), how much each target piece looked at each source
    piece; a row's sum is 1."""

    source: tuple[str, ...]
    target: tuple[str, ...]
    weights: npt.NDArray[np.float64]


def require_attention(models: Sequence[LoadedTranslator]) -> None:
    """Raise UsageError for models of which none looks anywhere."""
    if not any(loaded.model.attends for loaded in models):
        raise UsageError(
            f"{models[0].path} has no attention, so there is no alignment to show; train a model "
            "with --attention general, for example"
        )


def align(models: Sequence[LoadedTranslator], line: str, found: Translated) -> Alignment:
    """Where ``found``, a translation of ``line``, looked: under several models, the mean of the
    weights of those that look anywhere. Raises UsageError as ``require_attention``."""
    require_attention(models)
    tokenizer, reverse = models[0].tokenizer, models[0].config.model.reverse_source
    reader = models[0].source_tokenizer or tokenizer
    boundary = tokenizer.boundary_id
    source = reader.encode(line)
    ends = [boundary] if found.finished else []
    target = [*found.tokens, *ends]
    read = np.array(source[::-1] if reverse else source, np.int64)
    device = models[0].model.source_embedding.weight.device
    x = torch.from_numpy(source_batch([read], reader.boundary_id)).to(device)
    y = torch.tensor([boundary, *target[:-1]], device=device).unsqueeze(1)
    with torch.inference_mode():
        looking = (loaded.model for loaded in models if loaded.model.attends)
        each = [model.attention_weights(x, y)[:, 0] for model in looking]
        weights = torch.stack(each).double().mean(0).cpu().numpy()
    if reverse:
        weights[:, : len(source)] = weights[:, : len(source)][:, ::-1].copy()
    return Alignment(
        (*reader.pieces(source), LINE_END),
        (*tokenizer.pieces(found.tokens), *(LINE_END for _ in ends)),
        weights,
    )

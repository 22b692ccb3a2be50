"""An encoder-decoder made ready to translate: the source in one pass, then one token at a time."""

from __future__ import annotations

import torch
from torch import Tensor

from rnncli.models.decoder_state import DecoderState
from rnncli.models.encoder_decoder import EncoderDecoder
from rnncli.models.packed import pack
from rnncli.models.prepared_stack import PreparedStack


class PreparedDecoder:
    """An encoder-decoder's step contract on weights laid out for it; its state is the model's."""

    def __init__(self, model: EncoderDecoder, precision: str) -> None:
        """Raises UsageError for a precision that this machine does not have."""
        self._model = model
        self._lower = PreparedStack(model.decoder, precision).step
        self._upper = None if model.upper is None else PreparedStack(model.upper, precision).step
        self._W_c = None if model.W_c is None else pack(model.W_c, None, precision)
        self._logits = pack(model.output.matrix(model.tied_weight), model.output.b, precision)

    def start(self, source: Tensor, rows: int) -> DecoderState:
        """source: (S, ``rows``) -> the state before the first target token."""
        return self._model.start(source, rows)

    def step(self, tokens: Tensor, state: DecoderState) -> tuple[Tensor, DecoderState]:
        """tokens: (B,) -> logits (B, V) and the next state."""
        model = self._model
        y = model.target_embedding(tokens).unsqueeze(0)
        h, context, after = model.decode_step(y, state, self._lower, self._upper)
        return self._logits(model.read_out(h, y, context, self._W_c)[0]), after


def prepare_decoder(model: EncoderDecoder, precision: str = "float32") -> PreparedDecoder:
    """``model`` for decoding. ``precision``: of the decoder's weights, one of
    ``rnncli.models.packed.PRECISIONS``; float32 gives the logits of ``model.step``. The weights are
    copied. Raises UsageError as ``pack`` does."""
    with torch.inference_mode():
        return PreparedDecoder(model, precision)

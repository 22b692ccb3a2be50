"""What an encoder-decoder remembers between two target tokens."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from rnncli.nn.state import State


@dataclass(frozen=True)
class DecoderState:
    """A decoder between two tokens. ``memory``: the annotations (N, S, M) of N sources and ``keys``
    what attention made of them (N, S, K), each with an equal share of the rows, beside each other;
    no more than a dimension of size 0 without attention."""

    layers: State
    memory: Tensor
    keys: Tensor

    def select(self, rows: Tensor) -> DecoderState:
        """The state of ``rows`` (int64, any length, repeats allowed), in that order."""
        sources = rows // (len(self.layers.layers[0][0]) // len(self.memory))
        return self.regroup(rows, sources)

    def regroup(self, rows: Tensor, sources: Tensor | None) -> DecoderState:
        """As ``rnncli.decoding.protocol.DecoderState``: annotations are kept once a source."""
        memory, keys = self.memory, self.keys
        if sources is not None:
            memory, keys = memory.index_select(0, sources), keys.index_select(0, sources)
        return DecoderState(self.layers.select(rows), memory, keys)

"""Input and output of models of music, where a time step is not one token but a set of keys.

A frame is a vector of K zeros and ones. Given the hidden state the keys of the next frame are
independent of each other (Boulanger-Lewandowski et al. 2012, sec. 2; Pascanu et al. 2013), or each
depends on those below it.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rnncli.nn.attention import fresh
from rnncli.nn.cells.base import Cell
from rnncli.nn.cells.initialization import fill_output
from rnncli.nn.dropout import embedding_row_scale
from rnncli.sections import ModelConfig


class KeyInput(nn.Module):
    """frames (..., K) -> what the first layer reads (..., E).

    ``embedding``: the sum of the vectors of the keys that sound, times ``embedding_scale``;
    ``one-hot``: the frame itself, E = K.
    """

    def __init__(self, config: ModelConfig, keys: int) -> None:
        super().__init__()
        self.scale = config.embedding_scale
        self.weight: nn.Parameter | None = None
        self.keys = keys
        self.size = keys
        if config.input == "embedding":
            self.size = config.embedding_size
            self.weight = nn.Parameter(torch.empty(keys, self.size))
            with torch.no_grad():
                if config.init == "normal":
                    self.weight.normal_(std=config.start_scale)
                else:
                    self.weight.uniform_(-config.start_scale, config.start_scale)

    def forward(self, frames: Tensor, key_dropout: float, dtype: torch.dtype) -> Tensor:
        """``key_dropout``: the rate at which keys are silenced, in all frames of the batch alike;
        ``dtype``: of the operands of the product."""
        if key_dropout:
            frames = frames * embedding_row_scale(self.keys, key_dropout, frames).squeeze(1)
        if self.weight is None:
            return frames
        vectors = Cell.linear(frames, self.weight.t(), None, dtype)
        return vectors if self.scale == 1.0 else vectors * self.scale


Choice = Callable[[slice, Tensor], Tensor]
"""``choice(keys, logits)``: whether each of these keys sounds, from its logit. (B, n) -> (B, n)."""

Walk = Generator[tuple[slice, Tensor], Tensor, None]
"""A frame being chosen: gives keys and their logits (B, n), and is sent whether they sound."""


def mean_logits(logits: Sequence[Tensor]) -> Tensor:
    """The logits of the mean of the chances that several have, all of one shape; of one alone its
    own."""
    if len(logits) == 1:
        return logits[0]
    z = torch.stack(tuple(logits))
    return torch.logsumexp(F.logsigmoid(z), 0) - torch.logsumexp(F.logsigmoid(-z), 0)


def draw(walks: Sequence[Walk], choice: Choice) -> tuple[Tensor, Tensor]:
    """One frame by several opinions: each key's chance is the mean of theirs. -> the frame (B, K)
    and the logits it was chosen by (B, K)."""
    chosen: list[Tensor] = []
    logits: list[Tensor] = []
    parts = [next(walk) for walk in walks]
    while parts:
        logits.append(mean_logits([z for _, z in parts]))
        chosen.append(choice(parts[0][0], logits[-1]))
        try:
            parts = [walk.send(chosen[-1]) for walk in walks]
        except StopIteration:
            parts = []
    return torch.cat(chosen, dim=1), torch.cat(logits, dim=1)


class KeyOutput(nn.Module):
    """The keys of a frame are independent of each other given h: logits = W_hy h + b, one a key,
    p(key) = sigmoid(logit). W_hy (K, H) may be the weight of the input.

    As every output of frames, it reads h once (``read``), tells the logit of each key given the
    keys below it (``logits``), and goes through the keys of a frame that is chosen (``walk``).
    """

    def __init__(self, config: ModelConfig, input_size: int, keys: int) -> None:
        super().__init__()
        self.b = nn.Parameter(torch.zeros(keys))
        self.W_hy: nn.Parameter | None = None
        if not config.tied:
            self.W_hy = nn.Parameter(torch.empty(keys, input_size))
            fill_output(self.W_hy, config)

    def start_from(self, counts: Tensor, frames: int) -> None:
        """Make the untrained layer predict how often each key sounds: in ``counts`` (K,) of so
        many frames."""
        smoothed = counts.to(torch.float64) + 0.1
        with torch.no_grad():
            self.b.copy_(torch.log(smoothed / (frames + 0.2 - smoothed)))

    def read(self, h: Tensor, tied: Tensor | None, dtype: torch.dtype) -> Tensor:
        """h: (..., H) -> what a frame follows from (..., R), in the weights' type."""
        weight = self.W_hy if self.W_hy is not None else tied
        assert weight is not None
        return Cell.linear(h, weight, self.b, dtype)

    def logits(self, read: Tensor, frames: Tensor) -> Tensor:
        """read: (..., R), frames: (..., K) -> the logit of each key, those below it being as in its
        frame: (..., K)."""
        return read

    def walk(self, read: Tensor) -> Walk:
        """read: (B, R) -> the keys of a frame for each row, from below, as far as each follows from
        those before."""
        yield slice(None), read


class NadeOutput(KeyOutput):
    """The keys of a frame one after the other, from the lowest: a neural autoregressive
    distribution estimator whose biases follow from h (RNN-NADE: Boulanger-Lewandowski et al. 2012,
    sec. 5.2; NADE: Larochelle and Murray 2011, eqs. 9 and 10).

    p(v_k | v_<k, h) = sigmoid(b_k(t) + V_k g_k), g_k = sigmoid(c(t) + sum over i < k of v_i W_i),
    b(t) = W_hy h + b, c(t) = W_hc h + c; V_k and W_i are rows of V and W (K, D).
    """

    def __init__(self, config: ModelConfig, input_size: int, keys: int) -> None:
        super().__init__(config, input_size, keys)
        D = config.nade_size
        self.c = nn.Parameter(torch.zeros(D))
        self.W_hc = fresh(D, input_size)
        self.W = nn.Parameter(torch.empty(keys, D).normal_(0.0, 0.1))
        self.V = nn.Parameter(torch.empty(keys, D).normal_(0.0, 0.1))

    def read(self, h: Tensor, tied: Tensor | None, dtype: torch.dtype) -> Tensor:
        c = Cell.linear(h, self.W_hc, self.c, dtype)
        return torch.cat([super().read(h, tied, dtype), c], dim=-1)

    def logits(self, read: Tensor, frames: Tensor) -> Tensor:
        """g changes with the keys that sound alone, so that it is computed once for each of them
        and before the first, not once for each key."""
        K = len(self.V)
        sounding = frames > 0
        below = sounding.cumsum(-1) - sounding.long()
        most = int(sounding.sum(-1).max()) if sounding.numel() else 0
        # Of each frame its keys from below, then K, which has no row of W.
        numbers = torch.arange(K, device=frames.device).expand_as(sounding)
        keys = numbers.masked_fill(~sounding, K).sort(-1).values[..., :most]
        rows = F.embedding(keys, torch.cat([self.W, self.W.new_zeros(1, self.W.shape[1])]))
        c = read[..., K:].unsqueeze(-2)
        g = torch.sigmoid(torch.cat([c, c + rows.cumsum(-2)], dim=-2))
        found = (g @ self.V.t()).gather(-2, below.unsqueeze(-2)).squeeze(-2)
        return read[..., :K] + found

    def walk(self, read: Tensor) -> Walk:
        K = len(self.V)
        a = read[:, K:]
        for k in range(K):
            key = slice(k, k + 1)
            sounds = yield key, read[:, key] + torch.sigmoid(a) @ self.V[key].t()
            a = a + sounds.to(a.dtype) * self.W[k]


def frame_nats(logits: Tensor, frames: Tensor) -> Tensor:
    """-log p of each frame: the sum of its keys' binary cross-entropies. logits, frames: (..., K)
    -> (...)."""
    return F.binary_cross_entropy_with_logits(logits, frames, reduction="none").sum(-1)

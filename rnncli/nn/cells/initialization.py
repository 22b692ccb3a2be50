"""How weights start."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from rnncli.sections import ModelConfig


def fill(weight: Tensor, config: ModelConfig, rows: int | None = None) -> None:
    """Fill a fresh weight: (G, I), (G, H) or a bias (G,). ``rows``: of a recurrent matrix those of
    each gate (``Cell.gate_rows``); None: it is none.

    ``config`` is that of the cell (``ModelConfig.cell_start``). ``init`` default: matrices with
    variance 1/I, recurrent ones orthogonal gate by gate (Saxe et al. 2014), biases 0. uniform:
    everything from U(-init_scale, init_scale). normal: matrices from N(0, init_scale^2), biases 0.
    For recurrent matrices ``recurrent_init`` may say something else, and ``spectral_radius``
    rescales each gate of them. A weight without storage, to be loaded, is left alone.
    """
    if weight.is_meta:
        return
    kind = "default" if rows is None else config.recurrent_init
    blocks = () if rows is None else torch.split(weight.data, rows)
    with torch.no_grad():
        if kind != "default":
            for block in blocks:
                _fill_recurrent(block, config)
        elif config.init == "uniform":
            nn.init.uniform_(weight, -config.start_scale, config.start_scale)
        elif weight.dim() == 1:
            nn.init.zeros_(weight)
        elif config.init == "normal":
            nn.init.normal_(weight, std=config.start_scale)
        elif blocks:
            for block in blocks:
                nn.init.orthogonal_(block)
        else:
            nn.init.normal_(weight, std=weight.shape[1] ** -0.5)
        if config.spectral_radius:
            for block in blocks:
                rescale(block, config.spectral_radius)


def fill_output(weight: Tensor, config: ModelConfig) -> None:
    """Fill the fresh matrix of an output layer (V, H): ``init`` default is U(-1, 1) / sqrt(H),
    uniform and normal as in ``fill``."""
    with torch.no_grad():
        if config.init == "normal":
            weight.normal_(std=config.start_scale)
        else:
            bound = config.start_scale if config.init == "uniform" else weight.shape[1] ** -0.5
            weight.uniform_(-bound, bound)


def remember(bias: Tensor, gate: int, size: int, config: ModelConfig) -> None:
    """Start a forget gate, number ``gate`` of those of ``size`` units in ``bias`` (G,), at
    ``forget_bias``: remember by default (Jozefowicz et al. 2015, sec. 2.2). ``init`` uniform draws
    it like everything, unless it is given."""
    if config.forget_start is not None:
        bias.data[gate * size : (gate + 1) * size] = config.forget_start


def _fill_recurrent(block: Tensor, config: ModelConfig) -> None:
    """block: (H, H), or (G, H) where it is not square."""
    scale = config.recurrent_scale
    if config.recurrent_init == "identity":  # Le et al. 2015
        nn.init.eye_(block)
        block.mul_(scale)
    elif config.recurrent_init == "orthogonal":
        nn.init.orthogonal_(block, gain=scale)
    elif config.recurrent_init == "uniform":
        nn.init.uniform_(block, -scale, scale)
    elif config.recurrent_init == "normal":
        nn.init.normal_(block, std=scale)
    else:  # sparse: so many inputs a unit (Martens 2010), largest singular value recurrent_scale
        rows, columns = block.shape
        kept = min(config.recurrent_connections, columns)
        chosen = torch.rand(rows, columns, device=block.device).topk(kept, dim=1).indices
        block.zero_().scatter_(1, chosen, torch.randn(rows, kept, device=block.device).to(block))
        block.mul_(scale / torch.linalg.matrix_norm(block.float(), 2).clamp_min(1e-12).to(block))


def rescale(block: Tensor, radius: float) -> None:
    """Multiply a square matrix so that its largest absolute eigenvalue is ``radius``; another shape
    so that its largest singular value is."""
    if block.shape[0] == block.shape[1]:
        largest = torch.linalg.eigvals(block.float()).abs().max()
    else:
        largest = torch.linalg.matrix_norm(block.float(), 2)
    block.mul_((radius / largest.clamp_min(1e-12)).to(block))

"""How a small change of the state, or an error on its way back, grows from step to step.

The state s(t) of a cell (h, or h and c) depends on s(k) through the product of the Jacobians of the
steps between, ds(t)/ds(k) = J(t) J(t-1) ... J(k+1) (Pascanu et al. 2013, eq. 5). Its spectral norm
says by how much an error can grow or shrink at most on its way from t to k; it is at most the
product of the norms of its factors, and for h(t) = f(W_hh h(t-1) + ...) at most (gamma sigma)^(t-k)
with sigma the largest singular value of W_hh and gamma the largest slope of f (their eq. 6).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from rnncli.nn.cells.base import Cell
from rnncli.nn.cells.elman import Elman
from rnncli.nn.recurrence.trace import Trace

EXACT_SIZE = 128
"""Jacobians of states of so many numbers are formed whole; those of larger ones are only applied to
vectors, and their norms found by power iteration, from below."""

ITERATIONS = 30
TOLERANCE = 1e-4

SLOPES = {"tanh": 1.0, "sigmoid": 0.25, "relu": 1.0}
"""The largest derivative of each nonlinearity."""


class Steps:
    """``cell.step`` at N places, each a linear map of small changes of the state (N, S), S being
    the size of all of its parts side by side."""

    def __init__(self, cell: Cell, projected: Tensor, before: Sequence[Tensor]) -> None:
        """projected: (N, G); before: the parts of the state, (N, H) each."""
        weights = {name: weight.detach() for name, weight in cell.step_weights().items()}
        self._before = tuple(part.detach().clone().requires_grad_() for part in before)
        with torch.enable_grad():
            after = cell.step(
                projected.detach(), self._before, lambda name, v: F.linear(v, weights[name])
            )
            self._after = torch.cat(after, 1)
            # back(u) is linear in u; its derivative by u is the map forward.
            self._u = torch.zeros_like(self._after, requires_grad=True)
            self._back = self._gradient(self._u, create_graph=True)

    def _gradient(self, u: Tensor, *, create_graph: bool = False) -> Tensor:
        found = torch.autograd.grad(
            self._after, self._before, u, retain_graph=True, create_graph=create_graph,
            allow_unused=True,
        )  # fmt: skip
        parts = zip(found, self._before, strict=True)
        return torch.cat([torch.zeros_like(s) if d is None else d for d, s in parts], 1)

    def back(self, u: Tensor) -> Tensor:
        """u: (N, S) -> J^T u, an error one step earlier."""
        return self._gradient(u)

    def forth(self, v: Tensor) -> Tensor:
        """v: (N, S) -> J v, a change one step later."""
        (found,) = torch.autograd.grad(self._back, self._u, v, retain_graph=True)
        return found

    def matrices(self) -> Tensor:
        """J itself: (N, S, S), row i the derivatives of element i of the later state."""
        rows = []
        for i in range(self._after.shape[1]):
            u = torch.zeros_like(self._after)
            u[:, i] = 1.0
            rows.append(self.back(u))
        return torch.stack(rows, 1)


def is_exact(cell: Cell) -> bool:
    """Whether the Jacobians of ``cell`` are formed whole."""
    return sum(cell.state_sizes) <= EXACT_SIZE


def product_norms(trace: Trace, column: int, lags: Sequence[int]) -> tuple[Tensor, Tensor]:
    """For sequence ``column`` of the trace's batch, with T its last step: the spectral norms of
    ds(T)/ds(T - lag) for each of ``lags`` (each from 0 to T), and those of J(1) ... J(T)."""
    projected = trace.projected[:, column]
    before = [
        torch.stack([part[column] for part in parts]).detach()
        for parts in zip(*trace.states[:-1], strict=True)
    ]
    steps = Steps(trace.cell, projected, before)
    if is_exact(trace.cell):
        J = steps.matrices()
        return _exact(J, lags), _largest(J)
    return _iterated(trace.cell, projected, before, lags), _iterated_steps(steps, before)


def _exact(J: Tensor, lags: Sequence[int]) -> Tensor:
    """J: (T, S, S)."""
    norms = {0: J.new_ones(())}
    P = torch.eye(J.shape[1], dtype=J.dtype, device=J.device)
    for lag in range(1, max(lags, default=0) + 1):
        P = P @ J[len(J) - lag]
        if lag in lags:
            norms[lag] = _largest(P.unsqueeze(0))[0]
    return torch.stack([norms[lag] for lag in lags])


def _largest(matrices: Tensor) -> Tensor:
    """(N, S, S) -> the largest singular value of each, inf where a number has overflowed; of the
    smaller product M^T M, scaled against underflow, since only that one is wanted."""
    finite = matrices.isfinite().all((1, 2))
    matrices = torch.where(finite[:, None, None], matrices, 0.0)
    scale = matrices.abs().amax((1, 2)).clamp_min(torch.finfo(matrices.dtype).tiny)
    M = matrices / scale[:, None, None]
    squares: Tensor = torch.linalg.eigvalsh(M.mT @ M)[:, -1]
    return torch.where(finite, squares.clamp_min(0).sqrt() * scale, math.inf)


def _iterated(
    cell: Cell, projected: Tensor, before: Sequence[Tensor], lags: Sequence[int]
) -> Tensor:
    """Power iteration for all lags at once, a row each. projected: (T, G), before: (T, H) each."""
    T = len(projected)
    order = sorted(range(len(lags)), key=lambda k: -lags[k])
    wanted = [lags[k] for k in order]  # the longest first: rows 0 to n - 1 take part in a step
    maps: list[tuple[int, Steps]] = []
    for t in range(T - max(wanted, default=0), T):
        n = sum(lag >= T - t for lag in wanted)
        places = [part[t].expand(n, -1) for part in before]
        maps.append((n, Steps(cell, projected[t].expand(n, -1), places)))

    def forth(v: Tensor) -> Tensor:
        v = v.clone()
        for n, step in maps:
            v[:n] = step.forth(v[:n])
        return v

    def back(u: Tensor) -> Tensor:
        u = u.clone()
        for n, step in reversed(maps):
            u[:n] = step.back(u[:n])
        return u

    size = sum(part.shape[1] for part in before)
    found = _power(forth, back, before[0].new_empty(len(lags), size))
    norms = torch.empty_like(found)
    norms[order] = found
    return norms


def _iterated_steps(steps: Steps, before: Sequence[Tensor]) -> Tensor:
    like = torch.empty_like(torch.cat(list(before), 1))
    return _power(steps.forth, steps.back, like)


def _power(
    forth: Callable[[Tensor], Tensor], back: Callable[[Tensor], Tensor], like: Tensor
) -> Tensor:
    """The norms (N,) of N maps of vectors ``like`` (N, S)."""
    generator = torch.Generator().manual_seed(0)
    v = torch.randn(like.shape, generator=generator, dtype=torch.float64).to(like)
    tiny = torch.finfo(like.dtype).tiny
    norms = like.new_zeros(len(like))
    for _ in range(ITERATIONS):
        v = v / v.norm(dim=1, keepdim=True).clamp_min(tiny)
        u = forth(v)
        v = back(u / u.norm(dim=1, keepdim=True).clamp_min(tiny))
        earlier, norms = norms, v.norm(dim=1)
        if bool(((norms - earlier).abs() <= TOLERANCE * norms).all()):
            break
    return norms


def weight_bound(cell: Cell) -> float | None:
    """gamma sigma of a simple recurrent network: what bounds the norm of each J. None for cells of
    which W_hh alone does not bound it."""
    if type(cell) is not Elman:
        return None
    sigma = float(torch.linalg.matrix_norm(cell.W_hh.detach(), 2))
    return SLOPES[cell.nonlinearity] * sigma


def step_bounds(step_norms: Tensor, lags: Sequence[int]) -> Tensor:
    """step_norms: (T,) of J(1) ... J(T) -> the products of the last ``lag`` of them."""
    ones = step_norms.new_ones(1)
    products = torch.cat([ones, step_norms.flip(0).cumprod(0)])
    return products[torch.tensor(list(lags))]

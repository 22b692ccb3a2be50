"""Recurrent products whose weight gradients wait for the last step.

Autograd's plain loop forms dL/dW_hh at every step: T small products and T additions into a large
matrix. The textbook writes it as a sum over t; here that sum is one product. Each step's product
returns only the gradient of its vector and keeps the pair (vector, gradient of the result). A
single node made from the weight before the first step, whose empty token every step takes as an
argument, is run by autograd after all of them, and forms dL/dW = sum over t of g(t) v(t)^T at once.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from rnncli.nn.recurrence.products import RepeatedProduct


class _Pairs:
    """The vectors (B, H) and gradients (B, G) that the steps left, latest step first."""

    def __init__(self) -> None:
        self.vectors: list[Tensor] = []
        self.gradients: list[Tensor] = []


class _WeightGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, weight: Tensor, pairs: _Pairs) -> Tensor:
        ctx.pairs, ctx.like = pairs, weight.dtype
        return weight.new_empty(0)

    @staticmethod
    def backward(ctx: Any, *_: Any) -> Any:
        pairs: _Pairs = ctx.pairs
        gradients, vectors = torch.cat(pairs.gradients), torch.cat(pairs.vectors)
        pairs.vectors.clear()
        pairs.gradients.clear()
        return (gradients.t() @ vectors).to(ctx.like), None


class _StepProduct(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, v: Tensor, token: Tensor, products: DeferredProducts) -> Tensor:
        operand = v.to(products.operand.dtype)
        ctx.save_for_backward(operand)
        ctx.products, ctx.like, ctx.weight_gradient = products, v.dtype, token.grad_fn
        return products.multiply(operand).to(v.dtype)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        (operand,) = ctx.saved_tensors
        products: DeferredProducts = ctx.products
        gradient = gradients[0].to(operand.dtype)
        node = ctx.weight_gradient
        # A pass that does not want the weight's gradient must leave no pairs to the next one.
        if node is not None and torch._C._will_engine_execute_node(node):
            products.pairs.vectors.append(operand)
            products.pairs.gradients.append(gradient)
        return products.multiply_back(gradient).to(ctx.like), gradient.new_empty(0), None


class DeferredProducts:
    """``weight`` (G, H) times one vector a step; operands of products in ``dtype``."""

    def __init__(self, weight: Tensor, dtype: torch.dtype) -> None:
        self.pairs = _Pairs()
        self.token: Tensor = _WeightGradient.apply(weight, self.pairs)  # type: ignore[no-untyped-call]
        self.operand = weight.detach().to(dtype)
        self._forth: RepeatedProduct | None = None
        self._back: RepeatedProduct | None = None

    def __call__(self, v: Tensor) -> Tensor:
        """v: (B, H) -> (B, G)."""
        out: Tensor = _StepProduct.apply(v, self.token, self)  # type: ignore[no-untyped-call]
        return out

    def multiply(self, v: Tensor) -> Tensor:
        """v: (B, H) -> W v: (B, G), without autograd."""
        if self._forth is None:
            self._forth = RepeatedProduct(self.operand, len(v))
        return self._forth(v)

    def multiply_back(self, g: Tensor) -> Tensor:
        """g: (B, G) -> W^T g: (B, H), without autograd."""
        if self._back is None:
            self._back = RepeatedProduct(self.operand.t().contiguous(), len(g))
        return self._back(g)

"""One matrix times many small batches, beside the plain product."""

from __future__ import annotations

import pytest
import torch

from rnncli.nn.recurrence.products import RepeatedProduct


@pytest.mark.parametrize("rows", [1, 2, 5])
@pytest.mark.parametrize(
    ("dtype", "tolerance"),
    [(torch.float64, 1e-12), (torch.float32, 1e-5), (torch.bfloat16, 2e-2)],
    ids=str,
)
def test_it_is_the_product(rows: int, dtype: torch.dtype, tolerance: float) -> None:
    torch.manual_seed(rows)
    weight, x, y = (torch.randn(*shape, dtype=dtype) for shape in ((7, 33), (rows, 33), (rows, 7)))
    product, before = RepeatedProduct(weight, rows), y.clone()
    expected = x.double() @ weight.double().t()
    scale = float(expected.abs().max())
    for found, right in (
        (product(x), expected), (product(-x), -expected), (product.plus(x, y), expected + y),
    ):  # fmt: skip
        assert found.dtype == dtype and found.shape == (rows, 7)
        assert float((found.double() - right).abs().max()) < tolerance * scale
    assert torch.equal(y, before)

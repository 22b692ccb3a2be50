"""What every test starts from."""

import sys
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

# A machine that is busy with other things is no failure.
settings.register_profile("unhurried", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("unhurried")


@pytest.fixture(autouse=True)
def _leave_torch_as_it_was() -> Iterator[None]:
    """Settings of the whole process, which ``rnncli.runtime.prepare`` makes, end with a test."""
    yield
    if "torch" in sys.modules:
        import torch

        torch.set_flush_denormal(False)
        torch.set_float32_matmul_precision("highest")

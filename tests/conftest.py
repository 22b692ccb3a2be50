"""What every test starts from."""

import os
import sys
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

# A machine that is busy with other things is no failure.
settings.register_profile("unhurried", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("unhurried")


# Nor is a terminal that somebody has told to be without colours, or with them everywhere.
for name in ("NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE", "COLUMNS", "LINES"):
    os.environ.pop(name, None)
os.environ["TERM"] = "xterm"


# Workers and the commands that they start have a core each: a step shared by two threads waits for
# the slower one, and another worker's work makes one of them slow.
worker = os.environ.get("PYTEST_XDIST_WORKER", "gw")[2:]
if worker and hasattr(os, "sched_setaffinity"):
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {cores[int(worker) % len(cores)]})


@pytest.fixture(scope="session", autouse=True)
def _cache_of_the_tests(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Nothing is found in the user's cache, and nothing is left there."""
    os.environ["RNNCLI_CACHE"] = str(tmp_path_factory.mktemp("cache"))


@pytest.fixture(autouse=True)
def _leave_torch_as_it_was() -> Iterator[None]:
    """Settings of the whole process, which ``rnncli.runtime.prepare`` makes, end with a test."""
    threads = sys.modules["torch"].get_num_threads() if "torch" in sys.modules else 0
    yield
    if "torch" in sys.modules:
        import torch

        if threads:
            torch.set_num_threads(threads)
        torch.set_flush_denormal(False)
        torch.set_float32_matmul_precision("highest")

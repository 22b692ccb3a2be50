"""The machine as a run sees it: device, threads, and the type of the operands of products."""

from __future__ import annotations

import contextlib
import ctypes
import os
import platform
from dataclasses import dataclass

import torch

from rnncli.errors import UsageError

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
"""Names of options in glibc's malloc.h."""


@dataclass(frozen=True)
class Runtime:
    """``dtype`` is that of the operands of products; weights, sums and losses are float32."""

    device: torch.device
    dtype: torch.dtype
    threads: int

    def describe(self) -> str:
        name = str(self.dtype).removeprefix("torch.")
        if self.device.type == "cuda":
            return f"{torch.cuda.get_device_name(self.device)}, {name}"
        return f"cpu, {self.threads} thread{'s' * (self.threads != 1)}, {name}"


def prepare(device: str = "auto", precision: str = "auto", threads: int = 0) -> Runtime:
    """Settle what ``auto`` means here and set torch accordingly.

    bfloat16 is chosen where the processor multiplies it natively. Raises UsageError for a device
    that this machine does not have.
    """
    count = threads or _processors()
    torch.set_num_threads(count)
    _keep_freed_memory()
    # Denormal numbers, which decaying states produce, cost 10 to 25 times a normal operation.
    torch.set_flush_denormal(True)
    if device == "cuda" and not torch.cuda.is_available():
        raise UsageError("training.device: no CUDA device here; choices: auto, cpu")
    kind = "cuda" if device == "cuda" or (device == "auto" and torch.cuda.is_available()) else "cpu"
    if precision == "auto":
        precision = "bfloat16" if _multiplies_bfloat16(kind) else "float32"
    if kind == "cpu" and not _rounds_float32():
        # float32 products through oneDNN: twice MKL's speed on some processors, no less exact.
        torch.set_float32_matmul_precision("medium")
    return Runtime(torch.device(kind), getattr(torch, precision), count)


def _processors() -> int:
    """The processors that this process may use; all of them where the system does not tell."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _keep_freed_memory() -> None:
    """Have glibc keep the memory of freed tensors instead of returning it to the system.

    A training step frees and allocates the same large tensors again and again; fresh pages for them
    are a large part of its time. The peak stays the same. Elsewhere than on glibc nothing happens.
    """
    if platform.libc_ver()[0] != "glibc":
        return
    with contextlib.suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        for option, value in ((M_MMAP_THRESHOLD, 1 << 30), (M_TRIM_THRESHOLD, (1 << 31) - 1)):
            mallopt(option, value)


def _multiplies_bfloat16(kind: str) -> bool:
    if kind == "cuda":
        return bool(torch.cuda.is_bf16_supported())
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


def _rounds_float32() -> bool:
    """Whether oneDNN would take "medium" as leave to round float32 operands to bfloat16."""
    return bool(torch.cpu._is_amx_tile_supported()) or not torch.cpu._is_avx2_supported()

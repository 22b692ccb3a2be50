"""The machine as a run sees it: device, threads, and the type of the operands of products."""

from __future__ import annotations

import contextlib
import ctypes
import math
import os
import platform
import resource
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch

from rnncli.errors import UsageError, choices_hint
from rnncli.sections import DEVICES

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

    bfloat16 is chosen where the processor multiplies it faster than float32. Raises UsageError for
    a device that there is not, or not on this machine.
    """
    if device not in DEVICES:
        raise UsageError(f"device: unknown value {device!r}{choices_hint(device, DEVICES)}")
    count = threads or _processors()
    torch.set_num_threads(count)
    _bound_kernel_caches()
    _keep_freed_memory()
    # Denormal numbers, which decaying states produce, cost 10 to 25 times a normal operation.
    torch.set_flush_denormal(True)
    if device == "cuda" and not torch.cuda.is_available():
        raise UsageError("device: no CUDA device here; choices: auto, cpu")
    kind = "cuda" if device == "cuda" or (device == "auto" and torch.cuda.is_available()) else "cpu"
    # Products in float32 are what they are called, also within cuDNN.
    torch.backends.cudnn.allow_tf32 = False
    if kind == "cpu" and not mkl_is_faster() and not _rounds_float32():
        # float32 products through oneDNN: twice MKL's speed on some processors, no less exact.
        torch.set_float32_matmul_precision("medium")
    if precision == "auto":
        precision = "bfloat16" if _bfloat16_pays(kind) else "float32"
    return Runtime(torch.device(kind), getattr(torch, precision), count)


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """One thread of torch, for those that run beside each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def begin_worker() -> None:
    """What ``prepare`` settles, where it holds for a thread alone."""
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)


def mkl_is_there() -> bool:
    """Whether this build of torch multiplies by weights that MKL has reordered."""
    return torch._C.has_mkl and hasattr(torch.ops.mkl, "_mkl_linear")


@cache
def mkl_is_faster() -> bool:
    """Whether float32 products are better left to MKL than to oneDNN: on Intel's processors, large
    ones by a few per cent, those of a time step by up to a half. By the processor's name alone, so
    that a run repeats itself."""
    if not mkl_is_there():
        return False
    try:
        return "GenuineIntel" in Path("/proc/cpuinfo").read_text()
    except OSError:
        return False


def _processors() -> int:
    """The processors that this process may use; all of them where the system does not tell."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _bound_kernel_caches() -> None:
    """Keep torch and oneDNN from holding the kernels of a thousand shapes each: over a gigabyte
    where every batch of pairs has shapes of its own. Both look before their first kernel is made.
    """
    os.environ.setdefault("LRU_CACHE_CAPACITY", "16")
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "64")


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


def _bfloat16_pays(kind: str) -> bool:
    """Whether products of bfloat16 are worth their rounding: having the instructions is not enough,
    since some processors run them at half the speed of float32's."""
    if kind == "cuda":
        return bool(torch.cuda.is_bf16_supported())
    if not (torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()):
        return False
    speeds = product_speeds((torch.bfloat16, torch.float32))
    return speeds[torch.bfloat16] > 1.1 * speeds[torch.float32]


def product_speed(dtype: torch.dtype, device: str = "cpu") -> float:
    """Flop/s of a product of two matrices (512, 512)."""
    return product_speeds((dtype,), device)[dtype]


def product_speeds(
    dtypes: tuple[torch.dtype, ...], device: str = "cpu"
) -> dict[torch.dtype, float]:
    """Flop/s of a product of two matrices (512, 512) of each type, with as many threads as torch
    has now: the best of ten, by turns, so that another program's moment on the processors makes
    none look slower than the others."""
    return _product_speeds(dtypes, device, torch.get_num_threads())


@cache
def _product_speeds(
    dtypes: tuple[torch.dtype, ...], device: str, threads: int
) -> dict[torch.dtype, float]:
    matrices = {dtype: torch.ones(512, 512, dtype=dtype, device=device) for dtype in dtypes}
    best = dict.fromkeys(dtypes, math.inf)
    for _ in range(10):
        for dtype, a in matrices.items():
            began = time.perf_counter()
            out = a @ a
            float(out[0, 0])
            best[dtype] = min(best[dtype], time.perf_counter() - began)
    return {dtype: 2 * 512**3 / seconds for dtype, seconds in best.items()}


def peak_bytes(device: torch.device) -> int:
    """The most memory that this process has held so far; of a GPU, that its tensors took there."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    # ru_maxrss starts with that of the process that made this one; VmHWM is of this one alone.
    with contextlib.suppress(OSError, ValueError, StopIteration), open("/proc/self/status") as file:
        line = next(line for line in file if line.startswith("VmHWM:"))
        return int(line.split()[1]) * 1024
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _rounds_float32() -> bool:
    """Whether oneDNN would take "medium" as leave to round float32 operands to bfloat16."""
    return bool(torch.cpu._is_amx_tile_supported()) or not torch.cpu._is_avx2_supported()

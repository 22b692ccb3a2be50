"""rnncli: recurrent text models from the command line.

Importing this package does not import torch; ``load`` and ``train`` do, when first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
__all__ = ["__version__", "load", "train"]

if TYPE_CHECKING:
    from rnncli.api import load, train


def __getattr__(name: str) -> Any:
    if name in ("load", "train"):
        from rnncli import api

        return getattr(api, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

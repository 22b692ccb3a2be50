"""Options of the commands that choose tokens."""

from __future__ import annotations

from typing import Annotated

from typer import Option

Temperature = Annotated[
    float, Option("--temperature", metavar="X", help="Below 1 safer, above 1 wilder.")
]
TopK = Annotated[
    int, Option("--top-k", metavar="N", help="Only the N most probable tokens; 0: all.")
]
TopP = Annotated[
    float, Option("--top-p", metavar="X", help="Only the fewest tokens with this mass.")
]
Seed = Annotated[
    int | None,
    Option("--seed", metavar="N", min=0, max=2**63 - 1, help="The same seed gives the same text."),
]
Weights = Annotated[
    str,
    Option(
        "--weights", metavar="float32|float16|int8", help="Smaller ones are faster, less exact."
    ),
]

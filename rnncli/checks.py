"""What a value of a configuration must be: one of some choices, or within a range."""

from __future__ import annotations

from rnncli.errors import UsageError, choices_hint


def require_choice(section: str, name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise UsageError(f"{section}.{name}: unknown value {value!r}{choices_hint(value, choices)}")


def require_range(
    section: str,
    name: str,
    value: float | None,
    low: float,
    high: float = float("inf"),
    open_high: bool = False,
) -> None:
    """``value`` is None, or finite and within [low, high], or [low, high) with ``open_high``."""
    below = float("inf") if not open_high else high
    if value is None or (low <= value <= high and value < below):
        return
    bound = f"at least {low:g}" if high == float("inf") else f"from {low:g} to {high:g}"
    if value == float("inf"):
        bound += " and finite"
    if open_high:
        bound = f"at least {low:g} and below {high:g}"
    raise UsageError(f"{section}.{name}: {value!r} is out of range; it must be {bound}")

"""How translations are searched for, and how long they may be."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from rnncli.decoding.beam import BeamOptions
from rnncli.decoding.filters import Filters
from rnncli.errors import UsageError

LEAST_RATIO, LEAST_LONGEST = 2.0, 500
"""Limits of a translation's length, whatever training's pairs were like."""


@dataclass(frozen=True)
class SearchOptions:
    """How translations are found: by a beam, or where there are filters in ``sampling`` by drawing
    each token, as ``seed`` says. A line has ``n_best`` of them.

    A translation has at most ``max_ratio`` times its source's tokens and ``max_extra`` more;
    without a given beginning it has ``min_new_tokens`` to ``max_new_tokens``. Where one of the two
    limits is None it is what training's pairs suggest (``fitted``). For the other options of the
    beam see ``BeamOptions``. ``coverage_penalty`` is beta of Wu et al. (2016, eq. 14): what a
    finished hypothesis did not look at lowers its score. ``align`` asks for alignments where the
    model attends; with ``replace_unk`` an unknown word is the source word that it looked at most.
    Raises UsageError for a value out of range.
    """

    beam_size: int = 5
    batch_size: int = 32
    length_penalty: float = 1.0
    max_ratio: float | None = None
    max_extra: int = 10
    max_new_tokens: int | None = None
    min_new_tokens: int = 0
    length_normalization: str = "wu"
    coverage_penalty: float = 0.0
    no_repeat_ngram: int = 0
    patience: float = 1.0
    n_best: int = 1
    sampling: Filters | None = None
    seed: int = 0
    align: bool = False
    replace_unk: bool = False

    def __post_init__(self) -> None:
        for name in ("beam_size", "batch_size", "max_new_tokens", "n_best"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UsageError(f"{name}: {value} is below its least value, 1")
        for name in ("max_ratio", "max_extra", "coverage_penalty"):
            value = getattr(self, name)
            endless = name == "max_ratio"  # any length
            if value is not None and not (value >= 0 and (endless or value < math.inf)):
                raise UsageError(
                    f"{name}: {value:g} is out of range; it must be a number of at least 0"
                )
        if self.max_new_tokens is not None and self.min_new_tokens > self.max_new_tokens:
            raise UsageError(
                f"min_new_tokens: {self.min_new_tokens} is more than max_new_tokens, "
                f"{self.max_new_tokens}"
            )
        if self.sampling is None and self.n_best > self.beam_size:
            raise UsageError(
                f"n_best: {self.n_best} is more than a beam of {self.beam_size} has; raise "
                "beam_size"
            )
        self.beam(1, None)

    def beam(self, longest: int, end_id: int | None) -> BeamOptions:
        """The options of a search for at most ``longest`` tokens."""
        return BeamOptions(
            self.beam_size,
            max_new_tokens=longest,
            min_new_tokens=self.min_new_tokens,
            end_id=end_id,
            length_penalty=self.length_penalty,
            length_normalization=self.length_normalization,
            no_repeat_ngram=self.no_repeat_ngram,
            patience=self.patience,
        )

    def longest(self, source: int, prefix: int) -> int:
        """How many tokens, the end among them, may follow a beginning of ``prefix`` tokens; source:
        its length."""
        most = LEAST_LONGEST if self.max_new_tokens is None else self.max_new_tokens
        ratio = LEAST_RATIO if self.max_ratio is None else self.max_ratio
        share = ratio * source if source else 0.0
        relative = min(share + self.max_extra - prefix, float(most))
        return min(max(int(relative), self.min_new_tokens + 1), max(most, self.min_new_tokens))

    def fitted(self, ratio: float, longest: int) -> SearchOptions:
        """With limits where there are none, by training's pairs: their targets had up to ``ratio``
        times the tokens of their sources, and ``longest`` at most, of which half again is allowed.
        """
        max_ratio, max_new_tokens = self.max_ratio, self.max_new_tokens
        if max_ratio is None:
            max_ratio = max(LEAST_RATIO, ratio)
        if max_new_tokens is None:
            max_new_tokens = max(LEAST_LONGEST, int(1.5 * longest), self.min_new_tokens)
        return replace(self, max_ratio=max_ratio, max_new_tokens=max_new_tokens)

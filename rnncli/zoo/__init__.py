"""Published models: one TOML file each, a configuration that a user could have written.

A file ends with the table ``[paper]``, which says where the model is from, what figure it should
reach, and in what this configuration differs from the authors' program. All before that table is
the configuration. Nothing here imports torch.
"""

from __future__ import annotations

import textwrap
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rnncli.config import Config
from rnncli.errors import FileError, UsageError, choices_hint

_FOLDER = Path(__file__).parent
_PAPER = "\n[paper]\n"
_COMMENT_WIDTH = 98


@dataclass(frozen=True)
class Paper:
    """Where a model is from. ``figure``: what it should reach, a value of ``metric`` on
    ``dataset``. ``differs``: sentences on where the configuration departs from the authors'
    program, and how. ``verified``: what these facts were checked against."""

    title: str
    authors: str
    year: int
    venue: str
    section: str
    figure: str
    metric: str
    dataset: str
    differs: tuple[str, ...]
    verified: str

    @property
    def citation(self) -> str:
        """``"Zaremba et al. 2014"``."""
        names = self.authors.split(", ")
        last = names[0].rpartition(" ")[2]
        if len(names) == 1:
            return f"{names[0] if last == 'contributors' else last} {self.year}"
        return f"{last} et al. {self.year}"


@dataclass(frozen=True)
class Entry:
    """A published model. ``source``: the text of its configuration, without ``[paper]``."""

    name: str
    config: Config
    paper: Paper
    source: str

    @property
    def model(self) -> str:
        """The model in a few words: ``"LSTM 3x1150, embedding 400, tied, by word"``."""
        model = self.config.model
        parts = [f"{model.cell_row(0).title} {model.layers}x{model.hidden_size}"]
        if model.input == "embedding" and model.embedding_size != model.hidden_size:
            parts.append(f"embedding {model.embedding_size}")
        if model.attention != "none":
            parts.append(f"{model.attention} attention")
        if model.tied:
            parts.append("tied")
        units = "frames of music" if self.config.task == "music" else self.config.tokenizer.kind
        return ", ".join([*parts, f"by {units}"])

    def toml(self) -> str:
        """A file for ``rnncli train --config``: the configuration, the paper in comments above."""
        return "\n".join(_comments(self)) + f"\n\n{self.source}"


def names() -> list[str]:
    """The names of all entries, in order."""
    return sorted(path.stem for path in _FOLDER.glob("*.toml"))


def list_entries() -> list[Entry]:
    """All entries, by name."""
    return [_read(name) for name in names()]


def load_entry(name: str) -> Entry:
    """The entry called ``name``. Raises UsageError, with the nearest name, when there is none."""
    if name not in names():
        raise UsageError(f"the zoo has no entry {name!r}{choices_hint(name, names())}")
    return _read(name)


def _read(name: str) -> Entry:
    path = _FOLDER / f"{name}.toml"
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise FileError.of("read", path, error) from None
    tables = tomllib.loads(text)
    paper: dict[str, Any] = tables.pop("paper")
    paper["differs"] = tuple(paper["differs"])
    return Entry(name, Config.from_dict(tables), Paper(**paper), text.partition(_PAPER)[0])


def _comments(entry: Entry) -> Iterator[str]:
    paper = entry.paper
    lines = [
        f"{entry.name}: {entry.model}.",
        f"{paper.authors} ({paper.year}): {paper.title}. {paper.venue}, {paper.section}.",
        f"Should reach: {paper.figure}.",
        f"Data: {paper.dataset}. Name your corpus after 'rnncli train', or in [data] train.",
        f"Checked against: {paper.verified}",
    ]
    if paper.differs:
        lines += ["Differs from the authors' program:", *(f"- {text}" for text in paper.differs)]
    for line in lines:
        indent = "  " if line.startswith("- ") else ""
        for part in textwrap.wrap(
            line, _COMMENT_WIDTH, subsequent_indent=indent, break_on_hyphens=False
        ):
            yield f"# {part}"

"""A network to look into, trained or fresh, and something for it to read."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from rnncli import zoo
from rnncli.checkpoint import read_header
from rnncli.config import Config, load_toml
from rnncli.errors import DataError, FileError, UsageError, choices_hint
from rnncli.evaluation.synthetic import PREFIX, open_problem
from rnncli.loading import load_language_model, load_music_model, load_sequence_reader
from rnncli.models.language_model import LanguageModel
from rnncli.models.music import MusicModel
from rnncli.models.sequence_reader import SequenceReader
from rnncli.nn.keys import frame_nats
from rnncli.nn.stack import Run, Stack
from rnncli.sections import DataConfig
from rnncli.text.corpus import count_tokens, encode_file, load_corpus
from rnncli.text.music import KEYS, hold_out, read_music, side_by_side
from rnncli.text.protocol import Ids
from rnncli.text.tokenizers import load_sentencepiece

DTYPE = torch.float64
"""Gradients that vanish fall below the smallest float32."""

VOCABULARIES = {"byte": 256, "char": 100, "word": 10_000, "bpe": 8_000, "unigram": 8_000}
"""How many tokens a fresh model without a text is taken to have."""


CHORD = 4
"""How many keys of a frame sound, on average, where frames are drawn."""

DRAWN = "drawn at random"
STEPS = 100
"""Of a window, unless told otherwise."""


@dataclass(frozen=True)
class Reading:
    """How much is read, and what if there is no text: ``windows`` sequences of ``steps`` steps
    (None: of as many as is usual). ``seed`` is that of what is drawn."""

    steps: int | None
    windows: int
    seed: int

    @property
    def length(self) -> int:
        return STEPS if self.steps is None else self.steps


@dataclass(frozen=True)
class Subject:
    """``model`` in float64, all of its weights wanting gradients, and its recurrent layers.
    ``source`` says what is read; ``losses`` reads it and gives the loss at the last step of each
    window: (B,)."""

    name: str
    config: Config
    trained: bool
    model: nn.Module
    stack: Stack
    source: str
    losses: Callable[[Run], Tensor]


def open_subject(name: str, text: str | None, reading: Reading) -> Subject:
    """What ``name`` means: a model's file, a run's folder, a TOML configuration or a zoo entry; the
    last two give a fresh model.

    ``text`` is a file for a language model, or of music; without it tokens or frames are drawn. A
    synthetic task reads its own sequences. Raises FileError and DataError for what cannot be read,
    UsageError for a file that is none of these, another task, and a text that would not be read.
    """
    path = Path(name)
    if path.is_dir() or (path.exists() and path.suffix != ".toml"):
        config = Config.from_dict(read_header(path).config)
        return _open(name, config, path, text, reading)
    if path.suffix == ".toml":
        return _open(name, Config.from_dict(load_toml(path)), None, text, reading)
    if name in zoo.names():
        return _open(name, zoo.load_entry(name).config, None, text, reading)
    hint = choices_hint(name, zoo.names())
    raise FileError(f"there is no file, folder or zoo entry {name!r}{hint}")


def _open(
    name: str, config: Config, path: Path | None, text: str | None, reading: Reading
) -> Subject:
    if path is None and config.training.start_from is not None:
        raise UsageError(
            f"{name}: such a run begins with the weights of {config.training.start_from} "
            "(training.start_from); give that model to see them"
        )
    if config.task.startswith(PREFIX):
        if text is not None:
            raise UsageError(
                f"{name} is for --task {config.task}, which reads no text; leave it out"
            )
        if reading.steps is not None:
            raise UsageError(
                f"--steps: sequences of {config.task} are read whole, and are as long as "
                f"synthetic.lag = {config.synthetic.lag} makes them; leave it out"
            )
        return _synthetic(name, config, path, reading)
    if config.task == "music":
        return _music(name, config, path, text, reading)
    if config.task == "lm":
        return _language(name, config, path, text, reading)
    raise UsageError(
        f"{name} is for --task {config.task}; gradients are shown of language models (lm), of "
        "models of music and of the synthetic tasks"
    )


def _synthetic(name: str, config: Config, path: Path | None, reading: Reading) -> Subject:
    problem = open_problem(config)
    sizes = (problem.inputs, problem.outputs)
    if path is not None:
        model = load_sequence_reader(path, lambda _: sizes).model
    else:
        torch.manual_seed(config.seed)
        model = SequenceReader(config.model, *sizes)
    model = model.to(DTYPE).eval().requires_grad_(True)
    batch = problem.batch(np.random.default_rng([reading.seed, 2]), reading.windows)

    def losses(run: Run) -> Tensor:
        y = model(batch.x.to(DTYPE), problem.answers, run)
        targets = batch.targets
        targets = targets.to(DTYPE) if targets.is_floating_point() else targets
        return problem.losses(y, targets)[-1]

    source = f"{reading.windows} sequences of {len(batch.x)} steps of {config.task}"
    return Subject(name, config, path is not None, model, model.stack, source, losses)


def _language(
    name: str, config: Config, path: Path | None, text: str | None, reading: Reading
) -> Subject:
    if path is not None:
        loaded = load_language_model(path)
        model, size = loaded.model, loaded.tokenizer.vocab_size
        strip = config.data.strip_lines
        ids = None if text is None else encode_file(loaded.tokenizer, text, strip_lines=strip).ids
    else:
        kind, strip, ids, counts = config.tokenizer, config.data.strip_lines, None, None
        size = kind.vocab_size or VOCABULARIES[kind.kind]
        if text is not None:
            # A run's configuration names its text: the model is the one that the run began with.
            data = config.data
            if not data.train:
                data = DataConfig(train=(text,), valid_fraction=0.0, strip_lines=strip)
            corpus = load_corpus(data, load_sentencepiece(kind.model) if kind.model else kind)
            size, counts = corpus.tokenizer.vocab_size, torch.from_numpy(count_tokens(corpus))
            ids = encode_file(corpus.tokenizer, text, strip_lines=strip).ids
        torch.manual_seed(config.seed)
        model = LanguageModel(config.model, size)
        if counts is not None:
            model.output.start_from(counts)
    if not model.stack.is_causal:
        raise UsageError(f"{name}: a language model with layers that read later tokens")
    model = model.to(DTYPE).eval().requires_grad_(True)
    if ids is not None:
        windows, what = _windows(ids, reading, text or ""), f"tokens of {text}"
    else:
        rng = np.random.default_rng(reading.seed)
        windows = rng.integers(0, size, (reading.length + 1, reading.windows))
        what = f"tokens {DRAWN}"
    tokens = torch.from_numpy(windows)

    def losses(run: Run) -> Tensor:
        state = model.start(None, tokens.shape[1])
        h, _ = model.hidden(tokens[:-1], state, run)
        return model.output.nats(h[-1], tokens[-1], model.tied_weight)

    source = f"{tokens.shape[1]} windows of {len(tokens) - 1} {what}"
    return Subject(name, config, path is not None, model, model.stack, source, losses)


def _music(
    name: str, config: Config, path: Path | None, text: str | None, reading: Reading
) -> Subject:
    """Each window is the beginning of a piece, after a frame of silence."""
    if path is not None:
        model = load_music_model(path).model
    else:
        torch.manual_seed(config.seed)
        model = MusicModel(config.model, KEYS)
        if text is not None:
            # A run's configuration names its music: the model is the one that the run began with.
            parts = [read_music(one) for one in config.data.train or (text,)]
            if config.data.train and config.data.valid is None and config.data.valid_fraction:
                parts, _, _ = hold_out(parts, config.data.valid_fraction)
            model.start_from(piece for part in parts for piece in part.pieces)
    model = model.to(DTYPE).eval().requires_grad_(True)
    if text is None:
        rng = np.random.default_rng(reading.seed)
        drawn = rng.random((reading.windows, reading.length, KEYS)) < CHORD / KEYS
        pieces, what = list(drawn), f"frames {DRAWN}"
    else:
        music = read_music(text)
        longest = sorted(music.pieces, key=len, reverse=True)[: reading.windows]
        longest = [piece for piece in longest if len(piece) > 1]
        if not longest:
            raise DataError(f"{text}: no piece has two frames; give one that does")
        # As long as half of them at least: a short one among them does not cut the others.
        steps = min(reading.length, len(longest[(len(longest) - 1) // 2]))
        pieces = [piece[:steps] for piece in longest if len(piece) >= steps]
        what = f"frames of {text}"
    frames = torch.from_numpy(side_by_side(pieces)[0]).to(DTYPE)

    def losses(run: Run) -> Tensor:
        start = model.start(None, frames.shape[1])
        logits, _ = model.logits(frames[:-1], frames[1:], start, run)
        return frame_nats(logits[-1], frames[-1])

    source = f"{frames.shape[1]} windows of {len(frames) - 1} {what}"
    return Subject(name, config, path is not None, model, model.stack, source, losses)


def _windows(ids: Ids, reading: Reading, name: str) -> np.ndarray:
    """ids: (N,) -> (steps + 1, windows), spread evenly over the text; of a short one less."""
    steps = min(reading.length, len(ids) - 1)
    if steps < 2:
        raise DataError(f"{name}: {len(ids)} tokens are too few; give a text of three at least")
    count = max(1, min(reading.windows, (len(ids) - 1) // steps))
    starts = np.linspace(0, len(ids) - steps - 1, count).astype(np.int64)
    return np.stack([ids[s : s + steps + 1].astype(np.int64) for s in starts], axis=1)

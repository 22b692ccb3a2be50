"""What ``evaluate`` and ``generate`` do with a model of music."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rnncli.cli.console import print_json, print_table
from rnncli.cli.outputs import require_writable, write_output
from rnncli.cli.streams import LineWriter
from rnncli.errors import UsageError

if TYPE_CHECKING:
    from rnncli.decoding.frames import FrameLimits
    from rnncli.evaluation.cache import CacheConfig
    from rnncli.metrics import MusicScores
    from rnncli.text.music import Frames

EVALUATE_OPTIONS = frozenset(
    {"model", "more", "file", "as_json", "cache_window", "cache_theta", "cache_lambda", "precision",
     "device", "threads"}
)  # fmt: skip
GENERATE_OPTIONS = frozenset(
    {"model", "more", "prompt", "prompt_file", "max_new_tokens", "temperature", "greedy",
     "num_samples", "seed", "as_json", "midi", "tempo", "threads", "device"}
)  # fmt: skip
FRAMES = 64
"""What ``generate`` writes where ``--max-new-tokens`` does not say."""


def evaluate_music(
    models: Sequence[Path],
    file: str,
    *,
    as_json: bool,
    cache: CacheConfig | None,
    precision: str,
    device: str,
    threads: int,
) -> None:
    """Print what the pieces of a file cost under a model, or under an ensemble."""
    from rnncli.evaluation.music import measure_both
    from rnncli.loading import load_music_models
    from rnncli.nn.stack import Run
    from rnncli.runtime import prepare
    from rnncli.text.music import read_music

    runtime = prepare(device, precision, threads)
    loaded = load_music_models(models, runtime.device)
    music = read_music(file)
    scores, cached = measure_both(loaded, music.pieces, Run(dtype=runtime.dtype), cache)
    if as_json:
        apart = {} if cached is None else {"cache": cached.to_dict()}
        print_json(scores.to_dict() | apart)
    else:
        print_table(_rows(scores, cached), f"{music.name} under {', '.join(map(str, models))}")


def _rows(scores: MusicScores, cached: MusicScores | None) -> Iterator[tuple[str, str]]:
    yield from _losses(scores)
    yield "accuracy", "-" if math.isnan(scores.accuracy) else f"{scores.accuracy:.2%}"
    yield "nats", f"{scores.nats:,.2f}"
    yield "frames", f"{scores.frames:,} (all counted, the first of a piece predicted from silence)"
    yield "pieces", f"{scores.pieces:,}"
    yield "signature", scores.signature
    if cached is not None:
        yield "", ""
        yield from ((f"with cache: {name}", value) for name, value in _losses(cached))
        yield "with cache: signature", cached.signature


def _losses(scores: MusicScores) -> Iterator[tuple[str, str]]:
    yield "nats a frame", f"{scores.nats_per_frame:,.4f}"
    yield "mean of the pieces' means", f"{scores.nats_per_frame_by_piece:,.4f}"
    without_first = scores.nats_per_frame_without_first
    yield "without first frames", "-" if math.isnan(without_first) else f"{without_first:,.4f}"


def generate_music(
    models: Sequence[Path],
    prompt: str,
    *,
    rows: int,
    limits: FrameLimits,
    seed: int,
    as_json: bool,
    midi: str | None,
    tempo: float | None,
    device: str,
    threads: int,
) -> None:
    """Write ``rows`` pieces, one a line, or a MIDI file, or both."""
    import numpy as np
    import torch

    from rnncli.decoding.frames import sample_frames
    from rnncli.generation import settle_machine
    from rnncli.loading import load_music_models
    from rnncli.text.midi import midi_bytes, require_tempo
    from rnncli.text.music import format_piece

    if tempo is not None and midi is None:
        raise UsageError("--tempo: needs --midi FILE")
    if midi == "-" and as_json:
        raise UsageError("--midi -: standard output takes the file or JSON; leave out one of them")
    speed = 120.0 if tempo is None else tempo
    require_tempo(speed)
    require_writable(midi)
    opening = _opening(prompt)
    where = settle_machine(device, threads, rows)
    network: Any = load_music_models(models, where)
    begun = torch.from_numpy(opening).to(where, torch.float32)
    pieces = sample_frames(network, begun, rows=rows, limits=limits, seed=seed)
    for piece in pieces if midi != "-" else ():
        text = format_piece(piece.frames.numpy())
        if as_json:
            print_json(
                {"prompt": prompt, "text": text, "tokens": len(piece.frames),
                 "logprob": piece.logprob, "finish_reason": "length", "sample": piece.row}
            )  # fmt: skip
        else:
            LineWriter().write([text])
    if midi is not None:
        whole = [np.concatenate([opening, piece.frames.numpy()]) for piece in pieces]
        write_output(midi, [midi_bytes(whole, speed)])


def _opening(prompt: str) -> Frames:
    from rnncli.text.music import parse_piece

    first, *others = prompt.split("\n")
    if any(line.strip() for line in others):
        raise UsageError(
            f"prompt: {1 + len(others)} lines; expected one, the frames that the music begins with"
        )
    return parse_piece(first, "prompt")

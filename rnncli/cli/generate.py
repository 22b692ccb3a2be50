"""``rnncli generate``: text from a model, streamed to a terminal, plain or as JSON in a pipe."""

from __future__ import annotations

import secrets
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from typer import Context, Option

from rnncli.cli.console import is_obeyed, is_terminal, note, print_json
from rnncli.cli.decoding_options import Seed, Temperature, TopK, TopP, Weights
from rnncli.cli.models import Model, refuse_options, task_of
from rnncli.cli.music import FRAMES, GENERATE_OPTIONS, generate_music
from rnncli.cli.streams import read_available
from rnncli.errors import FileError, UsageError
from rnncli.sections import DEVICES

if TYPE_CHECKING:
    from rnncli.decoding.sampling import Piece, Sample

EXAMPLES = """
rnncli generate run --prompt "The night " --temperature 0.8
rnncli generate run --prompt "The night " --num-samples 5 --max-new-tokens 80 --json
echo "The night" | rnncli generate run --prompt - --beam-size 5
rnncli generate tunes --num-samples 3 --midi tunes.mid
"""

TOKENS = 500


def generate(
    context: Context,
    model: Model = None,
    more: Annotated[
        list[Path] | None,
        Option(
            "-m", "--model", metavar="MODEL", help="Another model of the ensemble (repeatable)."
        ),
    ] = None,
    prompt: Annotated[
        str | None, Option("--prompt", metavar="TEXT", help="What to continue; - reads stdin.")
    ] = None,
    prompt_file: Annotated[
        str | None, Option("--prompt-file", metavar="FILE", help="Continue what FILE holds.")
    ] = None,
    max_new_tokens: Annotated[
        int | None,
        Option(
            "--max-new-tokens",
            metavar="N",
            min=0,
            help=f"End after so many tokens, else {TOKENS}; of music, frames, else {FRAMES}.",
            show_default=False,
        ),
    ] = None,
    min_new_tokens: Annotated[
        int, Option("--min-new-tokens", metavar="N", min=0, help="Do not stop before so many.")
    ] = 0,
    temperature: Temperature = 1.0,
    top_k: TopK = 0,
    top_p: TopP = 1.0,
    min_p: Annotated[
        float, Option("--min-p", metavar="X", help="Only tokens X times as probable as the first.")
    ] = 0.0,
    greedy: Annotated[
        bool, Option("--greedy", help="Take the most probable token at every step.")
    ] = False,
    beam_size: Annotated[
        int,
        Option("--beam-size", metavar="N", min=0, help="Search the likeliest rest of the line."),
    ] = 0,
    num_samples: Annotated[
        int, Option("--num-samples", metavar="N", min=1, help="So many texts, in one batch.")
    ] = 1,
    stop: Annotated[
        list[str] | None,
        Option("--stop", metavar="TEXT", help="End before TEXT comes (repeatable)."),
    ] = None,
    seed: Seed = None,
    no_unk: Annotated[bool, Option("--no-unk", help="Never generate <unk>.")] = False,
    as_json: Annotated[
        bool, Option("--json", help="One JSON object a line for each text.")
    ] = False,
    weights: Weights = "float32",
    midi: Annotated[
        str | None,
        Option("--midi", metavar="FILE", help="Music: also as a MIDI file; - is standard output."),
    ] = None,
    tempo: Annotated[
        float | None,
        Option("--tempo", metavar="X", help="Quarter notes a minute of --midi; else 120."),
    ] = None,
    threads: Annotated[
        int, Option("--threads", metavar="N", min=0, help="Processor threads; 0: as is best.")
    ] = 0,
    device: Annotated[
        str, Option("--device", metavar="|".join(DEVICES), help="Where to compute.")
    ] = "auto",
) -> None:
    """Sample text from a model: what follows the prompt, without the prompt.

    On a terminal the text appears as it comes. In a pipe one text is written exactly as it is; of
    several, each is one line, with a newline inside it as \\n and a backslash as \\\\.
    --beam-size takes no samples but the most probable text up to the line's end, and --num-samples
    as many of the next best.

    A model of music writes one piece a line, its frames after the opening ones that the prompt
    gives (60,64,67 -), and with --midi also a file that holds the opening, too; of the options that
    choose among tokens it takes --temperature and --greedy.
    """
    from rnncli import generation
    from rnncli.decoding.beam import BeamOptions
    from rnncli.decoding.filters import Filters
    from rnncli.decoding.frames import FrameLimits
    from rnncli.decoding.sampling import Limits
    from rnncli.loading import load_language_model

    draws = secrets.randbits(63) if seed is None else seed
    stops = tuple(stop or ())
    longest = TOKENS if max_new_tokens is None else max_new_tokens
    limits = Limits(longest, min_new_tokens, stops)
    sampling = (temperature, top_k, top_p, min_p)
    Filters(*sampling)  # a value out of range is an error before a model is read
    drawn = sampling != (1.0, 0, 1.0, 0.0)
    if beam_size:
        _check_beam(beam_size, num_samples, greedy or bool(stops) or drawn)
    elif greedy and drawn:
        raise UsageError(
            "--greedy: takes the most probable token at every step; leave it out, or leave out "
            "--temperature, --top-k, --top-p and --min-p"
        )
    paths = [*([] if model is None else [model]), *(more or ())]
    if not paths:
        raise UsageError("Missing argument 'MODEL': a model's file or a run's folder")
    model = paths[0]
    if task_of(model) == "music":
        refuse_options(context, GENERATE_OPTIONS, "a model of music")
        frames = FRAMES if max_new_tokens is None else max_new_tokens
        generate_music(
            paths, _read_prompt(prompt, prompt_file, any_bytes=False), rows=num_samples,
            limits=FrameLimits(frames, temperature, greedy), seed=draws, as_json=as_json,
            midi=midi, tempo=tempo, device=device, threads=threads,
        )  # fmt: skip
        return
    if midi is not None or tempo is not None:
        raise UsageError(f"--midi and --tempo: {model} is a language model and writes no music")
    where = generation.settle_machine(device, threads, max(num_samples, beam_size))
    models = [load_language_model(path, where) for path in paths]
    tokenizer = models[0].tokenizer
    text = _read_prompt(prompt, prompt_file, any_bytes=tokenizer.kind == "byte")
    tokens = generation.encode_prompt(tokenizer, text)
    if unseen := generation.count_unseen(tokenizer, tokens):
        note(f"prompt: {unseen} of its {len(tokens) - 1} tokens never seen in training, now <unk>")
    never = (tokenizer.unk_id,) if no_unk and tokenizer.unk_id is not None else ()
    if beam_size:
        options = BeamOptions(
            beam_size, longest, min_new_tokens, tokenizer.boundary_id, forbidden=never
        )
        events = generation.complete(
            models, tokens, rows=num_samples, options=options, precision=weights
        )
    else:
        events = generation.generate(
            models, tokens, rows=num_samples, limits=limits, filters=Filters(*sampling, never),
            greedy=greedy, seed=draws, precision=weights,
        )  # fmt: skip
    _write(events, text, num_samples, as_json)


def _check_beam(beam_size: int, num_samples: int, sampled: bool) -> None:
    if sampled:
        raise UsageError(
            "--beam-size: takes the most probable text; leave out --greedy, --stop, --temperature, "
            "--top-k, --top-p and --min-p"
        )
    if num_samples > beam_size:
        raise UsageError(
            f"--num-samples: {num_samples} is more than a beam of {beam_size} finds; "
            f"it must be at most --beam-size"
        )


def _write(events: Iterable[Piece | Sample], prompt: str, num_samples: int, as_json: bool) -> None:
    """Everything as soon as it is there: a reader that has seen enough ends the work."""
    if num_samples == 1 and not as_json and not is_terminal(sys.stdout):
        _pass_on(events)
    elif not as_json and is_terminal(sys.stdout):
        _stream(events, num_samples)
    else:
        for sample in _in_order(events):
            if as_json:
                print_json(_values(prompt, sample))
            else:
                sys.stdout.write(_one_line(sample.text) + "\n")
            sys.stdout.flush()


def _pass_on(events: Iterable[Piece | Sample]) -> None:
    from rnncli.decoding.sampling import Piece

    for event in events:
        if isinstance(event, Piece):
            sys.stdout.write(event.text)
            sys.stdout.flush()


def _read_prompt(prompt: str | None, prompt_file: str | None, *, any_bytes: bool) -> str:
    """The text to continue. One newline at the end of a file or of standard input is not part of
    it: ``echo`` and ``printf`` give the same. Bytes that are not UTF-8 are U+FFFD and a byte-order
    mark at the start is dropped, except with ``any_bytes``, for a byte tokenizer."""
    if prompt is not None and prompt_file is not None:
        raise UsageError("--prompt and --prompt-file: give one of them")
    if prompt is not None and prompt != "-":
        return prompt
    if prompt is None and prompt_file is None:
        return ""
    data = _read_all(prompt_file or "-").removesuffix(b"\n")
    text = data.decode("utf-8", "surrogateescape" if any_bytes else "replace")
    if text.encode("utf-8", "surrogateescape") != data:
        note(f"{prompt_file or 'standard input'}: bytes that are not UTF-8 became U+FFFD")
    return text if any_bytes else text.removeprefix("\ufeff")


def _read_all(name: str) -> bytes:
    if name == "-":
        return b"".join(iter(lambda: read_available(0, "standard input"), b""))
    try:
        return Path(name).read_bytes()
    except OSError as error:
        raise FileError.of("read", name, error) from None


def _in_order(events: Iterable[Piece | Sample]) -> Iterator[Sample]:
    """The samples by number, each as soon as those before it are there."""
    from rnncli.decoding.sampling import Sample

    waiting: dict[int, Sample] = {}
    row = 0
    for event in events:
        if isinstance(event, Sample):
            waiting[event.row] = event
            while row in waiting:
                yield waiting.pop(row)
                row += 1


def _stream(events: Iterable[Piece | Sample], rows: int) -> None:
    """Show one text after the other, the first of the unfinished ones as it grows."""
    from rnncli.decoding.sampling import Piece

    texts = [""] * rows
    done = [False] * rows
    row, shown = 0, ""
    for event in events:
        if isinstance(event, Piece):
            texts[event.row] += event.text
        else:
            done[event.row] = True
        while row < rows:
            new, texts[row] = _visible(texts[row]), ""
            shown += new
            sys.stdout.write(new)
            if not done[row]:
                break
            sys.stdout.write("" if shown.endswith("\n") else "\n")
            row, shown = row + 1, ""
            if row < rows:
                sys.stdout.write(f"\n--- {row + 1} ---\n")
        sys.stdout.flush()


def _values(prompt: str, sample: Sample) -> dict[str, Any]:
    return {
        "prompt": _valid(prompt),
        "text": _valid(sample.text),
        "tokens": len(sample.tokens),
        "logprob": sample.logprob,
        "finish_reason": sample.finish_reason,
        "sample": sample.row,
    }


def _one_line(text: str) -> str:
    return text.replace("\\", "\\\\").replace("\n", "\\n")


def _valid(text: str) -> str:
    """``text`` with U+FFFD for bytes that are not UTF-8."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def _visible(text: str) -> str:
    """``text`` without what a terminal would obey, save the newline and the tabulator."""
    return "".join("\ufffd" if is_obeyed(c) and c not in "\n\t" else c for c in text)

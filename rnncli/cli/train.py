"""``rnncli train``: from text files to a model, with a live panel or plain lines."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from typer import Argument, Option

from rnncli.cell_table import CELLS
from rnncli.cli.console import note
from rnncli.cli.models import TRAINING_TEXT, require_text, text_of
from rnncli.config import TASKS, Config, parse_assignment
from rnncli.errors import UsageError
from rnncli.heeded import require_rules
from rnncli.model_section import cell_names
from rnncli.sections import ENGINES, OPTIMIZERS

if TYPE_CHECKING:
    from collections.abc import Mapping

EXAMPLES = """
rnncli train book.txt --out run --max-time 20s
rnncli train book.txt --out run --cell gru --layers 1 --hidden-size 64 --max-steps 20
rnncli train book.txt --valid valid.txt --out run --tokenizer word --tied --max-steps 20
rnncli train book.txt --out run --preset char-rnn --max-steps 20 --set training.batch_size=4
rnncli train valid.txt --start-from run --out tuned --max-steps 20
rnncli train book.txt --out run --dry-run
rnncli train --source sources.txt --target targets.txt --out run --max-steps 20
rnncli train music.txt --task music --out run
rnncli train --task synthetic:adding --lag 50 --cell gru --out run
"""


def _option(help_text: str, *names: str, **more: Any) -> Any:
    return Option(*names, help=help_text, show_default=False, **more)


def train(
    corpus: Annotated[
        list[str] | None,
        Argument(
            metavar="[CORPUS]...",
            help="Training text, tables of pairs, or music: files, .gz, or - for standard input.",
            show_default=False,
        ),
    ] = None,
    out: Annotated[Path | None, _option("Folder for the run.", "--out", "-o")] = None,
    task: Annotated[
        str | None,
        _option(f"What to learn: {', '.join(TASKS)}."),
    ] = None,
    source: Annotated[list[str] | None, _option("Lines to translate; with --target.")] = None,
    target: Annotated[list[str] | None, _option("Their translations, line by line.")] = None,
    valid_source: Annotated[str | None, _option("The same for validation.")] = None,
    valid_target: Annotated[str | None, _option("The same for validation.")] = None,
    attention: Annotated[str | None, _option("none, dot, general or additive.")] = None,
    source_tokenizer: Annotated[
        str | None, _option("A vocabulary of its own for the source, of this kind.")
    ] = None,
    source_vocab_size: Annotated[int | None, _option("Its greatest size.")] = None,
    reverse_source: Annotated[
        bool | None, _option("Read sources backward.", "--reverse-source/--no-reverse-source")
    ] = None,
    label_smoothing: Annotated[
        float | None, _option("Share of a target's probability given to all tokens.")
    ] = None,
    lag: Annotated[
        int | None,
        _option("T of a synthetic task: its length, or the time between (copy, recall)."),
    ] = None,
    valid: Annotated[
        str | None, _option("Validation text; else the last 5 % of the lines, 1 MB of much.")
    ] = None,
    weights: Annotated[
        str | None, _option("How often each file is read an epoch: 2,1,0.5.")
    ] = None,
    strip_lines: Annotated[
        bool | None, _option("Drop white space around lines.", "--strip-lines/--no-strip-lines")
    ] = None,
    cell: Annotated[
        str | None, _option(f"{', '.join(CELLS)}; or one for each layer, with commas.")
    ] = None,
    layers: Annotated[int | None, _option("Recurrent layers.")] = None,
    bidirectional: Annotated[
        bool, _option("Layers that read both ways, where the task allows it.", "--bidirectional")
    ] = False,
    hidden_size: Annotated[int | None, _option("Units a layer.")] = None,
    embedding_size: Annotated[int | None, _option("Size of the input vectors.")] = None,
    dropout: Annotated[
        float | None, _option("Rate between layers; input and output follow it.")
    ] = None,
    tied: Annotated[bool | None, _option("Output matrix = embedding.", "--tied/--no-tied")] = None,
    tokenizer: Annotated[str | None, _option("byte, char, word, bpe or unigram.")] = None,
    vocab_size: Annotated[int | None, _option("Most tokens in the vocabulary.")] = None,
    min_count: Annotated[int | None, _option("Rarer words and characters are <unk>.")] = None,
    tokenizer_model: Annotated[str | None, _option("A sentencepiece .model to use.")] = None,
    epochs: Annotated[int | None, _option("Passes over the text.")] = None,
    max_steps: Annotated[int | None, _option("Updates.")] = None,
    max_time: Annotated[str | None, _option("Wall-clock time: 90s, 10m, 1h30m.")] = None,
    batch_size: Annotated[int | None, _option("Parallel streams, or lines.")] = None,
    bptt: Annotated[int | None, _option("Steps that gradients flow back.")] = None,
    optimizer: Annotated[str | None, _option(f"{', '.join(OPTIMIZERS)}.")] = None,
    lr: Annotated[float | None, _option("Learning rate.")] = None,
    clip_norm: Annotated[float | None, _option("Largest gradient norm; 0: any.")] = None,
    seed: Annotated[int | None, _option("Seed of everything random.")] = None,
    threads: Annotated[int | None, _option("Processor threads; 0: all cores.")] = None,
    device: Annotated[str | None, _option("auto, cpu or cuda.")] = None,
    precision: Annotated[str | None, _option("auto, float32 or bfloat16 products.")] = None,
    engine: Annotated[str | None, _option(f"{', '.join(ENGINES)}.")] = None,
    start_from: Annotated[
        Path | None, _option("A model, or a run, whose weights and tokenizers to begin with.")
    ] = None,
    preset: Annotated[str | None, _option("A zoo entry; see rnncli zoo.")] = None,
    config: Annotated[Path | None, _option("A TOML configuration.")] = None,
    settings: Annotated[
        list[str] | None, _option("section.key=value; repeatable.", "--set")
    ] = None,
    resume: Annotated[bool, _option("Go on with the run in --out.", "--resume")] = False,
    overwrite: Annotated[bool, _option("Replace the run in --out.", "--overwrite")] = False,
    dry_run: Annotated[
        bool, _option("Print what would be trained and what it needs.", "--dry-run")
    ] = False,
    tensorboard: Annotated[
        bool, _option("Scalars for TensorBoard, in OUT/tensorboard.", "--tensorboard")
    ] = False,
) -> None:
    """Train a model on text files.

    What is not given is chosen from the size of the text and the time there is; the choices and
    their reasons are printed. The folder then holds model.safetensors (the best model),
    training.safetensors (to go on from), config.toml and metrics.jsonl.
    """
    if out is None:
        raise UsageError("--out: missing; give the folder for the run, as in --out run")
    if task is None and (source or target):
        task = "translate"
    fixed: dict[str, Any] = {
        "task": task,
        "data.source": [_absolute(path) for path in source or ()] or None,
        "data.target": [_absolute(path) for path in target or ()] or None,
        "data.valid_source": None if valid_source is None else _absolute(valid_source),
        "data.valid_target": None if valid_target is None else _absolute(valid_target),
        "model.attention": attention,
        "source_tokenizer.kind": source_tokenizer,
        "source_tokenizer.vocab_size": source_vocab_size,
        "model.reverse_source": reverse_source,
        "regularization.label_smoothing": label_smoothing,
        "seed": seed,
        "synthetic.lag": lag,
        "data.valid": None if valid is None else _absolute(valid),
        "data.weights": None if weights is None else _numbers(weights),
        "data.strip_lines": strip_lines,
        "tokenizer.kind": tokenizer,
        "tokenizer.vocab_size": vocab_size,
        "tokenizer.min_count": min_count,
        "tokenizer.model": None if tokenizer_model is None else _absolute(tokenizer_model),
        "model.cell": cell,
        "model.layers": layers,
        "model.direction": "bidirectional" if bidirectional else None,
        "model.hidden_size": hidden_size,
        "model.embedding_size": embedding_size,
        "model.tied": tied,
        "regularization.dropout": dropout,
        "training.epochs": epochs,
        "training.max_steps": max_steps,
        "training.max_seconds": None if max_time is None else parse_time(max_time),
        "training.batch_size": batch_size,
        "training.bptt": bptt,
        "training.threads": threads,
        "training.device": device,
        "training.precision": precision,
        "training.engine": engine,
        "training.start_from": None if start_from is None else _absolute(str(start_from)),
        "optimizer.name": optimizer,
        "optimizer.lr": lr,
        "optimizer.clip_norm": clip_norm,
    }
    fixed = {name: value for name, value in fixed.items() if value is not None}
    both = (*(source or ()), *(target or ()), valid_source, valid_target)
    if [*(corpus or ()), valid, *both].count("-") > 1:
        raise UsageError("-: standard input can be read once; give files for the others")
    if tokenizer_model is not None:
        from rnncli.text.tokenizers import load_sentencepiece

        if vocab_size is not None:
            raise UsageError("--vocab-size: a --tokenizer-model has its size; leave it out")
        fixed.setdefault("tokenizer.kind", load_sentencepiece(tokenizer_model).kind)
    fixed |= dict(parse_assignment(text) for text in settings or ())
    if corpus:
        fixed["data.train"] = [_absolute(path) for path in corpus]

    from rnncli.cli.panel import ReadingNotes, View, show

    notes: list[str] = []
    if resume and overwrite:
        raise UsageError("--resume and --overwrite: go on with the run, or replace it")
    if resume:
        settled = _resumed(out, fixed, preset, config)
    else:
        settled, notes = _settle(fixed, preset, config)
        require_rules(fixed, vars(settled))
    if dry_run:
        from rnncli.cli.console import print_table
        from rnncli.training.plan import plan

        for text in notes:
            note(text)
        print_table(plan(settled), title=f"{out}: what would be trained")
        return
    views: list[View] = []
    if tensorboard:
        from rnncli.cli.tensorboard import TensorBoard

        views.append(TensorBoard(out / "tensorboard"))
    from rnncli.training.run import train as run

    events = run(
        settled, out, resume=resume, overwrite=overwrite, notes=tuple(notes),
        progress=ReadingNotes(),
    )  # fmt: skip
    show(events, views)


def _settle(
    fixed: Mapping[str, Any], preset: str | None, config: Path | None
) -> tuple[Config, list[str]]:
    """The configuration: a preset or file, or chosen from the text; then what was given."""
    from rnncli.config import load_toml
    from rnncli.sections import DataConfig

    if preset is not None and config is not None:
        raise UsageError("--preset and --config: give one of them")
    if preset is not None:
        from rnncli.zoo import load_entry

        base = load_entry(preset).config.with_values(fixed)
        require_text(base.task, text_of(base.data))
        return base, []
    if config is not None:
        return Config.from_dict(load_toml(config)).with_values(fixed), []
    if "training.start_from" in fixed:
        from rnncli.training.start import start_values

        fixed = {**start_values(Path(str(fixed["training.start_from"]))), **fixed}
    for name in TRAINING_TEXT:
        if not isinstance(fixed.get(name, []), (list, tuple)):
            raise UsageError(f'{name}: expected a list of files, as in {name}=["a.txt"]')
    named = cell_names(str(fixed.get("model.cell", "lstm")))
    if len(named) > 1:
        fixed = {"model.layers": len(named), **fixed}
    require_text(str(fixed.get("task", "lm")), fixed)
    from rnncli.training.tasks import REQUIRED, choose

    needed = REQUIRED.get(str(fixed.get("task", "lm")), {})
    Config().with_values({**needed, **fixed})  # complain before the data is read
    values, reasons = choose(DataConfig(train=tuple(fixed.get("data.train", ()))), fixed)
    return Config().with_values({**values, **fixed}), reasons


def _resumed(
    out: Path, fixed: Mapping[str, Any], preset: str | None, config: Path | None
) -> Config:
    """The configuration of the run in ``out``, with what may be changed changed."""
    from rnncli.training.run_folder import read_run_config, refuse_changes

    if preset is not None or config is not None:
        raise UsageError(
            "--resume goes on with the run's own configuration; drop --preset/--config"
        )
    saved = read_run_config(out)
    changed = saved.with_values(fixed)
    refuse_changes(saved, changed, out)
    return changed


def parse_time(text: str) -> float:
    """ "90", "90s", "10m", "1h30m" -> seconds; a number without a letter is of seconds, and not
    after hours alone."""
    match = re.fullmatch(r"(?:([\d.]+)h)?(?:([\d.]+)m)?(?:([\d.]+)(s?))?", text.strip())
    try:
        if match and any(match.groups()) and not (match[1] and not match[2] and match[4] == ""):
            h, m, s = (float(part or 0) for part in match.groups()[:3])
            return 3600 * h + 60 * m + s
    except ValueError:
        pass
    raise UsageError(f"--max-time {text!r}: expected a time such as 90s, 10m or 1h30m")


def _numbers(text: str) -> list[float]:
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise UsageError(f"--weights {text!r}: expected numbers with commas, as in 2,1") from None


def _absolute(path: str) -> str:
    """``path`` from the root; links stay, since what /dev/fd/63 links to is no path."""
    return path if path == "-" else os.path.abspath(path)

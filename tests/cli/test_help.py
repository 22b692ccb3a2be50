"""Every command has help, and the examples that end it work as they stand."""

import dataclasses
import re
import shutil
import subprocess
from importlib import import_module
from pathlib import Path

import pytest
import typer

from rnncli import cli
from rnncli.checkpoint import write_model, write_tokenizer
from rnncli.config import Config
from rnncli.models.encoder_decoder import EncoderDecoder
from rnncli.models.language_model import LanguageModel
from rnncli.models.music import MusicModel
from rnncli.sections import ModelConfig, TokenizerConfig
from rnncli.text.music import KEYS
from rnncli.text.tokenizers import train_tokenizer
from tests.helpers import RNNCLI, ROOT, cli_env

BUILT = [name for name in cli.COMMANDS if (ROOT / "rnncli" / "cli" / f"{name}.py").exists()]
TINY = ModelConfig(layers=1, hidden_size=16, embedding_size=16)


def paths() -> list[tuple[str, ...]]:
    """Every command as it is typed: ("info",), ("tokenize", "encode")."""
    found: list[tuple[str, ...]] = []
    for name in BUILT:
        family = getattr(import_module(f"rnncli.cli.{name}"), "SUBCOMMANDS", None)
        found += [(name, f.__name__) for f in family] if family else [(name,)]
    return found


def help_of(path: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> str:
    command = typer.main.get_command(cli.load_app(path[0]))
    arguments = [*path[1:], "--help"]
    with pytest.raises(typer.Exit), command.make_context(path[0], arguments) as context:
        command.invoke(context)
    return capsys.readouterr().out


def examples_of(path: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> list[str]:
    _, _, text = help_of(path, capsys).partition("  Examples:\n\n")
    return [line.strip() for line in text.splitlines() if line.strip()]


@pytest.mark.parametrize("path", paths(), ids=" ".join)
def test_every_command_has_help(path, capsys):
    _, description, *_ = help_of(path, capsys).split("\n\n")
    assert re.match(r"  [A-Z].*\.", description, re.S), "no sentence says what it does"
    assert examples_of(path, capsys), "no examples"


@pytest.mark.parametrize("name", BUILT)
def test_every_option_is_described(name):
    command = typer.main.get_command(cli.load_app(name))
    for part in getattr(command, "commands", {name: command}).values():
        missing = [parameter.name for parameter in part.params if not parameter.help]
        assert missing == [], f"options of {part.name} without help"


@pytest.fixture(scope="module")
def sandbox(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what the examples find: texts, a tokenizer, the folder of a run with its best
    model and two that it kept, music with a model of its own in ``tunes``, pairs with one in
    ``translator`` and another system's ``other`` translations."""
    folder = tmp_path_factory.mktemp("sandbox")
    text = (ROOT / "sample_data" / "book.txt").read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if line.strip()]
    for name, part in (("book", lines[:200]), ("valid", lines[200:220]), ("test", lines[220:240])):
        (folder / f"{name}.txt").write_text("\n".join(part) + "\n", encoding="utf-8")
    tokenizer = train_tokenizer(TokenizerConfig(kind="bpe", vocab_size=500), lines[:200])
    write_tokenizer(folder / "book.tok", tokenizer)
    config = Config(tokenizer=TokenizerConfig(kind="bpe", vocab_size=500), model=TINY)
    (folder / "run").mkdir()
    for name in ("model", "model-00000010", "model-00000020"):
        write_model(
            folder / "run" / f"{name}.safetensors",
            config=config,
            tokenizer=tokenizer,
            weights=LanguageModel(TINY, tokenizer.vocab_size).state_dict(),
            scores={"valid_nats_per_token": 6.2},
            provenance={},
        )

    shutil.copy(ROOT / "sample_data" / "music.txt", folder)
    (folder / "tunes").mkdir()
    write_model(
        folder / "tunes" / "model.safetensors",
        config=Config(task="music", model=TINY),
        tokenizer=None,
        weights=MusicModel(TINY, KEYS).state_dict(),
        scores={"valid_nats": 20.0},
        provenance={},
    )
    pairs = (ROOT / "sample_data" / "pairs.tsv").read_text(encoding="utf-8").splitlines()[:200]
    sides = [pair.split("\t") for pair in pairs]
    for name, side in (("sources", 0), ("targets", 1), ("other", 1)):
        text = "".join(f"{pair[side]}\n" for pair in sides)
        (folder / f"{name}.txt").write_text(text, encoding="utf-8")
    words = train_tokenizer(TokenizerConfig(kind="word"), [side for pair in sides for side in pair])
    (folder / "translator").mkdir()
    network = dataclasses.replace(TINY, direction="bidirectional", attention="general")
    write_model(
        folder / "translator" / "model.safetensors",
        config=Config(task="translate", tokenizer=TokenizerConfig(kind="word"), model=network),
        tokenizer=words,
        weights=EncoderDecoder(network, words.vocab_size).state_dict(),
        scores={"valid_nats": 6.0},
        provenance={},
    )
    return folder


def script(examples: list[str]) -> str:
    """The examples as they stand; only that training stops after two steps, in a new folder."""
    lines = [f'rnncli() {{ "{RNNCLI[0]}" -m rnncli "$@"; }}', "set -veo pipefail"]
    for example in examples:
        if re.match(r"rnncli (train|compare)\b", example):
            lines.append("rm -rf run" if re.search(r"--out run\b(?!.*--resume)", example) else ":")
            lines.append(f"{example} --max-steps 2")
        else:
            lines.append(example)
    return "\n".join(lines)


SLOW = {"compare", "evaluate", "train"}  # a minute for all of their examples


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[pytest.mark.slow] if name in SLOW else []) for name in BUILT],
)
def test_the_examples_work(name, sandbox, tmp_path, capsys):
    examples = [e for path in paths() if path[0] == name for e in examples_of(path, capsys)]
    assert all(re.search(r"\brnncli ", example) for example in examples)
    shutil.copytree(sandbox, tmp_path, dirs_exist_ok=True)
    done = subprocess.run(
        ["bash", "-c", script(examples)],
        env=cli_env(),
        cwd=tmp_path,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=200,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]

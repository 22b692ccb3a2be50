"""Music from the command line: train, evaluate, generate, MIDI; and what refuses it."""

from __future__ import annotations

import json
import math
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from rnncli.checkpoint import write_model
from rnncli.config import Config
from rnncli.errors import DataError, FileError, UsageError
from rnncli.loading import load_music_model
from rnncli.models.music import MusicModel
from rnncli.text.midi import midi_bytes
from rnncli.text.music import KEYS, parse_piece, read_music
from tests.cli.in_process import Run, in_process
from tests.helpers import RNNCLI, ROOT, cli_env, run_cli, tiny_model

TUNES = ROOT / "sample_data" / "music.valid.txt"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``music``: an untrained model of music, ``lm``: a language model."""
    folder = tmp_path_factory.mktemp("music")
    values = {"task": "music", "training.state": "reset", "model.layers": 1,
              "model.hidden_size": 16, "model.input": "one-hot"}  # fmt: skip
    config = Config().with_values(values)
    torch.manual_seed(1)
    network = MusicModel(config.model, KEYS)
    with torch.no_grad():
        network.output.b.fill_(-3.0)
    (folder / "music").mkdir()
    write_model(
        folder / "music" / "model.safetensors", config=config, tokenizer=None,
        weights=network.state_dict(), scores={"valid_nats": 20.0}, provenance={},
    )  # fmt: skip
    tiny_model(folder / "lm")
    return folder


@pytest.fixture
def command(capfd: pytest.CaptureFixture[str]) -> Iterator[dict[str, Run]]:
    runs = {name: in_process(name, capfd) for name in ("train", "evaluate", "generate", "score")}
    yield {name: next(run) for name, run in runs.items()}
    for run in runs.values():
        next(run, None)


@pytest.mark.parametrize("output", ["softmax", "nade"])
def test_from_notes_to_a_tune(command: dict[str, Run], tmp_path: Path, output: str) -> None:
    """A few steps with the chosen settings, then every command on what came out."""
    out, tunes = tmp_path / "run", tmp_path / "tunes.txt"
    tunes.write_text("".join(TUNES.open().readlines()[:6]))
    options = ("--task", "music", "--max-steps", 2, "--hidden-size", 8)
    command["train"](tunes, *options, "--set", f"model.output={output}", "--out", out)
    said = command["train"].err  # type: ignore[attr-defined]
    assert "The last 1 of 6 pieces are held out" in said
    assert "validation frames" in said and "nats best" in said and "perplexity" not in said
    values = json.loads(command["evaluate"](out, tunes, "--json"))
    assert values["frames"] == sum(map(len, read_music(tunes).pieces)) and values["pieces"] == 6
    assert values["nats_per_frame"] == values["nats"] / values["frames"]
    assert ("|output:nade" in values["signature"]) == (output == "nade")
    piece = command["generate"](out, "--seed", 1, "--max-new-tokens", 20)
    assert piece.count("\n") == 1 and len(parse_piece(piece, "")) == 20


def test_evaluate_says_which_average_it_prints(command: dict[str, Run], folder: Path) -> None:
    out = command["evaluate"](folder / "music", TUNES)
    rows = dict(re.split(r" {2,}", line, maxsplit=1) for line in out.splitlines())
    values = json.loads(command["evaluate"](folder / "music", TUNES, "--json"))
    assert float(rows["nats a frame"]) == pytest.approx(values["nats_per_frame"], abs=1e-4)
    assert float(rows["mean of the pieces' means"]) == pytest.approx(
        values["nats_per_frame_by_piece"], abs=1e-4
    )
    assert rows["frames"] == "640 (all counted, the first of a piece predicted from silence)"
    assert rows["pieces"] == "10" and "average:frames" in rows["signature"]


def test_several_models_are_an_ensemble(
    command: dict[str, Run], folder: Path, tmp_path: Path
) -> None:
    """Of a model with itself it is that model; with another its nats are no more than the mean of
    both, chances being averaged."""
    other = tmp_path / "run"
    sizes = ("--max-steps", 2, "--hidden-size", 8)
    command["train"](TUNES, "--task", "music", *sizes, "--out", other)

    def nats(*models: object) -> float:
        values = json.loads(command["evaluate"](*models, TUNES, "--json"))
        assert ("models:2" in values["signature"]) == (len(models) > 1)
        return float(values["nats_per_frame"])

    first = folder / "music"
    assert nats(first, "-m", first) == pytest.approx(nats(first), rel=1e-5)
    assert nats(first, "-m", other) < (nats(first) + nats(other)) / 2
    out = command["generate"](first, "-m", other, "--max-new-tokens", 9, "--seed", 3)
    assert len(parse_piece(out, "")) == 9
    assert out == command["generate"](first, "-m", other, "--max-new-tokens", 9, "--seed", 3)


def test_one_line_for_each_sample_and_a_seed_that_fixes_them(
    command: dict[str, Run], folder: Path
) -> None:
    generate = command["generate"]
    options = ("--num-samples", 3, "--max-new-tokens", 12, "--temperature", 0.8)
    out = generate(folder / "music", "--seed", 5, *options)
    pieces = [parse_piece(line, "") for line in out.splitlines()]
    assert [len(piece) for piece in pieces] == [12, 12, 12] and out.endswith("\n")
    assert generate(folder / "music", "--seed", 5, *options) == out
    assert generate(folder / "music", "--seed", 6, *options) != out
    assert generate(folder / "music", "--seed", 5, *options[2:]) == out.splitlines()[0] + "\n"
    records = generate(folder / "music", "--seed", 5, *options, "--json").splitlines()
    assert [json.loads(record)["text"] for record in records] == out.splitlines()
    assert [json.loads(record)["tokens"] for record in records] == [12, 12, 12]


def test_the_opening_is_heard_and_not_repeated(command: dict[str, Run], folder: Path) -> None:
    generate = command["generate"]
    options = ("--greedy", "--max-new-tokens", 4)
    text = generate(folder / "music", "--prompt", "67,60,64 -", *options)
    network = load_music_model(folder / "music").model
    state, line = network.start(None, 1), ["", "60,64,67", "-"]
    for t in range(6):
        frame = parse_piece(line[t] or "-", "")[:1]
        logits, state = network.step(torch.from_numpy(frame).float(), state)
        if t >= 2:
            sounding = (21 + key for key in np.flatnonzero((logits[0] > 0).numpy()))
            line.append(",".join(map(str, sounding)) or "-")
    assert text.split() == line[3:]
    assert generate(folder / "music", *options) == "- - - -\n"


def test_a_midi_file_of_opening_and_continuation(
    command: dict[str, Run], folder: Path, tmp_path: Path
) -> None:
    generate, path = command["generate"], tmp_path / "tune.mid"
    options = ("--prompt", "60,64 62", "--num-samples", 2, "--seed", 1, "--max-new-tokens", 9)
    out = generate(folder / "music", *options, "--midi", path, "--tempo", 90)
    assert out == generate(folder / "music", *options)
    pieces = [parse_piece(f"60,64 62 {line}", "") for line in out.splitlines()]
    assert path.read_bytes() == midi_bytes(pieces, 90.0)
    generate(folder / "music", *options, "--midi", path)
    assert path.read_bytes() == midi_bytes(pieces, 120.0)


def test_real_pipes(folder: Path) -> None:
    """Pieces from one process are another's text; MIDI goes to standard output alone."""
    arguments = ("generate", folder / "music", "--num-samples", "3", "--seed", "2")
    with subprocess.Popen(
        [*RNNCLI, *map(str, arguments), "--max-new-tokens", "7"],
        stdout=subprocess.PIPE, env=cli_env(),
    ) as process:  # fmt: skip
        assert process.stdout is not None
        done = subprocess.run(
            [*RNNCLI, "evaluate", str(folder / "music"), "--json"],
            stdin=process.stdout, capture_output=True, env=cli_env(), timeout=60,
        )  # fmt: skip
    assert (process.returncode, done.returncode) == (0, 0), done.stderr
    values = json.loads(done.stdout)
    assert (values["frames"], values["pieces"]) == (21, 3) and math.isfinite(values["nats"])
    done = run_cli("generate", folder / "music", "--midi", "-", "--seed", "2")
    assert done.stdout.startswith(b"MThd") and (done.returncode, done.stderr) == (0, b"")


def test_info_says_nothing_about_words(folder: Path) -> None:
    out = run_cli("info", folder / "music").stdout.decode()
    assert re.search(r"^task +music$", out, re.M) and re.search(r"^valid nats +20$", out, re.M)
    assert "tokenizer" not in out and "softmax" not in out and "cutoffs" not in out


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("evaluate", ["music", "TUNES", "--columns", "9"], "--columns: not for a model of music"),
        ("evaluate", ["music", "TUNES", "--cache-theta", "1"], "need --cache-window N"),
        ("evaluate", ["music", "TUNES", "-m", "music", "--cache-window", "9"], "needs one model"),
        ("evaluate", ["music", "TUNES", "--state", "reset"], "--state: not for a model of music"),
        ("evaluate", ["lm", "TUNES", "-m", "music"], "is a model for --task music; this needs a"),
        ("generate", ["music", "--top-k", "3"], "--top-k: not for a model of music; leave it out"),
        ("generate", ["music", "--weights", "int8"], "--weights: not for"),
        ("generate", ["music", "--tempo", "3", "--midi", "x.mid"], "tempo: 3 is out of range"),
        ("generate", ["music", "--tempo", "90"], "--tempo: needs --midi FILE"),
        ("generate", ["music", "--midi", "-", "--json"], "leave out one of them"),
        ("generate", ["music", "--prompt", "60\n62"], "prompt: 2 lines; expected one"),
        ("generate", ["lm", "--midi", "x.mid"], "is a language model and writes no music"),
        ("score", ["music", "TUNES"], "is a model for --task music; this needs a language model"),
    ],
)
def test_what_does_not_go_together(
    name: str, options: list[str], message: str, command: dict[str, Run], folder: Path
) -> None:
    paths = {"TUNES": TUNES, "music": folder / "music", "lm": folder / "lm"}
    with pytest.raises(UsageError, match=re.escape(message)):
        command[name](*(paths.get(option, option) for option in options))


def test_what_cannot_be_written_is_found_before_the_tune(
    command: dict[str, Run], folder: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    for midi, tempo, error in (
        (tmp_path / "no" / "x.mid", 90, FileError),
        ("x.mid", 2, UsageError),
    ):
        with pytest.raises(error):
            command["generate"](folder / "music", "--midi", midi, "--tempo", tempo)
        assert capfd.readouterr().out == ""


def test_a_cache_of_frames(command: dict[str, Run], folder: Path) -> None:
    options = ("--cache-window", 50, "--cache-theta", 2.0, "--cache-lambda", 0.2)
    values = json.loads(command["evaluate"](folder / "music", TUNES, "--json", *options))
    cache = values.pop("cache")
    assert values == json.loads(command["evaluate"](folder / "music", TUNES, "--json"))
    assert cache["nats_per_frame"] < values["nats_per_frame"]
    assert cache["signature"].endswith("|cache:window=50,theta=2,lambda=0.2")
    assert cache["accuracy"] is None
    out = command["evaluate"](folder / "music", TUNES, *options)
    assert re.search(rf"with cache: nats a frame +{cache['nats_per_frame']:.4f}$", out, re.M)


def test_what_was_not_counted_is_a_dash(
    command: dict[str, Run], folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "one.txt").write_text("60\n")
    out = command["evaluate"](folder / "music", tmp_path / "one.txt")
    assert re.search(r"^without first frames +-$", out, re.M)


def test_wrong_data(command: dict[str, Run], folder: Path, tmp_path: Path) -> None:
    book = ROOT / "sample_data" / "book.txt"
    with pytest.raises(DataError, match=rf"{book}:1: frame 1, .*expected MIDI notes"):
        command["evaluate"](folder / "music", book)
    with pytest.raises(DataError, match="prompt: frame 2, 'C4': expected MIDI notes"):
        command["generate"](folder / "music", "--prompt", "60 C4")
    command["evaluate"](folder / "lm", TUNES)
    assert "looks like music" in command["evaluate"].err  # type: ignore[attr-defined]
    with pytest.raises(UsageError, match=r"tokenizer\.kind: music is notes"):
        command["train"](TUNES, "--task", "music", "--out", tmp_path, "--tokenizer", "char")


def test_a_model_of_music_has_no_tokenizer(folder: Path) -> None:
    done = run_cli("tokenize", "encode", folder / "music", input=b"60\n")
    assert (done.returncode, done.stdout) == (2, b"")
    assert b"holds a model without a tokenizer: its task reads no text" in done.stderr

"""``rnncli train``: options to configuration, exit codes, what is printed."""

import io
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from rnncli import cli
from rnncli.checkpoint import read_header
from rnncli.cli.train import parse_time
from rnncli.errors import UsageError
from rnncli.sections import TokenizerConfig
from rnncli.text.tokenizers import train_tokenizer
from rnncli.training.run_folder import read_run_config
from tests.helpers import RNNCLI, cli_env, run_cli
from tests.training.runs import at_step, kill, metrics, send, write_text

SMALL = [
    "--layers=1",
    "--hidden-size=8",
    "--embedding-size=6",
    "--batch-size=4",
    "--bptt=10",
    "--threads=1",
    "--set",
    "data.valid_fraction=0.1",
]


@pytest.fixture
def text(tmp_path: Path) -> Path:
    return write_text(tmp_path / "text.txt")


@pytest.fixture
def rnncli(monkeypatch, capsys, tmp_path):
    """The command line in this process: arguments -> exit code, stdout, stderr."""
    monkeypatch.chdir(tmp_path)
    handler = signal.getsignal(signal.SIGTERM)

    def call(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["rnncli", *map(str, arguments)])
        monkeypatch.setattr(os, "dup2", lambda *_: None)
        with pytest.raises(SystemExit) as ended:
            cli.main()
        captured = capsys.readouterr()
        return ended.value.code or 0, captured.out, captured.err

    yield call
    signal.signal(signal.SIGTERM, handler)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["-", "--valid", "-"], "-: standard input can be read once"),
        (["--source", "-", "--target", "-"], "-: standard input can be read once"),
        (["--set", "data.train=5"], r"data\.train: expected a list of files"),
        (["x", "--set", "task=3"], "task"),
    ],
)
def test_what_cannot_be_meant(options: list[str], message: str, tmp_path: Path) -> None:
    done = run_cli("train", *options, "--out", tmp_path / "run", input=b"a\n")
    assert done.returncode == 2 and re.search(message, done.stderr.decode()), done.stderr


def test_a_run_in_a_pipe(text, rnncli, tmp_path):
    code, out, err = rnncli("train", text, "--out", "run", *SMALL, "--max-steps", 12)
    assert (code, out) == (0, "")
    lines = err.splitlines()
    assert all(line.startswith("rnncli: ") for line in lines)
    assert "\x1b" not in err
    assert "held out for validation" in err
    assert re.search(r"model: 1 x 8 lstm, [\d,]+ parameters; text: [\d,]+ training", err)
    assert re.search(r"step \d+ epoch [\d.]+ train [\d.]+ nats ppl [\d.]+ lr", err)
    assert re.search(r"step 12 epoch 1\.\d\d valid [\d.]+ nats ppl [\d.]+", err)
    assert re.match(r"rnncli: done after 12 steps, \d+:\d\d", lines[-1])
    assert metrics(tmp_path / "run")[-1]["event"] == "Finished"


def test_options_become_the_configuration(text, rnncli, tmp_path):
    code, _, err = rnncli(
        "train", "text.txt", "--out", "run", *SMALL, "--max-steps", 1, "--cell", "gru", "--seed", 7,
        "--valid", "text.txt", "--weights", "2", "--strip-lines", "--dropout", 0.25,
        "--tokenizer", "word", "--min-count", 2, "--optimizer", "rmsprop", "--lr", 0.5,
        "--clip-norm", 0.25, "--precision", "float32", "--engine", "reference", "--tied",
        "--set", "model.initial_state=learned",
    )  # fmt: skip
    assert code == 0, err
    config = read_run_config(tmp_path / "run")
    assert config.data.train == (str(text),)
    assert (config.data.valid, config.data.weights) == (str(text), (2.0,))
    assert config.data.strip_lines
    assert (config.tokenizer.kind, config.tokenizer.min_count) == ("word", 2)
    assert (config.model.cell, config.model.tied) == ("gru", True)
    assert config.model.initial_state == "learned"
    assert (config.seed, config.regularization.dropout) == (7, 0.25)
    assert (config.optimizer.name, config.optimizer.lr) == ("rmsprop", 0.5)
    assert config.optimizer.clip_norm == 0.25
    assert (config.training.precision, config.training.engine) == ("float32", "reference")


def test_options_of_pairs_become_the_configuration(text, rnncli, tmp_path):
    lines = text.read_text().splitlines()
    pieces = train_tokenizer(TokenizerConfig(kind="unigram", vocab_size=300), lines)
    (tmp_path / "m.model").write_bytes(pieces.to_bytes())
    for name in ("train", "valid"):
        for side in ("s", "t"):
            (tmp_path / f"{name}.{side}").write_text("".join(f"{x}\n" for x in lines[:20]))
    code, _, err = rnncli(
        "train", "--source", "train.s", "--target", "train.t", "--valid-source", "valid.s",
        "--valid-target", "valid.t", "--tokenizer-model", "m.model", "--attention", "additive",
        "--bidirectional", "--no-tied", "--no-reverse-source", "--hidden-size", 8, "--layers", 1,
        "--embedding-size", 6, "--device", "cpu", "--threads", 1, "--max-steps", 1, "--out", "run",
        "--set", "regularization.r_drop=2",
    )  # fmt: skip
    assert code == 0, err
    config = read_run_config(tmp_path / "run")
    assert (config.task, config.model.attention) == ("translate", "additive")
    assert (config.model.direction, config.model.embedding_size) == ("bidirectional", 6)
    assert not config.model.tied and not config.model.reverse_source
    assert config.data.source == (str(tmp_path / "train.s"),)
    assert config.data.valid_target == str(tmp_path / "valid.t")
    assert (config.tokenizer.kind, config.training.device) == ("unigram", "cpu")
    assert config.regularization.r_drop == 2 and config.regularization.dropout > 0
    assert read_header(tmp_path / "run").vocab_size == pieces.vocab_size
    asked = rnncli("train", text, "--out", "x", "--tokenizer-model", "m.model", "--vocab-size", 9)
    assert asked[0] == 2 and "--vocab-size: a --tokenizer-model has its size" in asked[2]


def test_the_configuration_of_a_run_repeats_it(text, rnncli, tmp_path):
    assert rnncli("train", text, "--out", "a", *SMALL, "--max-steps", 5)[0] == 0
    assert rnncli("train", "--config", "a/config.toml", "--out", "b")[0] == 0
    shas = [read_header(tmp_path / name).weights_sha256 for name in "ab"]
    assert shas[0] == shas[1]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_signals_save_first(number, code, text, rnncli, tmp_path, monkeypatch):
    rnncli("train", text, "--out", "whole", *SMALL, "--max-steps", 15)
    with monkeypatch.context() as patch:
        at_step(patch, 4, send(number))
        found, _, err = rnncli("train", text, "--out", "run", *SMALL, "--max-steps", 15)
    assert found == code
    assert err.endswith(
        "rnncli: stopped after step 4; the state is saved, --resume goes on from it\n"
    )
    found, _, err = rnncli("train", "--out", "run", "--resume")
    assert found == 0
    assert "going on after step 4" in err
    counted = [e["steps"] for e in metrics(tmp_path / "run") if e["event"] == "StepReport"]
    assert sum(counted) == 15  # those before the signal, too
    shas = [read_header(tmp_path / name).weights_sha256 for name in ("run", "whole")]
    assert shas[0] == shas[1]


def test_what_cannot_be_resumed_or_begun(text, rnncli):
    code, _, err = rnncli("train", "--resume", "--out", "empty")
    assert code == 74
    assert "empty holds no run to resume: there is no config.toml in it" in err
    rnncli("train", text, "--out", "run", *SMALL, "--max-steps", 2)
    for arguments, code, message in (
        (("--resume", "--hidden-size", 9), 2, "cannot change model.hidden_size (8 in run, 9 given"),
        (("--resume", "--preset", "char-rnn"), 2, "drop --preset/--config"),
        ((text, "--max-steps", 2), 2, "--out run already holds a run (model.safetensors)"),
        (("missing.txt",), 74, "missing.txt: No such file"),
        ((".",), 74, "Is a directory"),
        ((), 2, "no training text"),
        ((text, "--lr", -1), 2, "optimizer.lr: -1.0 is out of range"),
        ((text, "--cell", "lstn"), 2, "did you mean 'lstm'"),
        ((text, "--max-time", "soon"), 2, "--max-time 'soon': expected a time such as 90s"),
        ((text, "--weights", "a"), 2, "--weights 'a': expected numbers with commas"),
        ((text, "--set", "model.layers"), 2, "expected section.key=value"),
        ((text, "--set", "model.layer=3"), 2, "did you mean 'layers'"),
        ((text, "--config", "a.toml", "--preset", "char-rnn"), 2, "give one of them"),
    ):
        found, out, err = rnncli("train", *arguments, "--out", "run")
        assert (found, out) == (code, ""), err
        assert message in err, arguments
        assert err.count("\n") == 1
    assert rnncli("train", text)[0] == 2
    code, _, err = rnncli("train", "--out", "run", "--resume", "--overwrite")
    assert code == 2 and "go on with the run, or replace it" in err
    assert rnncli("train", text, "--out", "run", "--overwrite", *SMALL, "--max-steps", 3)[0] == 0
    assert rnncli("train", "--resume", "--out", "run", "--max-steps", 6)[0] == 0
    code, _, err = rnncli("train", "--out", "run", "--resume", "--epochs", 0)
    assert code == 0
    assert "done after 6 steps" in err


def test_texts_that_are_none_end_with_their_code(text, rnncli, tmp_path):
    (tmp_path / "empty.txt").touch()
    code, _, err = rnncli("train", "empty.txt", "--out", "run", *SMALL, "--max-steps", 1)
    assert code == 65
    assert "empty.txt: empty; give a text file" in err
    code, _, err = rnncli("train", text, "--valid", "empty.txt", "--out", "run", *SMALL)
    assert code == 65
    (tmp_path / "text.gz").write_bytes(b"no gzip")
    code, _, err = rnncli("train", "text.gz", "--out", "run", *SMALL)
    assert code == 65
    assert "text.gz: not a whole gzip file" in err
    assert not (tmp_path / "run/config.toml").exists()


def test_dry_run_prints_and_writes_nothing(text, rnncli, tmp_path):
    code, out, err = rnncli("train", text, "--out", "run", *SMALL, "--max-steps", 9, "--dry-run")
    assert code == 0
    names = [line.split("  ")[0] for line in out.splitlines()]
    assert names == [
        "model", "parameters", "vocabulary", "training tokens", "validation tokens", "batch",
        "steps an epoch", "steps", "memory", "memory in all", "speed", "time", "machine",
    ]  # fmt: skip
    assert "9 (training.max_steps)" in out
    assert "tokens: characters" in err
    assert [path.name for path in tmp_path.iterdir()] == ["text.txt"]


def test_a_setting_that_would_do_nothing_is_refused_before_the_text_is_read(rnncli, tmp_path):
    drop = ("--set", "regularization.weight_drop=0.2")
    for more in (("--dry-run",), (), ("--preset", "char-rnn")):
        call = ("train", "absent.txt", "--out", "run", "--cell", "mingru", *drop, *more)
        code, out, err = rnncli(*call)
        assert (code, out) == (2, "")
        assert "regularization.weight_drop: mingru has no matrix that multiplies its state" in err
        assert "use 0.0, or a cell that has one: elman, irnn, lstm" in err
    assert not list(tmp_path.iterdir())


def test_a_start_that_is_set_is_in_the_configuration_and_repeated(text, rnncli, tmp_path):
    start = ("--cell", "irnn", "--set", "model.init_scale=0.1", "--max-steps", 2)
    assert rnncli("train", text, "--out", "run", *SMALL, *start)[0] == 0
    assert read_run_config(tmp_path / "run").model.init_scale == 0.1
    assert rnncli("train", text, "--out", "other", *SMALL, *start[:2], *start[4:])[0] == 0
    assert read_run_config(tmp_path / "other").model.init_scale is None
    for name in ("run", "other"):
        assert rnncli("train", "--config", f"{name}/config.toml", "--out", f"{name}-2")[0] == 0
    folders = ("run", "run-2", "other", "other-2")
    one, again, other, too = (read_header(tmp_path / name).weights_sha256 for name in folders)
    assert one == again != other == too


def test_standard_input_is_a_corpus(text, rnncli, tmp_path, monkeypatch):
    """It is looked at, planned with and trained on alike, and chosen for as a file would be."""
    data = text.read_bytes()
    arguments = ("--max-steps", 3, "--threads", 1, "--set", "model.hidden_size=8")
    rnncli("train", text, "--out", "file", *arguments)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))
    code, _, err = rnncli("train", "-", "--out", "stdin", *arguments)
    assert code == 0, err
    found, expected = (read_run_config(tmp_path / name) for name in ("stdin", "file"))
    assert found.with_values({"data.train": [str(text)]}) == expected
    shas = [read_header(tmp_path / name).weights_sha256 for name in ("stdin", "file")]
    assert shas[0] == shas[1]
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"another text\n" * 9)))
    code, _, err = rnncli("train", "--out", "stdin", "--resume")
    assert code == 65
    assert "the training text has changed" in err


def test_a_process_and_a_pipe_as_its_corpus(text, tmp_path):
    """As bash makes one for <(...), by a name that is no path."""
    end, other = os.pipe()
    os.write(other, text.read_bytes())
    os.close(other)
    try:
        config = [*SMALL, "--max-steps", "2"]
        done = subprocess.run(
            [*RNNCLI, "train", f"/dev/fd/{end}", "--out", str(tmp_path / "run"), *config],
            env=cli_env(),
            pass_fds=(end,),
            capture_output=True,
            timeout=120,
        )
    finally:
        os.close(end)
    assert (done.returncode, done.stdout) == (0, b""), done.stderr
    assert b"done after 2 steps" in done.stderr
    assert read_header(tmp_path / "run").provenance["train_tokens"] == pytest.approx(440, abs=60)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90", 90), ("90s", 90), ("10m", 600), ("1h30m", 5400), ("1.5m", 90), (" 2h ", 7200)],
)
def test_times(text, seconds):
    assert parse_time(text) == seconds


@pytest.mark.parametrize("text", ["", "m", "-5s", "1d", "1.2.3", "ten", "5m3h", "1h30"])
def test_no_times(text):
    with pytest.raises(UsageError, match="expected a time such as"):
        parse_time(text)


def test_tensorboard(text, rnncli, tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    more = (*SMALL, "--epochs", 2, "--tensorboard")
    assert rnncli("train", text, "--out", "run", *more)[0] == 0
    found = EventAccumulator(str(tmp_path / "run/tensorboard"))
    found.Reload()
    assert {"train/nats", "train/lr", "valid/nats", "valid/perplexity"} <= set(
        found.Tags()["scalars"]
    )
    recorded = [e for e in metrics(tmp_path / "run") if e["event"] == "EvalReport"]
    scalars = found.Scalars("valid/nats")
    assert [s.step for s in scalars] == [e["step"] for e in recorded]
    assert [s.value for s in scalars] == pytest.approx([e["score"] for e in recorded])


def test_tensorboard_goes_on_where_the_run_does(text, rnncli, tmp_path, monkeypatch):
    """What a run has written that was stopped and not saved is not seen twice."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    monkeypatch.setattr("rnncli.training.loop.REPORT_SECONDS", 0.0)
    more = (*SMALL, "--epochs", 2, "--tensorboard", "--set", "training.save_every_seconds=1e9")
    with monkeypatch.context() as patch:
        at_step(patch, 15, kill)
        assert rnncli("train", text, "--out", "run", *more)[0] == 1
    assert rnncli("train", "--resume", "--out", "run", "--tensorboard")[0] == 0
    found = EventAccumulator(str(tmp_path / "run/tensorboard"))
    found.Reload()
    for tag, event in (("train/nats", "StepReport"), ("valid/nats", "EvalReport")):
        recorded = [e["step"] for e in metrics(tmp_path / "run") if e["event"] == event]
        assert [s.step for s in found.Scalars(tag)] == recorded
        assert len(set(recorded)) == len(recorded) > 1


def test_tensorboard_calls_losses_what_they_are(rnncli, tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    task = ("--task", "synthetic:adding", "--lag", 10, "--hidden-size", 8, "--max-steps", 3)
    assert rnncli("train", *task, "--threads", 1, "--out", "run", "--tensorboard")[0] == 0
    found = EventAccumulator(str(tmp_path / "run/tensorboard"))
    found.Reload()
    assert set(found.Tags()["scalars"]) == {
        "train/squared_error", "train/lr", "train/gradient_norm", "train/sequences_per_second",
        "valid/squared_error", "valid/success",
    }  # fmt: skip


def test_tensorboard_that_is_not_installed(text, rnncli, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    code, _, err = rnncli("train", text, "--out", "run", *SMALL, "--tensorboard")
    assert code == 2
    assert "pip install 'rnncli[tb]'" in err
    assert not (tmp_path / "run").exists()

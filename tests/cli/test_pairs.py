"""``score``, ``rescore`` and ``evaluate`` with models of translation."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from rnncli.cli.pairs import open_pairs
from rnncli.errors import DataError, UsageError
from rnncli.text.word import WordTokenizer
from tests.cli.in_process import Run, in_process
from tests.helpers import run_cli, tiny_model, tiny_translator

SOURCES = ["the cat", "sat on the mat", "", "mat"]
TARGETS = ["sat", "the mat", "on", ""]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Translators ``a`` and ``b``, a language model ``lm``, and four pairs in three files."""
    folder = tmp_path_factory.mktemp("pairs")
    tiny_translator(folder / "a")
    tiny_translator(folder / "b", seed=1)
    tiny_model(folder / "lm", tokenizer="word")
    write(folder / "s", SOURCES)
    write(folder / "t", TARGETS)
    write(folder / "st", [f"{s}\t{t}" for s, t in zip(SOURCES, TARGETS, strict=True)])
    return folder


def write(path: Path, lines: list[str]) -> Path:
    path.write_text("".join(f"{line}\n" for line in lines))
    return path


@pytest.fixture
def score(capfd: pytest.CaptureFixture[str]) -> Iterator[Run]:
    yield from in_process("score", capfd)


@pytest.fixture
def rescore(capfd: pytest.CaptureFixture[str]) -> Iterator[Run]:
    yield from in_process("rescore", capfd)


@pytest.fixture
def evaluate(capfd: pytest.CaptureFixture[str]) -> Iterator[Run]:
    yield from in_process("evaluate", capfd)


def test_byte_order_marks_are_no_text(folder: Path, evaluate: Run, tmp_path: Path) -> None:
    """Neither of sources, nor of references, nor of another system's translations."""
    marked = {name: tmp_path / name for name in ("s", "t")}
    for name, path in marked.items():
        path.write_bytes(b"\xef\xbb\xbf" + (folder / name).read_bytes())
    outs = [
        evaluate(folder / "a", "--source", files["s"], "--target", files["t"], "--json",
                 "--against-output", files["t"])
        for files in ({name: folder / name for name in marked}, marked)
    ]  # fmt: skip
    figures = [json.loads(out) for out in outs]
    for one in figures:
        del one["against"]["name"]
    assert figures[0] == figures[1]
    assert figures[1]["against"]["exact_match"] == 1.0


# -- score -----------------------------------------------------------------------------------


def test_one_number_out_for_each_pair_in(folder: Path, score: Run) -> None:
    done = run_cli("score", folder / "a", "--threads", "1", input=(folder / "st").read_bytes())
    assert done.returncode == 0, done.stderr
    out = done.stdout.decode()
    assert len(out.splitlines()) == 4
    assert all(float(number) < 0 for number in out.split())
    assert score(folder / "a", folder / "st") == out
    sides = ("--source", folder / "s", "--target", folder / "t")
    for batch_size in (1, 2, 32):
        assert score(folder / "a", *sides, "--batch-size", batch_size) == out
    assert score(folder / "a", *sides, "-m", folder / "b") != out


def test_pairs_of_two_files_come_as_the_slower_one_does(folder: Path) -> None:
    ours, theirs = os.pipe()
    with open_pairs(None, str(folder / "s"), f"/dev/fd/{ours}") as reader:
        batches = reader.batches(256)
        os.write(theirs, b"one\n")
        assert [pair and pair[1] for pair in next(batches)] == ["one"]
        os.write(theirs, b"two\nthree\n")
        assert [pair and pair[1] for pair in next(batches)] == ["two", "three"]
        os.close(theirs)
        with pytest.raises(DataError, match=r"s has 4 lines and .* 3;"):
            next(batches)
    os.close(ours)


def test_a_line_that_is_no_pair_is_a_blank_one(folder: Path, score: Run, tmp_path: Path) -> None:
    table = tmp_path / "table"
    table.write_bytes(b"the cat\tsat\n  \nthe cat\na\tb\tc\nthe \xff\tsat\nmat\t")
    out = score(folder / "a", table).split("\n")
    assert [bool(line) for line in out] == [True, False, False, False, True, True, False]
    assert (
        "3 bad lines repaired with U+FFFD or, where they are no pair, left out; "
        "the first is line 3: 1 column; expected two"
    ) in score.err  # type: ignore[attr-defined]
    rows = [
        json.loads(line) for line in score(folder / "a", table, "--format", "json").splitlines()
    ]
    assert [row["logprob"] is None for row in rows] == [False, True, True, True, False, False]
    summary = json.loads(score(folder / "a", table, "--format", "json", "--level", "summary"))
    assert (summary["lines"], summary["tokens"]) == (3, 5)
    table.write_text("the cat\tsat\n\nthe cat\n")
    with pytest.raises(DataError, match=r"table:3: 1 column; expected two"):
        score(folder / "a", table, "--on-bad-input", "error")


def test_levels_and_bases(folder: Path, score: Run) -> None:
    natural = [float(number) for number in score(folder / "a", folder / "st").split()]
    binary = [float(n) for n in score(folder / "a", folder / "st", "--log-base", "2").split()]
    assert binary == pytest.approx([n / math.log(2) for n in natural], abs=1e-3)
    lines = score(folder / "a", folder / "st", "--level", "word").splitlines()
    for line, target, whole in zip(lines, TARGETS, natural, strict=True):
        pieces = [word.split(" ") for word in line.split("\t")]
        assert [piece for piece, _ in pieces] == [*target.split(), "</s>"]
        assert sum(float(number) for _, number in pieces) == pytest.approx(whole, abs=1e-3)


def test_what_does_not_go_together(folder: Path, score: Run, tmp_path: Path) -> None:
    a, s, t = folder / "a", folder / "s", folder / "t"
    for arguments, message in (
        ((a, "--source", s), "give both"),
        ((a, folder / "st", "--source", s, "--target", t), "not both"),
        ((a, "--source", "-", "--target", "-"), "standard input has one of them"),
        ((a, folder / "st", "--format", "srilm"), "--format srilm: for a language model"),
        ((a, folder / "st", "--strip-lines"), "--strip-lines: not for a model of translation"),
        ((folder / "lm", s, "--source", s), "--source: not for a language model"),
        ((a, folder / "st", "-m", folder / "lm"), "needs a model of translation"),
        ((folder / "lm", s, "-m", a), "needs a language model"),
    ):
        with pytest.raises(UsageError, match=message):
            score(*arguments)
    for lines in (2, 6):
        other = write(tmp_path / "other", ["x"] * lines)
        with pytest.raises(DataError, match=rf"s has 4 lines and .*other {lines};"):
            score(a, "--source", s, "--target", other)
        with pytest.raises(DataError, match=rf"other has {lines} lines and .*t 4;"):
            score(a, "--source", other, "--target", t)


# -- rescore ---------------------------------------------------------------------------------


def test_n_best_lists_of_a_source(folder: Path, score: Run, rescore: Run, tmp_path: Path) -> None:
    entries = [(1, "the mat", -1.0), (1, "on", -2.0), (0, "sat", -3.0), (3, "", -4.0)]
    pairs = write(tmp_path / "pairs", [f"{SOURCES[k]}\t{text}" for k, text, _ in entries])
    numbers = [float(number) for number in score(folder / "a", pairs).split()]
    options = ("--source", folder / "s", "--weight", 0.25)
    tsv = write(tmp_path / "tsv", [f"{k}\t{text}\t{given}" for k, text, given in entries])
    moses = write(tmp_path / "moses", [f"{k} ||| {t} ||| f= 1 ||| {g}" for k, t, g in entries])
    for path, split in ((tsv, "\t"), (moses, " ||| ")):
        lines = [line.split(split) for line in rescore(folder / "a", path, *options).splitlines()]
        assert [line[:2] for line in lines] == [[str(k), text] for k, text, _ in entries]
        for line, number, (_, _, given) in zip(lines, numbers, entries, strict=True):
            combined = line[2] if split == "\t" else line[3]
            assert float(combined) == pytest.approx(0.75 * given + 0.25 * number, abs=1e-3)
            assert line[-1 if split == "\t" else 2].endswith(f"{number:.4f}")
    best = rescore(folder / "a", tsv, *options, "--best").splitlines()
    assert [line.split("\t")[0] for line in best] == ["1", "0", "3"]


def test_entries_of_another_text(folder: Path, rescore: Run, tmp_path: Path) -> None:
    nbest = write(tmp_path / "nbest", ["3\tmat", "no entry", "4\tmat"])
    with pytest.raises(DataError, match=r"nbest:3: id '4' names no line of the source .*s; its"):
        rescore(folder / "a", nbest, "--source", folder / "s")
    for arguments, message in (
        ((folder / "a", nbest), "--source: a model of translation needs"),
        ((folder / "a", "--source", "-"), "--source -: standard input has the n-best lists"),
        ((folder / "lm", nbest, "--source", folder / "s"), "--source: not for a language model"),
    ):
        with pytest.raises(UsageError, match=message):
            rescore(*arguments)


# -- evaluate --------------------------------------------------------------------------------


def test_every_figure(folder: Path, evaluate: Run, score: Run) -> None:
    values = json.loads(evaluate(folder / "a", folder / "st", "--json", "--beam-size", 2))
    assert list(values) == [
        "bleu", "chrf", "exact_match", "token_error_rate", "signature", "chrf_signature",
        "nats", "tokens", "oov", "perplexity", "perplexity_signature", "pairs", "beam_size",
        "length_penalty",
    ]  # fmt: skip
    assert (values["pairs"], values["beam_size"], values["tokens"]) == (4, 2, 8)
    summary = score(folder / "a", folder / "st", "--level", "summary", "--format", "json")
    assert values["perplexity"] == pytest.approx(json.loads(summary)["perplexity"], rel=1e-4)
    assert values["perplexity"] == pytest.approx(math.exp(values["nats"] / 8))
    assert values["perplexity_signature"].endswith("|eos:counted|unk:counted|given:source")
    sides = ("--source", folder / "s", "--target", folder / "t")
    assert json.loads(evaluate(folder / "a", *sides, "--json", "--beam-size", 2)) == values
    one = json.loads(evaluate(folder / "a", folder / "st", "--json", "--batch-size", 1))
    assert one["beam_size"] == 5
    long = json.loads(evaluate(folder / "a", *sides, "--json", "--length-penalty", 0))
    assert long["length_penalty"] == 0


def test_against_another_system(folder: Path, evaluate: Run, tmp_path: Path) -> None:
    done = run_cli("translate", folder / "b", folder / "s", "--threads", "1")
    (tmp_path / "out").write_bytes(done.stdout)
    by_model, by_file = (
        json.loads(evaluate(folder / "a", folder / "st", "--json", *options))
        for options in (
            ("--against", folder / "b"),
            ("--against-output", tmp_path / "out"),
        )
    )
    assert by_model["against"].pop("name") == str(folder / "b")
    assert by_file["against"].pop("name") == str(tmp_path / "out")
    assert by_model == by_file
    assert set(by_model["p_value"]) == {"bleu", "chrf"}
    assert "p_value" not in by_model["against"]
    alone = json.loads(evaluate(folder / "b", folder / "st", "--json", "--confidence"))
    for key, value in by_model["against"].items():
        assert alone[key] == value
    same = json.loads(evaluate(folder / "b", folder / "st", "--json", "--against", folder / "b"))
    assert same["p_value"] == {"bleu": 1.0, "chrf": 1.0}


def test_bleu_of_the_translations_is_sacrebleus(
    folder: Path, evaluate: Run, tmp_path: Path
) -> None:
    done = run_cli("translate", folder / "a", folder / "s", "--threads", "1")
    out = write(tmp_path / "out", done.stdout.decode().splitlines())
    wanted = write(tmp_path / "wanted", [line.upper() for line in out.read_text().splitlines()])
    pairs = ("--source", folder / "s", "--target", wanted)
    command = [sys.executable, "-m", "sacrebleu", wanted, "-i", out, "-m", "bleu", "-w", "6", "-lc"]
    theirs = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)
    lower = json.loads(evaluate(folder / "a", *pairs, "--lowercase", "--json"))
    assert lower["bleu"] == pytest.approx(theirs["score"], abs=1e-6)
    assert lower["signature"] == theirs["signature"]
    assert lower["bleu"] > json.loads(evaluate(folder / "a", *pairs, "--json"))["bleu"]


def test_a_table_for_people(folder: Path, evaluate: Run) -> None:
    out = evaluate(folder / "a", folder / "st", "--against", folder / "b")
    rows = dict(line.split("  ", 1) for line in out.splitlines() if line)
    assert "μ" in rows["BLEU"] and "±" in rows["against: chrF"]
    assert rows["against"].strip() == str(folder / "b")
    assert 0 < float(rows["p-value of BLEU"].split()[0]) <= 1
    assert rows["tokens"].strip() == "8 (word; ends and unknown ones counted)"


def test_a_source_that_encodes_to_nothing(
    folder: Path, evaluate: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """As a sentencepiece model from elsewhere does that drops invisible characters."""
    encode = WordTokenizer.encode
    monkeypatch.setattr(
        WordTokenizer, "encode", lambda self, line: encode(self, line.replace("\u200b", ""))
    )
    table = write(tmp_path / "table", ["\u200b\tsat", "the cat\tsat on", " \tmat"])
    values = json.loads(evaluate(folder / "a", table, "--json"))
    assert (values["pairs"], values["tokens"]) == (3, 7)
    assert 1 < values["perplexity"] < math.inf


def test_what_cannot_be_evaluated(folder: Path, evaluate: Run, tmp_path: Path) -> None:
    pairs = folder / "st"
    for arguments, message in (
        ((folder / "a", pairs, "--cache-window", 9), "--cache-window: not for a model of tra"),
        ((folder / "lm", folder / "s", "--beam-size", 3), "--beam-size: not for a language model"),
        ((folder / "lm", "--source", folder / "s"), "--source: not for a language model"),
        ((folder / "a", pairs, "--against", folder / "lm"), "needs a model of translation"),
        ((folder / "a", pairs, "--against", folder / "b", "--against-output", pairs), "one of"),
        ((folder / "a", "-", "--against-output", "-"), "standard input has the pairs"),
    ):
        with pytest.raises(UsageError, match=message):
            evaluate(*arguments)
    (tmp_path / "bytes").write_bytes(b"a\tb\n\xff\tb\n")
    empty = json.loads(
        evaluate(folder / "a", tmp_path / "bytes", "--on-bad-input", "empty", "--json")
    )
    assert empty["pairs"] == 1, "nothing in place of a bad line is no exact match"
    two = write(tmp_path / "two", ["b", "anything"])
    beside = evaluate(
        folder / "a",
        tmp_path / "bytes",
        "--on-bad-input",
        "empty",
        "--against-output",
        two,
        "--json",
    )
    assert json.loads(beside)["against"]["exact_match"] == 1.0, "its line has its own number"
    (tmp_path / "sources").write_bytes(b"a\n\xff\nb\nc\n")
    (tmp_path / "targets").write_bytes(b"a\n\xff\n\xff\nc\n")
    sides = ("--source", tmp_path / "sources", "--target", tmp_path / "targets", "--json")
    counts = [
        json.loads(evaluate(folder / "a", *sides, "--on-bad-input", how))["pairs"]
        for how in ("empty", "replace")
    ]
    assert counts == [2, 4]
    bad = write(tmp_path / "bad", ["a\tb", "", "c\td"])
    with pytest.raises(DataError, match=r"bad:2: 1 column; expected two"):
        evaluate(folder / "a", bad)
    with pytest.raises(DataError, match=r"empty: no pairs"):
        evaluate(folder / "a", write(tmp_path / "empty", []))
    with pytest.raises(DataError, match=r"--against-output: .*s has 4 lines for the 1 of"):
        evaluate(folder / "a", write(tmp_path / "one", ["a\tb"]), "--against-output", folder / "s")

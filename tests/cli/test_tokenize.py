"""Tokenizers as filters, through real pipes."""

import gzip
import itertools
import os
import select
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import sentencepiece
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rnncli.checkpoint import write_model
from rnncli.cli.streams import LineReader, LineWriter, OnBadInput, open_lines
from rnncli.config import Config
from rnncli.errors import DataError
from rnncli.text.tokenizers import train_tokenizer
from tests.helpers import RNNCLI, cli_env, run_cli

KINDS = ("byte", "char", "word", "bpe", "unigram")
REVERSIBLE = ("byte", "bpe", "unigram")
TEXT = "".join(
    f"The {animal} that lived in house {number} said: “{saying}!”\n"
    for number, (animal, saying) in enumerate(
        [("café owner", "très bien"), ("quick fox", "over the lazy dog"), ("owl", "whoo")] * 40
    )
)
# What comes in lines: none of it ends one.
ODD = [
    *(
        b"",
        b" ",
        b"  two  spaces  ",
        b"\ttab",
        b"with\rreturn",
        b"crlf\r",
        b"nul\0nul",
        b"a" * 5000,
    ),
    *(b"\xef\xbb\xbfbom", b"\x0b\x0c\x1c\x1d\x1e", b"<unk> </s> <s> <0x41>"),
    *("\u2028line\u2029separators\u0085".encode(), "\u2581mark \u2581 no\u00a0break".encode()),
    "😀\u0301 ﷽ \U0010ffff".encode(),
]
BOM = b"\xef\xbb\xbf"
BAD = [b"\xff", b"caf\xe9", b"\xed\xa0\x80", b"\xf5\x80", b"ok \xc3"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One tokenizer of each kind, trained by the command itself."""
    folder = tmp_path_factory.mktemp("tokenize")
    (folder / "text.txt").write_text(TEXT)
    for kind in KINDS:
        size = ["--vocab-size", "400"] if kind in ("bpe", "unigram") else []
        out = folder / f"{kind}.tok"
        done = run_cli(
            "tokenize", "train", folder / "text.txt", "--out", out, "--tokenizer", kind, *size
        )
        assert (done.returncode, done.stdout) == (0, b""), done.stderr
        assert f"wrote {out}: {kind}, " in done.stderr.decode()
    return folder


class Filter:
    """A command that stays open: lines in, lines out, again and again."""

    def __init__(self, *args: str | Path) -> None:
        self.process = subprocess.Popen(
            [*RNNCLI, *map(str, args)],
            env=cli_env(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            bufsize=0,
        )

    def __call__(self, lines: list[bytes]) -> list[bytes]:
        """As many lines as went in; the next call would see any more."""
        if not lines:
            return []
        os.write(self.process.stdin.fileno(), b"".join(line + b"\n" for line in lines))
        data = b""
        while data.count(b"\n") < len(lines):
            assert select.select([self.process.stdout], [], [], 20)[0], "no answer"
            chunk = os.read(self.process.stdout.fileno(), 1 << 16)
            assert chunk, self.process.stderr.read()
            data += chunk
        assert data.endswith(b"\n")
        return data[:-1].split(b"\n")

    def close(self) -> None:
        rest, _ = self.process.communicate(timeout=20)
        assert (rest, self.process.returncode) == (b"", 0)


@pytest.fixture(scope="module")
def filters(folder: Path) -> Iterator[dict[tuple[str, ...], Filter]]:
    commands = [("encode", *ids, kind) for kind in KINDS for ids in ([], ["--ids"])]
    commands += [
        ("decode", *ids, kind) for kind in ("byte", "bpe", "char") for ids in ([], ["--ids"])
    ]
    made = {
        command: Filter("tokenize", *command[:-1], folder / f"{command[-1]}.tok")
        for command in commands
    }
    for filter in made.values():  # a byte-order mark is one only in the very first line
        filter([b""])
    yield made
    for filter in made.values():
        filter.close()


quick = settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
some_bytes = st.binary(max_size=40).map(lambda line: line.replace(b"\n", b"\r"))
some_text = st.text(st.characters(exclude_characters="\n", codec="utf-8"), max_size=30)
some_lines = st.lists(
    some_bytes | some_text.map(str.encode) | st.sampled_from(ODD + BAD), max_size=8
)


@quick
@given(lines=some_lines)
def test_one_line_out_for_each_line_in(filters, lines):
    for (command, *_, kind), run in filters.items():
        assert len(run(lines)) == len(lines), (command, kind)


@quick
@given(lines=some_lines)
def test_decoding_what_was_encoded(filters, lines):
    for ids in ([], ["--ids"]):
        encoded = filters["encode", *ids, "byte"](lines)
        assert filters["decode", *ids, "byte"](encoded) == lines
        lines = [line.decode(errors="replace").encode() for line in lines]
        assert filters["decode", *ids, "bpe"](filters["encode", *ids, "bpe"](lines)) == lines


def test_whole_texts_come_back(folder):
    """The same as with files, and with a last line that no newline ends."""
    text = b"\n".join(ODD + TEXT.encode().splitlines() * 3)
    (folder / "odd.txt").write_bytes(text)
    (folder / "odd.txt.gz").write_bytes(gzip.compress(text[:5000]) + gzip.compress(text[5000:]))
    for kind in REVERSIBLE:
        tok = folder / f"{kind}.tok"
        encoded = run_cli("tokenize", "encode", tok, folder / "odd.txt")
        assert encoded.returncode == 0
        assert encoded.stdout.count(b"\n") == text.count(b"\n") + 1
        decoded = run_cli("tokenize", "decode", tok, "-", input=encoded.stdout)
        assert decoded.stdout == text + b"\n"
    again = run_cli("tokenize", "encode", tok, folder / "odd.txt.gz")
    assert (again.stdout, again.stderr) == (encoded.stdout, b"")


def test_pieces_are_those_of_the_tokenizer(folder):
    """Split at spaces alone, they are what sentencepiece itself gives; no white space inside."""
    out = folder / "same.model"
    arguments = ["--tokenizer", "unigram", "--vocab-size", "350"]
    done = run_cli("tokenize", "train", folder / "text.txt", "--out", out, *arguments)
    assert done.returncode == 0, done.stderr
    theirs = sentencepiece.SentencePieceProcessor(model_file=str(out))
    lines = TEXT.splitlines()[:3]
    for option, expected in (([], theirs.EncodeAsPieces), (["--ids"], theirs.EncodeAsIds)):
        ours = run_cli("tokenize", "encode", out, *option, input="\n".join(lines).encode())
        found = [line.split(" ") for line in ours.stdout.decode().splitlines()]
        assert found == [list(map(str, expected(line))) for line in lines]
    # A trained model's tokenizer does as well as the file it came from.
    tokenizer = train_tokenizer(Config().tokenizer, lines)
    write_model(
        folder / "model.safetensors",
        config=Config(),
        tokenizer=tokenizer,
        weights={},
        scores={},
        provenance={},
    )
    (line, *_) = lines
    for path in (folder, folder / "model.safetensors"):
        ours = run_cli("tokenize", "encode", path, "--ids", input=line.encode())
        assert ours.stdout.decode() == " ".join(map(str, tokenizer.encode(line))) + "\n"


def test_bad_input(folder):
    lines = [b"fine", b"caf\xe9", b"fine too", b"\xff\xfe"]
    tok = folder / "char.tok"
    done = run_cli("tokenize", "encode", tok, input=b"\n".join(lines))
    assert done.returncode == 0
    assert done.stdout.split(b"\n")[1] == b"c a f <unk>"
    assert "standard input: 2 bad lines repaired with U+FFFD; the first is line 2: " in (
        done.stderr.decode()
    )
    empty = run_cli("tokenize", "encode", tok, "--on-bad-input", "empty", input=b"\n".join(lines))
    assert empty.stdout.split(b"\n") == [b"f i n e", b"", "f i n e ▁ t o o".encode(), b"", b""]
    assert b"2 bad lines left empty" in empty.stderr
    (folder / "bad.txt").write_bytes(b"\n".join(lines))
    stopped = run_cli("tokenize", "encode", tok, folder / "bad.txt", "--on-bad-input", "error")
    assert stopped.returncode == 65
    assert f"{folder}/bad.txt:2: not UTF-8 at its byte 4" in stopped.stderr.decode()
    assert stopped.stdout == b"f i n e\n"  # as if the lines had come one by one
    assert b"Traceback" not in stopped.stderr


def test_bad_tokens(folder):
    lines = b"104 105\n104 x 105\n-1 \xd9\xa1 104\n999999999999\n300 104\n"
    tok = folder / "byte.tok"
    done = run_cli("tokenize", "decode", tok, "--ids", input=lines)
    assert done.stdout.decode() == "hi\nh\ufffdi\n\ufffd\ufffdh\n\ufffd\n\ufffdh\n"
    assert "4 bad lines repaired with U+FFFD; the first is line 2: 'x' is" in done.stderr.decode()
    words = run_cli(
        "tokenize", "decode", folder / "word.tok", input=b"The zzz quick \xff\nzzz The\n"
    )
    assert words.stdout.decode() == "The \ufffd quick \ufffd\n\ufffd The\n"
    assert b"2 bad lines repaired with U+FFFD; the first is line 1: " in words.stderr
    stopped = run_cli("tokenize", "decode", tok, "--ids", "--on-bad-input", "error", input=lines)
    assert stopped.returncode == 65
    assert b"standard input:2: 'x' is not a token id; " in stopped.stderr
    # A token that stands for a newline ends no line, either.
    newline = run_cli("tokenize", "decode", tok, "--ids", input=b"104 10 105\n")
    assert newline.stdout == b"h i\n"


def test_training_on_nothing_and_on_what_is_no_text(folder):
    (folder / "empty").touch()
    (folder / "blank").write_bytes(b"\n\n\n")
    (folder / "broken.gz").write_bytes(gzip.compress(TEXT.encode())[:-20])
    out = folder / "never.tok"
    for name, code in [("empty", 65), ("blank", 65), ("broken.gz", 65), ("missing", 74), (".", 74)]:
        kind = "char" if name == "blank" else "bpe"
        done = run_cli("tokenize", "train", folder / name, "--out", out, "--tokenizer", kind)
        assert done.returncode == code, (name, done.stderr)
        assert done.stderr.startswith(b"rnncli: error: ")
        assert done.stderr.count(b"\n") == 1
    done = run_cli("tokenize", "train", folder / "missing", "--out", out, "--tokenizer", "byte")
    assert done.returncode == 74
    assert not out.exists()
    done = run_cli("tokenize", "train", folder / "missing", "--out", folder / "no/such/x.tok")
    assert done.returncode == 74  # before any text is read
    assert b"cannot write" in done.stderr
    piped = run_cli("tokenize", "train", folder / "text.txt", "--out", "/dev/stdout")
    assert piped.returncode == 0
    assert b'"chars"' in piped.stdout


def test_training_counts_and_limits(folder):
    def vocabulary(*arguments: str) -> bytes:
        out = folder / "limited.tok"
        text = b"b b b a a c\nb a d d d d\n"
        command = ["tokenize", "train", "-", "--out", out, "--tokenizer", "word", *arguments]
        assert run_cli(*command, input=text).returncode == 0
        return run_cli("tokenize", "encode", out, input=b"a b c d").stdout

    assert vocabulary() == b"a b c d\n"
    assert vocabulary("--min-count", "4") == b"<unk> b <unk> d\n"
    assert vocabulary("--vocab-size", "5") == b"a b <unk> d\n"


def test_what_is_no_tokenizer(folder):
    (folder / "fake.model").write_bytes(b"no such thing")
    (folder / "fake.tok").write_bytes(b"no such thing")
    for name in ("fake.model", "fake.tok"):
        done = run_cli("tokenize", "encode", folder / name, input=b"x")
        assert done.returncode == 65
        assert name in done.stderr.decode()


@pytest.mark.parametrize("kind", ["bpe", pytest.param("byte", marks=pytest.mark.slow)])
def test_a_line_of_10_mb(kind, folder):
    line = b"The quick fox said whoo. " * 400_000
    encoded = run_cli("tokenize", "encode", folder / f"{kind}.tok", input=line)
    assert (encoded.returncode, encoded.stdout.count(b"\n")) == (0, 1)
    decoded = run_cli("tokenize", "decode", folder / f"{kind}.tok", input=encoded.stdout)
    assert decoded.stdout == line + b"\n"


# -- reading and writing, without a process ------------------------------------------------------


def read_in_pieces(pieces: list[bytes], max_lines: int) -> list[list[str]]:
    """The batches when each of ``pieces`` comes after the one before was worked through."""
    end, start = os.pipe()
    waiting = list(pieces)

    class Reader(LineReader):
        def _chunks(self) -> Iterator[bytes]:
            while waiting:
                os.write(start, waiting.pop(0))
                yield os.read(end, 1 << 16)

    try:
        return list(Reader("test", end).batches(max_lines))
    finally:
        os.close(start)
        os.close(end)


@given(
    mark=st.sampled_from([b"", BOM, BOM + BOM, BOM[:2]]),
    data=st.binary(max_size=60).map(lambda data: data.replace(b"\0", b"\n")),
    cuts=st.lists(st.integers(0, 60)),
    max_lines=st.integers(1, 5),
)
def test_the_same_lines_however_they_come(mark, data, cuts, max_lines):
    """Less a byte-order mark at the very start."""
    data = mark + data
    places = sorted({0, len(data), *(cut for cut in cuts if cut < len(data))})
    pieces = [data[a:b] for a, b in itertools.pairwise(places)]
    batches = read_in_pieces(pieces, max_lines)
    assert all(0 < len(batch) <= max_lines for batch in batches)
    data = data.removeprefix(BOM)
    expected = data.removesuffix(b"\n").split(b"\n") if data else []
    assert [line for batch in batches for line in batch] == [
        line.decode(errors="replace") for line in expected
    ]


def test_a_fast_pipe_is_batched_and_a_slow_one_answered(tmp_path):
    (tmp_path / "x").write_bytes(b"line\n" * 1000)
    with open_lines(str(tmp_path / "x")) as reader:
        assert [len(batch) for batch in reader.batches(300)] == [300, 300, 300, 100]
    assert read_in_pieces([b"a\nb\nc", b"d\n", b"e"], 300) == [["a", "b"], ["cd"], ["e"]]


def test_a_byte_order_mark_is_dropped_at_the_very_start(tmp_path):
    """Unless the reader takes any bytes, and passes them on."""
    text = BOM + b"a\n" + BOM + b"b\n"
    (tmp_path / "x").write_bytes(text)
    (tmp_path / "x.gz").write_bytes(gzip.compress(text))
    for name in ("x", "x.gz"):
        for any_bytes, first in ((False, "a"), (True, "\ufeffa")):
            with open_lines(str(tmp_path / name), any_bytes=any_bytes) as reader:
                assert list(reader.batches(10)) == [[first, "\ufeffb"]]
    (tmp_path / "x").write_bytes(BOM)
    with open_lines(str(tmp_path / "x")) as reader:
        assert list(reader.batches(10)) == []


def test_gzip_that_is_padded_with_many_zeros(tmp_path):
    """More of them than one read brings."""
    member = gzip.compress(b"line\n" * 10)
    (tmp_path / "x.gz").write_bytes(member + b"\0" * 200_000 + member)
    with open_lines(str(tmp_path / "x.gz")) as reader:
        assert sum(map(len, reader.batches(100))) == 20


def test_gzip_that_is_damaged(tmp_path):
    whole = gzip.compress(b"line\n" * 1000)
    for data, message in [(whole[:-9], "cut short"), (b"text\n", "not a gzip file")]:
        (tmp_path / "x.gz").write_bytes(data)
        with open_lines(str(tmp_path / "x.gz")) as reader, pytest.raises(DataError, match=message):
            list(reader.batches(10))
    (tmp_path / "x.gz").write_bytes(whole[:-9])
    with open_lines(str(tmp_path / "x.gz")) as reader:
        batches = reader.batches(5000)
        assert set(next(batches)) == {"line"}  # what is whole comes before the error
        with pytest.raises(DataError, match="cut short"):
            next(batches)
    for data in (b"", whole + b"\0" * 512, whole + whole):
        (tmp_path / "x.gz").write_bytes(data)
        with open_lines(str(tmp_path / "x.gz")) as reader:
            assert sum(map(len, reader.batches(10))) == 1000 * data.count(whole)


def test_any_bytes_go_through(tmp_path, capfdbinary):
    (tmp_path / "x").write_bytes(b"a\xff\xfe\nb\n")
    with open_lines(str(tmp_path / "x"), any_bytes=True, on_bad_input=OnBadInput.ERROR) as reader:
        for lines in reader.batches(10):
            LineWriter().write(lines)
    LineWriter().write(["\ud800", "two\nlines"])
    assert capfdbinary.readouterr() == (b"a\xff\xfe\nb\n?\ntwo lines\n", b"")


def test_a_pipe_that_does_not_block():
    """Some parents hand on a pipe in that mode; reading waits all the same."""
    end, start = os.pipe()
    os.set_blocking(end, False)
    reader = LineReader("test", end)
    started = time.monotonic()
    process = subprocess.Popen(["sh", "-c", "sleep 0.2; echo late"], stdout=start)
    os.close(start)
    assert list(reader.batches(5)) == [["late"]]
    assert time.monotonic() - started > 0.1
    process.wait()
    os.close(end)

"""Corpora: what is trained on, held out, counted, noted; many files, processes, long lines."""

import gzip
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rnncli.errors import DataError, FileError, UsageError
from rnncli.sections import DataConfig, TokenizerConfig
from rnncli.text import corpus as module
from rnncli.text import lines as lines_module
from rnncli.text import parallel
from rnncli.text.corpus import Corpus, Counts, TokenStream, encode_file, load_corpus
from rnncli.text.tokenizers import train_tokenizer

KINDS = ("byte", "char", "word", "bpe", "unigram")


def written(path: Path, text: str | bytes) -> str:
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return str(path)


def load(*train: str, kind: str = "char", on_bad_input: str = "replace", **data: object) -> Corpus:
    config = DataConfig(train=train, **data)  # type: ignore[arg-type]
    return load_corpus(config, TokenizerConfig(kind=kind), on_bad_input=on_bad_input)


def text_of(corpus: Corpus, stream: TokenStream | None) -> str:
    assert stream is not None
    return corpus.tokenizer.decode(stream.ids.tolist())


@pytest.fixture
def in_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small texts take the way of large ones: cached, in chunks, in two processes."""
    monkeypatch.setattr(module, "CACHED_BYTES", 1)
    monkeypatch.setattr(module, "PARALLEL_BYTES", 1)
    monkeypatch.setattr(module, "worker_count", lambda: 2)
    monkeypatch.setattr(lines_module, "CHUNK_BYTES", 1000)


@pytest.mark.parametrize("kind", KINDS)
def test_each_line_is_its_tokens_and_the_boundary(kind: str, tmp_path: Path) -> None:
    lines = ["a b", "", " c  a", "b", "a"]
    path = written(tmp_path / "a.txt", "\n".join(lines))
    corpus = load(path, kind=kind, valid_fraction=0.0)
    tokenizer = corpus.tokenizer
    expected = [t for line in lines for t in [*tokenizer.encode(line), tokenizer.boundary_id]]
    assert corpus.train[0].ids.tolist() == expected
    assert corpus.valid is None
    assert corpus.train[0].counts.tokens == len(expected)


def test_counts(tmp_path: Path) -> None:
    train = written(tmp_path / "train.txt", "ab é\nab\n")
    test = written(tmp_path / "test.txt", " ab  é x \n\nb\xe9".encode("latin-1") + b"\xc3\xa9")
    char = load(train, valid_fraction=0.0).tokenizer
    counts = encode_file(char, test).counts
    assert counts == Counts(
        lines=3, words=4 + 3, characters=10 + 1 + 4, bytes=10 + 1 + 5, tokens=15, oov=3, bad_lines=2
    )
    stripped = encode_file(char, test, strip_lines=True).counts
    assert (stripped.characters, stripped.bytes, stripped.tokens) == (13, 14, 13)
    emptied = encode_file(char, test, on_bad_input="empty").counts
    assert (emptied.lines, emptied.bytes, emptied.bad_lines) == (3, 3, 2)
    with pytest.raises(DataError, match=r"test\.txt:1: "):
        encode_file(char, test, on_bad_input="error")
    byte = load(train, kind="byte", valid_fraction=0.0).tokenizer
    exact = encode_file(byte, test)
    assert bytes(exact.ids.tolist()) == Path(test).read_bytes() + b"\n"
    assert exact.counts.bad_lines == 0


def test_the_last_lines_over_all_files_are_held_out(tmp_path: Path) -> None:
    paths = [
        written(tmp_path / f"{n}.txt", "".join(f"{n}{i}\n" for i in range(10))) for n in range(3)
    ]
    corpus = load(*paths, valid_fraction=0.5)
    assert [text_of(corpus, part) for part in corpus.train] == [
        Path(paths[0]).read_text(),
        "".join(f"1{i}\n" for i in range(5)),
        "",
    ]
    held = "".join(f"1{i}\n" for i in range(5, 10)) + Path(paths[2]).read_text()
    assert text_of(corpus, corpus.valid) == held
    assert corpus.valid is not None
    assert corpus.valid.counts.lines == 15
    assert corpus.notes[0].startswith("The last 15 of 30 lines are held out")


def test_the_vocabulary_never_sees_what_is_held_out(tmp_path: Path) -> None:
    corpus = load(written(tmp_path / "a.txt", "ab\nab\nax\n"), valid_fraction=0.34)
    assert text_of(corpus, corpus.valid) == "a\ufffd\n"


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    st.lists(st.lists(st.text("ab \ufeffé", max_size=5), max_size=5), min_size=1, max_size=3),
    st.floats(0.01, 0.99),
)
def test_training_and_held_out_text_make_up_the_corpus(
    tmp_path: Path, files: list[list[str]], fraction: float
) -> None:
    paths = [
        written(tmp_path / f"{n}.txt", "".join(line + "\n" for line in lines))
        for n, lines in enumerate(files)
    ]
    texts = [Path(path).read_bytes() for path in paths]
    if not any(texts):
        return
    corpus = load(*paths, kind="byte", valid_fraction=fraction)
    parts = [*corpus.train, *([corpus.valid] if corpus.valid else [])]
    found = b"".join(bytes(part.ids.tolist()) for part in parts)
    total = sum(text.count(b"\n") for text in texts)
    if total >= 2:
        assert found == b"".join(texts)
        assert corpus.valid is not None
        least, held = max(1, int(total * fraction)), corpus.valid.counts.lines
        last = b"".join(texts).split(b"\n")[-1 - least : -1]
        assert held == least or (held > least and not b"".join(last).strip())
    elif corpus.valid:  # one line in two
        assert found.replace(b"\n", b"") == b"".join(texts).replace(b"\n", b"")


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_one_long_line_is_cut_at_white_space(tmp_path: Path, suffix: str) -> None:
    line = "word " * 399 + "end"
    data = line.encode()
    path = written(tmp_path / f"a.txt{suffix}", gzip.compress(data) if suffix else data)
    corpus = load(path, kind="word", valid_fraction=0.1)
    assert corpus.train[0].counts.words == 359 + 1
    assert corpus.valid is not None
    assert corpus.valid.counts.words == 41 + 1
    assert "is one line" in corpus.notes[0]


def test_one_long_line_without_white_space_is_cut_between_characters(tmp_path: Path) -> None:
    corpus = load(written(tmp_path / "a.txt", "é" * 999), valid_fraction=0.05)
    assert text_of(corpus, corpus.train[0]) == "é" * 949 + "\n"
    assert text_of(corpus, corpus.valid) == "é" * 50 + "\n"


@pytest.mark.parametrize("text", ["a", "a\n", "\ufeffa\n", "é", "  a", "\n"])
def test_too_small_a_corpus_is_not_cut(tmp_path: Path, text: str) -> None:
    corpus = load(written(tmp_path / "a.txt", text))
    assert corpus.valid is None
    assert text_of(corpus, corpus.train[0]) == text.strip("\ufeff\n") + "\n"
    assert "too small to hold any of it out" in corpus.notes[0]


def test_a_validation_file_is_taken_whole(tmp_path: Path) -> None:
    train, valid = written(tmp_path / "t", "abc\nab\n"), written(tmp_path / "v", "abd")
    corpus = load(train, valid=valid)
    assert text_of(corpus, corpus.train[0]) == "abc\nab\n"
    assert text_of(corpus, corpus.valid) == "ab\ufffd\n"
    assert corpus.valid is not None
    assert corpus.valid.counts.oov == 1
    assert corpus.notes == ()


def test_empty_texts_are_named(tmp_path: Path) -> None:
    empty, text = written(tmp_path / "e.txt", ""), written(tmp_path / "t.txt", "a\nb\n")
    for call in (
        lambda: load(empty),
        lambda: load(text, valid=empty),
        lambda: encode_file(train_tokenizer(TokenizerConfig(), ["a"]), empty),
        lambda: load(written(tmp_path / "e.txt", "\ufeff")),
    ):
        with pytest.raises(DataError, match=r"e\.txt: empty; give a text file"):
            call()
    corpus = load(empty, text, valid_fraction=0.0)
    assert [part.counts.lines for part in corpus.train] == [0, 2]
    assert corpus.notes == (f"{empty} is empty.",)
    with pytest.raises(UsageError, match=r"data\.train"):
        load()
    with pytest.raises(FileError, match="missing"):
        load(str(tmp_path / "missing"))


def test_bad_lines_are_noted(tmp_path: Path) -> None:
    path = written(tmp_path / "a.txt", b"a\n\xff\nb\n\xff\xff\n")
    corpus = load(path, valid_fraction=0.0)
    assert corpus.notes == (
        f"{path}: 2 of 4 lines were not UTF-8; each has U+FFFD for what was not.",
    )
    assert "each was left empty" in load(path, valid_fraction=0.0, on_bad_input="empty").notes[0]
    assert load(path, kind="byte", valid_fraction=0.0).notes == ()
    with pytest.raises(DataError, match=r"a\.txt:2"):
        load(path, on_bad_input="error")


def test_fingerprints_are_of_the_text(tmp_path: Path) -> None:
    def fingerprint(text: str, **data: object) -> str:
        path = written(tmp_path / "a.txt", text)
        return load(path, valid_fraction=0.0, **data).train[0].fingerprint

    assert fingerprint("a\nb") == fingerprint("a\nb\n") == fingerprint("\ufeffa\nb\n")
    assert fingerprint("a\nb") != fingerprint("a\nc")


def long_text() -> str:
    rng = np.random.default_rng(1)
    words = np.array(["the", "cat", "é", "dogs", " ", "\u2028", "ran\r", "x" * 30])
    lines = [" ".join(rng.choice(words, rng.integers(0, 12))) for _ in range(500)]
    lines[250] = " ".join(rng.choice(words, 3000))  # longer than a chunk
    return "\n".join(lines)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("strip_lines", [False, True])
def test_processes_and_cache_change_nothing(
    kind: str, strip_lines: bool, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    path = written(tmp_path / "a.txt", long_text())
    plain = load(path, kind=kind, strip_lines=strip_lines)
    request.getfixturevalue("in_processes")
    for _ in range(2):  # the second time from the cache
        corpus = load(path, kind=kind, strip_lines=strip_lines)
        assert corpus.tokenizer.fingerprint == plain.tokenizer.fingerprint
        assert corpus.notes == plain.notes
        pairs = zip([*corpus.train, corpus.valid], [*plain.train, plain.valid], strict=True)
        for found, expected in pairs:
            assert found is not None
            assert expected is not None
            assert np.array_equal(found.ids, expected.ids)
            assert found.ids.dtype == expected.ids.dtype
            assert (found.counts, found.fingerprint) == (expected.counts, expected.fingerprint)


@pytest.mark.usefixtures("in_processes")
def test_a_bad_long_line_counts_once_and_is_named(tmp_path: Path) -> None:
    path = written(tmp_path / "a.txt", b"ok\n" * 5 + b"bad \xff " * 1000 + b"\nok\n")
    corpus = load(path, kind="word", valid_fraction=0.0)
    assert corpus.train[0].counts.bad_lines == 1
    assert corpus.train[0].counts.words == 5 + 2000 + 1 + 7
    with pytest.raises(DataError, match=r"a\.txt:6: "):
        load(path, kind="word", on_bad_input="error", valid_fraction=0.0)


@pytest.mark.usefixtures("in_processes")
def test_the_work_is_done_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise AssertionError("a task ran in this process")

    monkeypatch.setattr(module.EncodeTask, "run", fail)
    monkeypatch.setattr(module.CountTask, "run", fail)
    corpus = load(written(tmp_path / "a.txt", long_text()), kind="word")
    assert corpus.train[0].counts.lines == 475


@pytest.mark.usefixtures("in_processes")
def test_dead_workers_cost_speed_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = written(tmp_path / "a.txt", long_text())
    expected = load(path, kind="word").train[0].ids.tolist()
    for number, program in enumerate(["/bin/false", "/no/such/program", ""]):
        monkeypatch.setenv("RNNCLI_CACHE", str(tmp_path / f"cache{number}"))
        monkeypatch.setattr(sys, "executable", program)
        assert load(path, kind="word").train[0].ids.tolist() == expected


@pytest.mark.usefixtures("in_processes")
def test_progress_rises_to_the_total(tmp_path: Path) -> None:
    path = written(tmp_path / "a.txt", long_text())
    for _ in range(2):
        calls: list[tuple[int, int]] = []
        load_corpus(
            DataConfig(train=(path,)),
            TokenizerConfig(kind="word"),
            progress=lambda done, total, calls=calls: calls.append((done, total)),
        )
        done = [call[0] for call in calls]
        assert done == sorted(done)
        assert calls[-1][0] == calls[-1][1]


def test_work_under_way_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    class Upper:
        def describe(self) -> tuple[dict[str, object], bytes]:
            raise OSError

        def run(self, chunk: parallel.Chunk) -> tuple[dict[str, object], bytes]:
            return {}, chunk.data.upper()

    taken = 0

    def chunks() -> object:
        nonlocal taken
        for number in range(100):
            taken += 1
            yield parallel.Chunk(f"a{number}".encode(), "a", 1)

    results = parallel.map_chunks(Upper(), chunks(), workers=3)  # type: ignore[arg-type]
    for number in range(50):
        assert next(results)[2] == f"A{number}".encode()
        assert taken <= number + 6
    results.close()  # type: ignore[attr-defined]


def test_a_very_long_line(tmp_path: Path) -> None:
    path = written(tmp_path / "a.txt", "abc de " * 1_500_000)
    corpus = load(path, kind="word")
    assert corpus.valid is not None
    assert corpus.train[0].counts.words + corpus.valid.counts.words == 3_000_000 + 2
    assert isinstance(corpus.train[0].ids, np.memmap)


def test_what_changes_while_it_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is not kept under the fingerprint of what it was."""
    path = written(tmp_path / "a.txt", "the cat\n" * 600_000)
    train = module._trained

    def slow(*args: Any) -> Any:
        tokenizer = train(*args)
        with open(path, "a") as file:
            file.write("and a dog\n")
        return tokenizer

    monkeypatch.setattr(module, "_trained", slow)
    data = DataConfig(train=(str(path),), valid_fraction=0.0)
    with pytest.raises(DataError, match="it was changed while it was read"):
        load_corpus(data, TokenizerConfig(kind="word"))
    assert not list((tmp_path / "cache").glob("*.ids"))


@pytest.mark.parametrize("end", ["\n", "\r\n", " \n"])
def test_what_is_held_out_is_not_blank(end: str, tmp_path: Path) -> None:
    path = tmp_path / "t"
    path.write_text(f"one\ntwo\nthree{end}{end}{end}")
    corpus = load_corpus(DataConfig(train=(str(path),)), TokenizerConfig(kind="char"))
    assert corpus.valid is not None
    assert corpus.valid.counts.lines == 4
    assert "The last 4 of 5 lines" in corpus.notes[0]

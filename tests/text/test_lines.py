"""Reading files: line ends, byte-order marks, bad UTF-8, gzip, standard input, pipes, errors."""

import gzip
import io
import os
import threading
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rnncli.errors import DataError, FileError, UsageError
from rnncli.text import lines as module
from rnncli.text.lines import Source, Span, read_lines


def written(path: Path, data: bytes) -> Path:
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.binary(max_size=8).map(lambda b: b.replace(b"\n", b"")), max_size=8), st.data())
def test_every_line_comes_back_whatever_the_chunks(
    tmp_path: Path, lines: list[bytes], data: st.DataObject
) -> None:
    content = b"".join(line + b"\n" for line in lines)
    if content and lines[-1] and data.draw(st.booleans()):
        content = content[:-1]  # a missing last newline changes nothing
    path = written(tmp_path / data.draw(st.sampled_from(["a.txt", "a.txt.gz"])), content)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "CHUNK_BYTES", data.draw(st.integers(1, 9)))
        found = list(read_lines(path, byte_exact=True))
        assert [line.encode("utf-8", "surrogateescape") for line in found] == lines
        whole = b"".join(line + b"\n" for line in lines)
        for cut in (False, True):
            assert b"".join(Span(Source.of(path)).chunks(True, cut)) == whole


def test_only_newlines_end_lines(tmp_path: Path) -> None:
    text = "a\u2028b\x85c\x0bd\x0ce\rf\x00g\x1ch\r\n\ni"
    path = written(tmp_path / "a.txt", text.encode())
    assert list(read_lines(path)) == text.split("\n")


def test_a_byte_order_mark_is_dropped_once(tmp_path: Path) -> None:
    path = written(tmp_path / "a.txt", "\ufeffa\n\ufeffb\n".encode())
    assert list(read_lines(path)) == ["a", "\ufeffb"]
    assert list(read_lines(path, byte_exact=True)) == ["\ufeffa", "\ufeffb"]
    assert list(read_lines(written(path, b"\xef\xbb\xbf"))) == []


def test_stripping_is_of_white_space_at_both_ends(tmp_path: Path) -> None:
    path = written(tmp_path / "a.txt", b" a  b \n\t\n c\r\n")
    assert list(read_lines(path, strip_lines=True)) == ["a  b", "", "c"]
    assert list(read_lines(path)) == [" a  b ", "\t", " c\r"]


def test_bad_utf8_is_replaced_refused_or_emptied(tmp_path: Path) -> None:
    path = written(tmp_path / "a.txt", b"good\nb\xffd \xe2\x82\nal\xc3\xa9so\n")
    assert list(read_lines(path)) == ["good", "b\ufffdd \ufffd", "al\u00e9so"]
    assert list(read_lines(path, on_bad_input="empty")) == ["good", "", "al\u00e9so"]
    assert list(read_lines(path, byte_exact=True))[1] == "b\udcffd \udce2\udc82"
    with pytest.raises(DataError, match=r"a\.txt:2: not UTF-8 text"):
        list(read_lines(path, on_bad_input="error"))
    with pytest.raises(UsageError, match="unknown value 'ignore'"):
        list(read_lines(path, on_bad_input="ignore"))


def test_the_line_of_bad_utf8_counts_all_chunks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "CHUNK_BYTES", 64)
    path = written(tmp_path / "a.txt", b"a line\n" * 100 + b"\xff\n")
    with pytest.raises(DataError, match=r"a\.txt:101: "):
        list(read_lines(path, on_bad_input="error"))


def test_files_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    with pytest.raises(FileError, match=r"cannot read .*missing\.txt: No such file"):
        list(read_lines(tmp_path / "missing.txt"))
    with pytest.raises(FileError, match=r"cannot read .*null byte"):
        list(read_lines("a\0b"))
    with pytest.raises(FileError, match=f"cannot read {tmp_path}: Is a directory"):
        list(read_lines(tmp_path))
    path = written(tmp_path / "a.txt", b"text")
    with pytest.raises(DataError, match=r"b\.gz: not a whole gzip file"):
        list(read_lines(path.rename(tmp_path / "b.gz")))
    whole = gzip.compress(os.urandom(10_000))
    (tmp_path / "b.gz").write_bytes(whole[:5000])
    with pytest.raises(DataError, match=r"b\.gz: not a whole gzip file"):
        list(read_lines(tmp_path / "b.gz"))


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root reads everything")
def test_an_unreadable_file_is_named(tmp_path: Path) -> None:
    path = written(tmp_path / "a.txt", b"text")
    path.chmod(0)
    with pytest.raises(FileError, match=r"a\.txt: Permission denied"):
        list(read_lines(path))


def test_standard_input_can_be_read_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"a\nb")))
    assert list(read_lines("-")) == list(read_lines("-")) == ["a", "b"]
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"c")))
    assert list(read_lines("-")) == ["c"]
    monkeypatch.setattr("sys.stdin", None)
    with pytest.raises(FileError, match="no standard input"):
        list(read_lines("-"))


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_pipe_can_be_read_twice(tmp_path: Path) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    writer = threading.Thread(target=path.write_bytes, args=(b"a\nb\n",))
    writer.start()
    assert list(read_lines(path)) == ["a", "b"]
    writer.join()
    assert list(read_lines(path)) == ["a", "b"]


def test_long_lines_are_cut_before_a_space_if_allowed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "CHUNK_BYTES", 100)
    line = b"word " * 100
    span = Span(Source.of(written(tmp_path / "a.txt", line)))
    assert list(span.chunks()) == [line + b"\n"]
    parts = list(span.chunks(cut_lines=True))
    assert b"".join(parts) == line + b"\n"
    assert len(parts) > 3
    assert all(part.startswith(b" word") for part in parts[1:-1])


def test_a_span_ends_where_it_should(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CHUNK_BYTES", 4)
    for name in ("a.txt", "a.txt.gz"):
        source = Source.of(written(tmp_path / name, b"aa\nbb\ncc\ndd\n"))
        assert b"".join(Span(source, 3, 9).chunks()) == b"bb\ncc\n"
        assert b"".join(Span(source, 9).chunks()) == b"dd\n"


@pytest.mark.parametrize("text", [b"a\nb\n", b"\n\xef\xbb\xbfx\n", b"\xef\xbb\xbfa\nb\n"])
def test_a_short_part_of_a_file_ends_where_it_ends(text: bytes, tmp_path: Path) -> None:
    """However short it is: the mark that may be at the start is not looked for beyond it."""
    path = tmp_path / "t"
    path.write_bytes(text)
    for stop in range(len(text) + 1):
        if text[:stop].endswith(b"\n") or stop == 0:
            found = b"".join(Span(Source.of(path), 0, stop).chunks())
            assert found == text[:stop].removeprefix(b"\xef\xbb\xbf")

"""The cache: found again, never trusted when damaged, never in the way of a run."""

import os
import resource
from pathlib import Path

import numpy as np
import pytest

from rnncli.sections import TokenizerConfig
from rnncli.text import cache as module
from rnncli.text.cache import (
    IdWriter,
    cache_folder,
    cache_key,
    load_ids,
    load_tokenizer,
    save_tokenizer,
)
from rnncli.text.tokenizers import train_tokenizer

BLOCKS = [np.arange(n, n + 1000, dtype=np.uint16) for n in range(0, 5000, 1000)]
IDS = np.concatenate(BLOCKS)
HEADER = {"tokens": 5000, "counts": {}}


def filled(key: str | None) -> np.ndarray:
    writer = IdWriter(key, np.uint16)
    for block in BLOCKS:
        writer.write(block.tobytes())
    return writer.finish(HEADER)


def test_ids_are_found_again(cache: Path) -> None:
    assert load_ids("k", np.uint16) is None
    assert np.array_equal(filled("k"), IDS)
    found = load_ids("k", np.uint16)
    assert found is not None
    assert isinstance(found[0], np.memmap)
    assert np.array_equal(found[0], IDS)
    assert found[1] == HEADER
    assert [path.name for path in cache.iterdir()] == ["k.ids"]
    assert load_ids("k", np.uint32) is None


def test_without_a_key_nothing_is_written(cache: Path) -> None:
    assert np.array_equal(filled(None), IDS)
    assert not cache.exists()


def test_no_ids_at_all(cache: Path) -> None:
    for key in (None, "k"):
        writer = IdWriter(key, np.uint32)
        assert writer.finish({"tokens": 0}).tolist() == []
    found = load_ids("k", np.uint32)
    assert found is not None
    assert len(found[0]) == 0


@pytest.mark.parametrize("damage", ["cut", "longer", "header", "empty"])
def test_damaged_ids_are_not_found(cache: Path, damage: str) -> None:
    filled("k")
    path = cache / "k.ids"
    data = path.read_bytes()
    path.write_bytes(
        {"cut": data[:-1], "longer": data + b"x", "header": b"\xff" + data[1:], "empty": b""}[
            damage
        ]
    )
    assert load_ids("k", np.uint16) is None


def test_what_is_not_finished_goes_away(cache: Path) -> None:
    writer = IdWriter("k", np.uint16)
    writer.write(BLOCKS[0].tobytes())
    assert len(list(cache.iterdir())) == 1
    writer.close()
    assert list(cache.iterdir()) == []


def test_a_folder_that_cannot_be_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("RNNCLI_CACHE", str(tmp_path / "file" / "cache"))
    ids = filled("k")
    assert np.array_equal(ids, IDS)
    assert isinstance(ids, np.memmap)
    save_tokenizer("t", train_tokenizer(TokenizerConfig(), ["a"]))
    assert load_tokenizer("t") is None


@pytest.mark.parametrize("room", [0, 4096, 5000, 4096 + 2000, 9999])
def test_a_full_disk_moves_the_ids_on(cache: Path, room: int) -> None:
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, limit[1]))
    try:
        ids = filled("k")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    assert np.array_equal(ids, IDS)
    assert list(cache.iterdir()) == []


def test_a_full_cache_falls_back_to_a_temporary_file(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = 0
    plain = module._write_all

    def fails_at_third(file: object, data: bytes) -> None:
        nonlocal written
        written += 1
        if written == 3:
            raise OSError(28, "No space left on device")
        plain(file, data)  # type: ignore[arg-type]

    monkeypatch.setattr(module, "_write_all", fails_at_third)
    ids = filled("k")
    assert isinstance(ids, np.memmap)
    assert np.array_equal(ids, IDS)
    assert list(cache.iterdir()) == []


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_file_that_cannot_take_its_place(
    cache: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    def fail(*_: object) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, call, fail)
    assert np.array_equal(filled("k"), IDS)
    save_tokenizer("t", train_tokenizer(TokenizerConfig(), ["a"]))
    assert list(cache.iterdir()) == []


def test_tokenizers_are_found_again_unless_damaged(cache: Path) -> None:
    tokenizer = train_tokenizer(TokenizerConfig(kind="word"), ["a b"])
    save_tokenizer("t", tokenizer)
    found = load_tokenizer("t")
    assert found is not None
    assert found.fingerprint == tokenizer.fingerprint
    path = cache / "t.tokenizer"
    data = path.read_bytes()
    for damaged in (b"", data[:-3], data.replace(b'"a"', b'"c"'), b"\xff" + data):
        path.write_bytes(damaged)
        assert load_tokenizer("t") is None


def test_what_is_old_is_removed(cache: Path) -> None:
    filled("old")
    filled("used")
    for name in ("old.ids", "used.ids"):
        os.utime(cache / name, (0, 0))
    assert load_ids("used", np.uint16) is not None
    (cache / ".new-left").write_text("")
    os.utime(cache / ".new-left", (0, 0))
    filled("new")
    assert sorted(path.name for path in cache.iterdir()) == ["new.ids", "used.ids"]


def test_where_the_cache_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/x")
    monkeypatch.setenv("RNNCLI_CACHE", "/y")
    assert cache_folder() == Path("/y")
    monkeypatch.delenv("RNNCLI_CACHE")
    assert cache_folder() == Path("/x/rnncli")
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", "/h")
    assert cache_folder() == Path("/h/.cache/rnncli")


def test_keys_tell_parts_apart() -> None:
    assert len({cache_key("a", "b"), cache_key("ab"), cache_key("b", "a"), cache_key("a")}) == 4

"""Token ids and trained tokenizers kept on disk, so that no text is tokenised twice.

The folder is ``$RNNCLI_CACHE``, else ``$XDG_CACHE_HOME/rnncli``, else ``~/.cache/rnncli``. Files
are named by the SHA-256 of all that determines their content, and appear whole or not at all.
Nothing here fails a run: where the cache cannot be written ids go to a temporary file, and where
there is no room for that either, to memory.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np

from rnncli.errors import ModelError
from rnncli.text.protocol import Ids, Tokenizer
from rnncli.text.tokenizers import tokenizer_from_bytes

_FORMAT = 1
_HEADER_BYTES = 4096  # a page, so that the ids can be mapped
_UNFINISHED = ".new-"

Header = dict[str, Any]


def cache_folder() -> Path:
    if folder := os.environ.get("RNNCLI_CACHE"):
        return Path(folder)
    if folder := os.environ.get("XDG_CACHE_HOME"):
        return Path(folder) / "rnncli"
    return Path(os.path.expanduser("~")) / ".cache" / "rnncli"


def cache_key(*parts: object) -> str:
    """The name for what ``parts`` (anything JSON can say) determine."""
    return hashlib.sha256(json.dumps([_FORMAT, *parts]).encode()).hexdigest()


def load_ids(key: str, dtype: type[Any]) -> tuple[Ids, Header] | None:
    """The ids kept under ``key``, mapped read-only, and their header; None when there are none or
    they are damaged."""
    path = cache_folder() / f"{key}.ids"
    try:
        with open(path, "rb") as file:
            header = json.loads(file.read(_HEADER_BYTES))
            count = header["tokens"]
            size = os.fstat(file.fileno()).st_size
            if size != _HEADER_BYTES + count * np.dtype(dtype).itemsize:
                return None
            ids = _mapped(file, dtype, count)
        with contextlib.suppress(OSError):
            os.utime(path)  # in use
        return ids, header
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _mapped(file: IO[bytes], dtype: type[Any], count: int) -> Ids:
    if count == 0:
        return np.empty(0, dtype)
    return np.memmap(file, dtype, "r", offset=_HEADER_BYTES, shape=(count,))


class IdWriter:
    """Ids on their way to the cache; ``finish`` gives them back as one array."""

    def __init__(self, key: str | None, dtype: type[Any]) -> None:
        """With ``key`` None the ids stay in memory."""
        self._dtype = dtype
        self._count = 0
        self._blocks: list[bytes] = []  # what is in memory, once there is no file
        self._file: IO[bytes] | None = None
        self._unfinished: Path | None = None
        self._path: Path | None = None  # where the file is to appear
        self._places = iter(() if key is None else (self._in_cache, self._temporary))
        if key is not None:
            self._path = cache_folder() / f"{key}.ids"
            self._move(0)

    def write(self, payload: bytes) -> None:
        """``payload``: ids as bytes in the order of this machine."""
        self._count += len(payload) // np.dtype(self._dtype).itemsize
        while self._file is not None:
            place = self._file.tell()
            try:
                return _write_all(self._file, payload)
            except OSError:
                self._move(place)
        self._blocks.append(payload)
        return None

    def finish(self, header: Header) -> Ids:
        """All ids, (N,). The file takes its place with ``header``, which must name ``tokens``."""
        if self._file is None:
            return np.frombuffer(b"".join(self._blocks), self._dtype)
        ids = _mapped(self._file, self._dtype, self._count)
        if self._unfinished and self._path:
            with contextlib.suppress(OSError):
                self._file.seek(0)
                _write_all(self._file, json.dumps(header).encode().ljust(_HEADER_BYTES))
                os.fsync(self._file.fileno())
                os.replace(self._unfinished, self._path)
                self._unfinished = None
        self.close()
        return ids

    def close(self) -> None:
        """Takes away what is not finished."""
        if self._file is not None:
            self._file.close()
            self._file = None
        if self._unfinished is not None:
            self._unfinished.unlink(missing_ok=True)
            self._unfinished = None

    def _in_cache(self) -> IO[bytes]:
        folder = cache_folder()
        folder.mkdir(parents=True, exist_ok=True)
        _remove_stale(folder)
        handle, name = tempfile.mkstemp(dir=folder, prefix=_UNFINISHED)
        self._unfinished = Path(name)
        return open(handle, "w+b", buffering=0)

    def _temporary(self) -> IO[bytes]:
        return tempfile.TemporaryFile(buffering=0)

    def _move(self, size: int) -> None:
        """Takes the first ``size`` bytes written so far to the next place that has room."""
        old, self._file = self._file, None
        left, self._unfinished = self._unfinished, None
        for place in self._places:
            with contextlib.suppress(OSError):
                self._file = place()
                if old is None:
                    _write_all(self._file, bytes(_HEADER_BYTES))
                else:
                    _copy(old, self._file, size)
                break
            self.close()
        if old is not None:
            if self._file is None:
                old.seek(_HEADER_BYTES)
                self._blocks += _blocks(old, size - _HEADER_BYTES)
            old.close()
        if left is not None:
            left.unlink(missing_ok=True)


def load_tokenizer(key: str) -> Tokenizer | None:
    """The tokenizer kept under ``key``; None when there is none or it is damaged."""
    try:
        path = cache_folder() / f"{key}.tokenizer"
        kind, _, data = path.read_bytes().partition(b"\n")
        digest, _, data = data.partition(b"\n")
        tokenizer = tokenizer_from_bytes(kind.decode(), data)
    except (OSError, ValueError, RuntimeError, ModelError):
        return None
    if tokenizer.fingerprint != digest.decode("ascii", "replace"):
        return None
    with contextlib.suppress(OSError):
        os.utime(path)
    return tokenizer


def save_tokenizer(key: str, tokenizer: Tokenizer) -> None:
    """Keeps ``tokenizer`` under ``key``, if that can be."""
    with contextlib.suppress(OSError, RuntimeError):
        folder = cache_folder()
        folder.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=folder, prefix=_UNFINISHED)
        try:
            with open(handle, "wb") as file:
                file.write(f"{tokenizer.kind}\n{tokenizer.fingerprint}\n".encode())
                file.write(tokenizer.to_bytes())
                file.flush()
                os.fsync(file.fileno())
            os.replace(name, folder / f"{key}.tokenizer")
        except OSError:
            os.unlink(name)


def _write_all(file: IO[bytes], data: bytes) -> None:
    """An unbuffered file may take less than it is given."""
    view = memoryview(data)
    while view:
        view = view[file.write(view) :]


def _copy(source: IO[bytes], target: IO[bytes], size: int) -> None:
    source.seek(0)
    for block in _blocks(source, size):
        _write_all(target, block)


def _blocks(source: IO[bytes], size: int) -> Iterator[bytes]:
    """The next ``size`` bytes; one read may give fewer than it is asked for."""
    while size and (block := source.read(min(size, 1 << 22))):
        yield block
        size -= len(block)


def _remove_stale(folder: Path) -> None:
    """What was not used for a month, and unfinished files of processes killed a day ago."""
    for pattern, days in ((f"{_UNFINISHED}*", 1), ("*.ids", 30), ("*.tokenizer", 30)):
        for path in folder.glob(pattern):
            with contextlib.suppress(OSError):
                if time.time() - path.stat().st_mtime > days * 24 * 3600:
                    path.unlink()

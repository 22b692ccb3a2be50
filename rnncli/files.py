"""Files that are either wholly there or not at all, and a folder that one process trains in."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path

from rnncli.errors import FileError, UsageError

# What touches the disk goes through these names, so that a test can make each call fail in turn.
_open = os.open
_write = os.write
_fsync = os.fsync
_replace = os.replace

_PREFIX, _SUFFIX = ".rnncli-", ".tmp"


def write_atomically(path: Path, parts: Iterable[bytes | memoryview]) -> None:
    """Make ``path`` hold ``parts`` (bytes, or views of bytes), or leave it as it was.

    The bytes go to a temporary file in the same folder, are flushed to the disk, and take the
    name of ``path`` in one step; permissions follow the umask. A symbolic link stays one: what it
    points to is replaced. A device or a pipe is written to directly.

    Raises FileError when any of it fails. The old file is then untouched and no temporary file is
    left, with one exception: when the last step, flushing the folder, fails, ``path`` already has
    its new contents, complete, but they may not outlive a power cut.
    """
    try:
        if _is_special(path):  # before links are read: /dev/stdout may lead to what has no path
            _write_in_place(path, parts)
            return
        target = Path(os.path.realpath(path))
        temporary = target.parent / f"{_PREFIX}{os.urandom(8).hex()}{_SUFFIX}"
        try:
            _write_new(temporary, parts)
            _replace(temporary, target)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
            raise
        _sync_folder(target.parent)
    except OSError as error:
        raise FileError.of("write", path, error) from None


def append(path: Path, data: bytes) -> None:
    """Add ``data`` to the end of ``path``, made when missing. A failure may leave part of it there.

    Raises FileError.
    """
    try:
        handle = _open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o666)
        try:
            _write_all(handle, (data,))
        finally:
            os.close(handle)
    except OSError as error:
        raise FileError.of("write", path, error) from None


@contextlib.contextmanager
def lock_run(folder: Path) -> Iterator[None]:
    """Hold ``folder`` (made when missing) as the one process that trains in it.

    The lock ends with the process, however it ends, and is not handed to its children. Temporary
    files that killed runs left behind are removed when it is taken.

    Raises UsageError when another process holds it, FileError when the folder cannot be used.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle = _open(folder / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    except OSError as error:
        raise FileError.of("write", folder, error) from None
    _held.add(handle)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(handle, 32, 0).decode("ascii", "replace").strip() or "unknown"
            raise UsageError(
                f"{folder} is being trained by another process (pid {holder}); "
                "wait for it or give another folder with --out"
            ) from None
        except OSError as error:
            raise FileError.of("lock", folder, error) from None
        try:
            os.ftruncate(handle, 0)
            os.pwrite(handle, b"%d\n" % os.getpid(), 0)
            _remove_stale(folder)
        except OSError as error:
            raise FileError.of("write", folder / ".lock", error) from None
        yield
    finally:
        if handle in _held:  # a child made by fork has closed it already
            _held.discard(handle)
            os.close(handle)


def _is_special(path: Path) -> bool:
    """Whether ``path`` is there and is neither a file nor a folder."""
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError:
        return False
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    return not stat.S_ISREG(mode)


def _write_new(path: Path, parts: Iterable[bytes | memoryview]) -> None:
    handle = _open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
    try:
        # The lock tells _remove_stale of another process that this file is being written.
        with contextlib.suppress(OSError):
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        _write_all(handle, parts)
        _fsync(handle)
    finally:
        os.close(handle)


def _write_in_place(path: Path, parts: Iterable[bytes | memoryview]) -> None:
    handle = _open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        _write_all(handle, parts)
    finally:
        os.close(handle)


def _write_all(handle: int, parts: Iterable[bytes | memoryview]) -> None:
    for part in parts:
        rest = memoryview(part)
        while rest:
            rest = rest[_write(handle, rest) :]


def _sync_folder(folder: Path) -> None:
    handle = _open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        _fsync(handle)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # file systems that cannot
            raise
    finally:
        os.close(handle)


def _remove_stale(folder: Path) -> None:
    for path in folder.glob(f"{_PREFIX}*{_SUFFIX}"):
        with contextlib.suppress(OSError):
            handle = _open(path, os.O_RDONLY | os.O_CLOEXEC)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                os.unlink(path)
            finally:
                os.close(handle)


_held: set[int] = set()  # open lock files of this process


def _close_in_child() -> None:
    while _held:
        os.close(_held.pop())


os.register_at_fork(after_in_child=_close_in_child)

import os
import signal
import stat
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from rnncli import files
from rnncli.errors import FileError, UsageError
from rnncli.files import lock_run, write_atomically
from tests.helpers import cli_env

PARTS = [b"one", b"", memoryview(b"two"), b"three" * 1000]
WHOLE = b"".join(PARTS)


def fail_at(monkeypatch: pytest.MonkeyPatch, name: str, turn: int) -> list[int]:
    """Make call number ``turn`` of an operation fail; returns the list its calls are counted in."""
    calls: list[int] = []
    real = getattr(files, name)

    def operation(*args: object) -> object:
        calls.append(len(calls))
        if len(calls) == turn + 1:
            raise OSError(28, "No space left on device")
        return real(*args)

    monkeypatch.setattr(files, name, operation)
    return calls


@pytest.mark.parametrize("name", ["_open", "_write", "_fsync", "_replace"])
def test_every_operation_failing_in_turn(name, tmp_path, monkeypatch):
    path = tmp_path / "file"
    for turn in range(100):
        path.write_bytes(b"old")
        with monkeypatch.context() as patch:
            calls = fail_at(patch, name, turn)
            try:
                write_atomically(path, PARTS)
                failed = False
            except FileError as error:
                failed = True
                assert str(error) == f"cannot write {path}: No space left on device"
        assert failed == (len(calls) > turn)
        # The folder is flushed last, by the second open and the second fsync.
        renamed = not failed or (name in ("_open", "_fsync") and turn == 1)
        assert path.read_bytes() == (WHOLE if renamed else b"old")
        assert os.listdir(tmp_path) == ["file"]
        if not failed:
            break
    assert turn >= {"_open": 2, "_write": 3, "_fsync": 2, "_replace": 1}[name]


def test_short_writes_are_continued(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "_write", lambda handle, data: os.write(handle, data[:7]))
    write_atomically(tmp_path / "file", PARTS)
    assert (tmp_path / "file").read_bytes() == WHOLE


def test_interrupted_by_what_makes_the_parts(tmp_path):
    (tmp_path / "file").write_bytes(b"old")

    def parts():
        yield b"new"
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_atomically(tmp_path / "file", parts())
    assert os.listdir(tmp_path) == ["file"]
    assert (tmp_path / "file").read_bytes() == b"old"


def test_order_of_operations(tmp_path, monkeypatch):
    """Data are on the disk before the name points to them, and the name before we return."""
    log: list[str] = []
    for name in ("_write", "_fsync", "_replace"):
        real = getattr(files, name)
        monkeypatch.setattr(files, name, lambda *a, n=name, r=real: (log.append(n), r(*a))[1])
    write_atomically(tmp_path / "file", [b"x", b"y"])
    assert log == ["_write", "_write", "_fsync", "_replace", "_fsync"]


def test_permissions_follow_the_umask(tmp_path):
    old = os.umask(0o027)
    try:
        write_atomically(tmp_path / "file", [b"x"])
    finally:
        os.umask(old)
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == 0o640


def test_a_link_stays_a_link(tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to("folder/file")
    for text in (b"first", b"second"):
        write_atomically(tmp_path / "link", [text])
        assert (tmp_path / "link").is_symlink()
        assert (tmp_path / "folder/file").read_bytes() == text


def test_a_name_as_long_as_names_can_be(tmp_path):
    write_atomically(tmp_path / ("n" * 255), [b"x"])
    assert os.listdir(tmp_path) == ["n" * 255]


def test_a_device_is_written_to_and_not_replaced():
    with pytest.raises(FileError, match="No space left"):
        write_atomically(Path("/dev/full"), [b"x"])
    write_atomically(Path("/dev/null"), [b"x"])
    assert stat.S_ISCHR(os.stat("/dev/full").st_mode)
    assert stat.S_ISCHR(os.stat("/dev/null").st_mode)


def test_what_cannot_be_written(tmp_path):
    with pytest.raises(FileError, match="Is a directory"):
        write_atomically(tmp_path, [b"x"])
    with pytest.raises(FileError, match="No such file"):
        write_atomically(tmp_path / "missing/file", [b"x"])
    (tmp_path / "file").write_bytes(b"old")
    with pytest.raises(FileError, match="Not a directory"):
        write_atomically(tmp_path / "file/inside", [b"x"])


def python(code: str, *args: object, **options: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", textwrap.dedent(code), *map(str, args)]
    return subprocess.Popen(
        command, env=cli_env(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options
    )


def test_a_full_disk(tmp_path):
    """The limit on a file's size stands for it: writes succeed in part, then fail."""
    (tmp_path / "file").write_bytes(b"old")
    process = python(
        """
        import resource, sys
        from pathlib import Path
        from rnncli.errors import FileError
        from rnncli.files import write_atomically
        resource.setrlimit(resource.RLIMIT_FSIZE, (10000, 10000))
        try:
            write_atomically(Path(sys.argv[1]), [b"x" * 6000] * 3)
        except FileError as error:
            print(error)
        """,
        tmp_path / "file",
    )
    out, err = process.communicate(timeout=30)
    assert "File too large" in out, err
    assert (tmp_path / "file").read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["file"]


HOLD = """
import sys, time
from pathlib import Path
from rnncli.files import lock_run
with lock_run(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def test_the_second_process_is_refused_until_the_first_is_killed(tmp_path):
    run = tmp_path / "deep" / "run"
    process = python(HOLD, run)
    assert process.stdout.readline() == "held\n"
    with pytest.raises(UsageError, match=rf"another process \(pid {process.pid}\)"), lock_run(run):
        pytest.fail("two held it")
    process.send_signal(signal.SIGKILL)
    process.communicate()
    with lock_run(run), pytest.raises(UsageError, match=f"pid {os.getpid()}"), lock_run(run):
        pytest.fail("two held it")
    with lock_run(run):
        pass


def test_children_do_not_keep_the_lock(tmp_path):
    """Neither one made by fork nor one made by exec, both living on after it is given back."""
    end, start = os.pipe()
    with lock_run(tmp_path):
        forked = os.fork()
        if not forked:
            os.write(start, b"here")
            time.sleep(60)
            os._exit(0)
        assert os.read(end, 4) == b"here"
        spawned = subprocess.Popen(["sleep", "60"], close_fds=False)
    try:
        with lock_run(tmp_path):
            pass
    finally:
        os.kill(forked, signal.SIGKILL)
        os.waitpid(forked, 0)
        spawned.kill()
        spawned.wait()
        os.close(start)
        os.close(end)


def test_temporary_files_of_killed_runs_are_removed(tmp_path):
    process = python(
        """
        import os, signal, sys
        from pathlib import Path
        from rnncli.files import write_atomically
        def parts():
            yield b"half"
            os.kill(os.getpid(), signal.SIGKILL)
        write_atomically(Path(sys.argv[1]), parts())
        """,
        tmp_path / "file",
    )
    process.communicate(timeout=30)
    assert len(os.listdir(tmp_path)) == 1
    (tmp_path / "other.tmp").touch()

    def parts():
        yield b"one"
        with lock_run(tmp_path):  # as another process would, in the middle of this writing
            pass
        yield b"two"

    write_atomically(tmp_path / "file", parts())
    assert (tmp_path / "file").read_bytes() == b"onetwo"
    assert sorted(os.listdir(tmp_path)) == [".lock", "file", "other.tmp"]


def test_a_folder_that_cannot_be_locked(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(FileError, match="cannot write"), lock_run(tmp_path / "file"):
        pytest.fail("held")
    with pytest.raises(FileError, match="cannot write"), lock_run(tmp_path / "file" / "run"):
        pytest.fail("held")

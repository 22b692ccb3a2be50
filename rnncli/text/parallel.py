"""A task over many chunks, in several processes, results in order, memory bounded."""

from __future__ import annotations

import os
import queue
import subprocess
import sys
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

from rnncli.errors import DataError
from rnncli.text.tasks import Chunk, Header, Task
from rnncli.text.worker import read_frame, write_frame


def worker_count() -> int:
    """The processors that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def map_chunks(
    task: Task, chunks: Iterable[Chunk], workers: int
) -> Iterator[tuple[Chunk, Header, bytes]]:
    """Each chunk with what ``task`` makes of it, in order; with fewer than 2 workers, made here.

    At most two chunks a worker are under way. A worker that cannot start or dies costs speed only:
    its chunk is done here. Raises what the task raises.
    """
    if workers < 2:
        for chunk in chunks:
            yield chunk, *task.run(chunk)
        return
    idle: queue.SimpleQueue[_Worker] = queue.SimpleQueue()
    everyone = [_Worker(task) for _ in range(workers)]
    for worker in everyone:
        idle.put(worker)

    def run(chunk: Chunk) -> tuple[Header, bytes]:
        worker = idle.get()
        try:
            return worker.run(chunk)
        finally:
            idle.put(worker)

    under_way: deque[tuple[Chunk, Future[tuple[Header, bytes]]]] = deque()
    threads = ThreadPoolExecutor(workers)
    try:
        for chunk in chunks:
            under_way.append((chunk, threads.submit(run, chunk)))
            if len(under_way) >= 2 * workers:
                done, result = under_way.popleft()
                yield done, *result.result()
        while under_way:
            done, result = under_way.popleft()
            yield done, *result.result()
    finally:
        for _, result in under_way:
            result.cancel()
        for worker in everyone:
            worker.stop()
        threads.shutdown()


class _Worker:
    """One process, or this one once that has failed."""

    def __init__(self, task: Task) -> None:
        self._task = task
        self._process: subprocess.Popen[bytes] | None = None
        # -P keeps the working folder off the path: a file of the user's could hide a module
        command = [sys.executable, "-P", "-m", "rnncli.text.worker"]
        path = os.pathsep.join(entry for entry in sys.path if entry)
        try:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env={**os.environ, "PYTHONPATH": path},
            )
            assert self._process.stdin
            write_frame(self._process.stdin, *task.describe())
        except OSError:
            self.stop()

    def run(self, chunk: Chunk) -> tuple[Header, bytes]:
        process = self._process
        if process is not None and process.stdin and process.stdout:
            try:
                header = {"name": chunk.name, "first_line": chunk.first_line}
                write_frame(process.stdin, header, chunk.data)
                header, payload = read_frame(process.stdout)
            except (OSError, EOFError, ValueError):
                if self._process is None:  # stopped by map_chunks: nobody waits for the result
                    raise
                self.stop()
            else:
                if "error" in header:
                    raise DataError(header["error"])
                return header, payload
        return self._task.run(chunk)

    def stop(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.kill()
        process.wait()
        for stream in (process.stdin, process.stdout):
            if stream:
                try:
                    stream.close()
                except OSError:
                    continue  # what was not sent yet has no reader any more

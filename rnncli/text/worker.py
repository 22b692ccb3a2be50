"""A process that does a task on chunk after chunk: ``python -m rnncli.text.worker``.

Frames go both ways over standard input and output: the length of a JSON header and of a payload
(each eight bytes, little-endian), then the two. The first frame describes the task. Not
``multiprocessing``: that would import the user's main script again in every process.
"""

from __future__ import annotations

import json
import signal
import struct
import sys
from typing import IO

from rnncli.errors import DataError
from rnncli.text.tasks import Chunk, Header, task_from

_LENGTHS = struct.Struct("<QQ")


def write_frame(stream: IO[bytes], header: Header, payload: bytes) -> None:
    head = json.dumps(header).encode()
    stream.write(_LENGTHS.pack(len(head), len(payload)))
    stream.write(head)
    stream.write(payload)
    stream.flush()


def read_frame(stream: IO[bytes]) -> tuple[Header, bytes]:
    """Raises EOFError when the other side is gone."""
    head, payload = _LENGTHS.unpack(_exactly(stream, _LENGTHS.size))
    return json.loads(_exactly(stream, head)), _exactly(stream, payload)


def _exactly(stream: IO[bytes], size: int) -> bytes:
    data = stream.read(size)
    if len(data) < size:
        raise EOFError
    return data


def main() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's; its end ends this too
    source, target = sys.stdin.buffer, sys.stdout.buffer
    try:
        task = task_from(*read_frame(source))
        while True:
            header, data = read_frame(source)
            try:
                result = task.run(Chunk(data, header["name"], header["first_line"]))
            except DataError as error:
                result = {"error": str(error)}, b""
            write_frame(target, *result)
    except (EOFError, BrokenPipeError):
        return


if __name__ == "__main__":
    main()

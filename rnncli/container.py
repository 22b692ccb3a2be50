"""A safetensors file that describes itself and notices any change to it. Nothing in it is code.

The header's metadata has one key, ``rnncli``, whose value is a JSON object: ``format``, ``kind``,
``rnncli_version``, whatever belongs to the kind, and three SHA-256 digests. ``weights_sha256``
covers name, dtype, shape and bytes of every tensor but the tokenizer, in the order of their names,
so that it tells whether two runs ended alike; ``tokenizer_sha256`` covers the tensor ``tokenizer``;
``sha256`` covers the rest of the object and the table of tensors. So the header is verified without
reading the tensors, and whoever wants the tokenizer reads and verifies that alone.

The header is parsed here and not by the safetensors package, which returns nothing without numpy
or torch. Equal contents make equal bytes. The layout: an 8-byte little-endian length, so many bytes
of JSON, the tensors (https://github.com/huggingface/safetensors#format).
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import stat
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rnncli import __version__
from rnncli.errors import FileError, ModelError
from rnncli.files import write_atomically

FORMAT = 1
TOKENIZER = "tokenizer"  # the name of the tensor that holds a tokenizer
SOURCE_TOKENIZER = "source_tokenizer"  # that of a source with a vocabulary of its own
TOKENIZERS = (TOKENIZER, SOURCE_TOKENIZER)
ITEM_SIZES = {"F64": 8, "I64": 8, "F32": 4, "I32": 4, "F16": 2, "BF16": 2, "I16": 2,
              "I8": 1, "U8": 1, "BOOL": 1}  # fmt: skip

# What a header may ask of a reader: parsing it takes some 50 MB and a second at most.
_MAX_HEADER_BYTES = 16 << 20
_MAX_HEADER_VALUES = 1 << 18
_MAX_DIMENSIONS = 8
_MAX_ELEMENTS = 1 << 60

Table = Mapping[str, tuple[str, tuple[int, ...]]]


@dataclass(frozen=True)
class Blob:
    """A tensor as the file has it: ``data`` are its elements in row-major order, little-endian."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    data: bytes | memoryview


def write_container(
    path: Path, kind: str, fields: Mapping[str, Any], blobs: Iterable[Blob]
) -> None:
    """Write a file of ``kind`` atomically. ``fields``: JSON values that belong to the kind."""
    blobs = sorted(blobs, key=lambda blob: blob.name)
    metadata = {"format": FORMAT, "kind": kind, "rnncli_version": __version__, **fields}
    metadata["weights_sha256"] = _digest(blob for blob in blobs if blob.name not in TOKENIZERS)
    metadata["tokenizer_sha256"] = _digest(blob for blob in blobs if blob.name in TOKENIZERS)
    metadata["sha256"] = _header_digest(
        metadata, {blob.name: (blob.dtype, blob.shape) for blob in blobs}
    )
    header: dict[str, Any] = {"__metadata__": {"rnncli": _canonical(metadata)}}
    # Wide items first, so that every tensor starts at a multiple of its item size.
    blobs.sort(key=lambda blob: -ITEM_SIZES[blob.dtype])
    end = 0
    for blob in blobs:
        begin, end = end, end + len(blob.data)
        header[blob.name] = {
            "dtype": blob.dtype,
            "shape": list(blob.shape),
            "data_offsets": [begin, end],
        }
    text = _canonical(header).encode()
    text += b" " * (-len(text) % 8)
    if len(text) > _MAX_HEADER_BYTES or _values(text) > _MAX_HEADER_VALUES:
        raise ValueError(f"{path}: a header of {len(text)} bytes is too large to be read again")
    write_atomically(path, [len(text).to_bytes(8, "little"), text, *(blob.data for blob in blobs)])


class Container:
    """An open file with a verified header: ``metadata``, and ``table``: name -> (dtype, shape)."""

    def __init__(self, path: Path, handle: int) -> None:
        self.path = path
        self.bytes = os.fstat(handle).st_size
        self._handle = handle
        outer, data_begin = self._parse_header()
        self.metadata = self._parse_metadata(outer.pop("__metadata__", None))
        self._offsets: dict[str, tuple[int, int]] = {}
        self.table: Table = self._parse_table(outer, data_begin)
        if self.metadata.get("sha256") != _header_digest(self.metadata, self.table):
            raise self.damaged("its header does not match its checksum")

    @classmethod
    @contextmanager
    def open(cls, path: Path) -> Iterator[Container]:
        """Raises FileError when it cannot be read, ModelError when it is not what was written."""
        try:
            if not stat.S_ISREG(os.stat(path).st_mode):  # opening a pipe could wait for ever
                raise FileError(f"cannot read {path}: not a regular file; expected a model's file")
            handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            try:
                yield cls(path, handle)
            finally:
                os.close(handle)
        except OSError as error:
            raise FileError.of("read", path, error) from None

    def damaged(self, what: str) -> ModelError:
        return ModelError(f"{self.path} is damaged: {what}; make it again or restore a copy")

    def field(self, name: str, kind: type[Any]) -> Any:
        """The metadata's value ``name``, of type ``kind``."""
        value = self.metadata.get(name)
        if not isinstance(value, kind):
            raise self.damaged(f"its metadata has no valid {name!r}")
        return value

    def item_bytes(self, name: str) -> int:
        """The size of tensor ``name`` in bytes; never more than the file has."""
        begin, end = self._offsets[name]
        return end - begin

    def read(self, buffers: Mapping[str, memoryview]) -> None:
        """Fill a buffer of ``item_bytes`` for each of the named tensors, which must be all of the
        weights or of the tokenizers, and compare them with their digest."""
        for name in sorted(buffers, key=lambda name: self._offsets[name]):
            self._fill(buffers[name], self._offsets[name][0])
        blobs = (Blob(name, *self.table[name], buffers[name]) for name in sorted(buffers))
        label = "tokenizer_sha256" if set(TOKENIZERS) & set(buffers) else "weights_sha256"
        if self.field(label, str) != _digest(blobs):
            raise self.damaged("its contents do not match their checksum")

    def _fill(self, view: memoryview, begin: int) -> None:
        while view:
            count = os.preadv(self._handle, [view], begin)
            if not count:
                raise self.damaged("it ends too early")
            view, begin = view[count:], begin + count

    def _parse_header(self) -> tuple[dict[str, Any], int]:
        """The header's JSON object, and where the tensors' bytes begin."""
        start = os.pread(self._handle, 9, 0)
        length = int.from_bytes(start[:8], "little")
        if start[8:] != b"{" or length > _MAX_HEADER_BYTES:
            raise ModelError(
                f"{self.path} is {_kind_of_file(start)}; expected a file that rnncli wrote, "
                "such as model.safetensors in the folder of a run"
            )
        if length > self.bytes - 8:
            raise self.damaged(f"it ends too early ({self.bytes} bytes of {8 + length} or more)")
        text = bytearray(length)
        self._fill(memoryview(text), 8)
        if _values(text) > _MAX_HEADER_VALUES:
            raise self.damaged("its header is too long")
        return self._parse_object(text, "header"), 8 + length

    def _parse_metadata(self, outer: Any) -> dict[str, Any]:
        text = outer.get("rnncli") if isinstance(outer, dict) else None
        if not isinstance(text, str):
            raise ModelError(
                f"{self.path} is a safetensors file, but not one that rnncli wrote; "
                "expected the model.safetensors of a run"
            )
        if len(outer) > 1:
            raise self.damaged("its metadata has unknown keys")
        metadata = self._parse_object(text, "metadata")
        version = metadata.get("format")
        if type(version) is not int or version < 1:
            raise self.damaged("its metadata has no valid 'format'")
        if version > FORMAT:
            raise ModelError(
                f"{self.path} was made by a newer rnncli (format {version}, this one reads "
                f"{FORMAT}); upgrade rnncli to read it"
            )
        return metadata

    def _parse_object(self, text: str | bytearray, what: str) -> dict[str, Any]:
        def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
            if len(pairs) != len(values := dict(pairs)):
                raise ValueError("a name twice")
            return values

        try:
            value = json.loads(text, object_pairs_hook=unique)
        except (ValueError, RecursionError):
            raise self.damaged(f"its {what} is not valid JSON") from None
        if not isinstance(value, dict):
            raise self.damaged(f"its {what} is not a JSON object")
        return value

    def _parse_table(self, entries: Mapping[str, Any], data_begin: int) -> Table:
        """The tensors, which lie one after the other, without holes, to the end of the file."""
        table: dict[str, tuple[str, tuple[int, ...]]] = {}
        for name, entry in entries.items():
            match entry:
                case {"dtype": str(dtype), "shape": list(shape), "data_offsets": [begin, end]} if (
                    len(entry) == 3
                    and len(shape) <= _MAX_DIMENSIONS
                    and all(
                        type(number) is int and 0 <= number <= _MAX_ELEMENTS
                        for number in (*shape, begin, end)
                    )
                    and math.prod(size or 1 for size in shape) <= _MAX_ELEMENTS
                ):
                    pass
                case _:
                    raise self.damaged(f"tensor {name!r} is not described as it should be")
            if dtype not in ITEM_SIZES:
                raise self.damaged(f"tensor {name!r} has the unknown type {dtype!r}")
            if end - begin != math.prod(shape) * ITEM_SIZES[dtype]:
                raise self.damaged(f"tensor {name!r} has a shape that its bytes do not fill")
            table[name] = (dtype, tuple(shape))
            self._offsets[name] = (data_begin + begin, data_begin + end)
        expected = data_begin
        for begin, end in sorted(self._offsets.values()):
            if begin != expected:
                raise self.damaged("its tensors overlap or leave holes")
            expected = end
        if expected != self.bytes:
            what = "it ends too early" if expected > self.bytes else "it goes on after its end"
            raise self.damaged(f"{what} ({self.bytes} bytes, not {expected})")
        return table


def _canonical(value: Any) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"))


def _digest(blobs: Iterable[Blob]) -> str:
    """SHA-256 over name, dtype, shape and bytes of tensors in the order of their names."""
    digest = hashlib.sha256()
    for blob in blobs:
        digest.update(_canonical([blob.name, blob.dtype, blob.shape]).encode() + b"\n")
        digest.update(blob.data)
    return digest.hexdigest()


def _header_digest(metadata: Mapping[str, Any], table: Table) -> str:
    rest = {name: value for name, value in metadata.items() if name != "sha256"}
    return hashlib.sha256(_canonical([rest, table]).encode()).hexdigest()


def _values(text: bytes | bytearray) -> int:
    """An upper bound for the values in a JSON text."""
    return text.count(b",") + text.count(b"[") + text.count(b"{")


def _kind_of_file(start: bytes) -> str:
    """What a file that begins with ``start`` (up to 9 bytes) seems to be."""
    if not start:
        return "empty"
    if start.startswith(b"PK\x03\x04"):
        return "a zip archive, such as torch.save makes (loading one can run code)"
    if start[0] == 0x80 and start[1:2] <= b"\x05":
        return "a pickle, such as torch.save makes (loading one can run code)"
    if start.startswith(b"\x1f\x8b"):
        return "compressed with gzip"
    if start[8:] != b"{" and all(byte >= 32 or byte in b"\t\n\r" for byte in start):
        return "a text file"
    return "something else, or damaged at its beginning"

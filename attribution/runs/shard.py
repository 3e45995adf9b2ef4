"""A shard's file: tensors and the record of what they are, under one checksum."""

import hashlib
import json
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from attribution.errors import OutputError
from attribution.paths import named
from attribution.runs import files

SCHEMA = 1
_BLANK = "0" * 64
_LENGTH = 8
_LONGEST = 2**28

Record = dict[str, Any]
"""What JSON holds: of a shard ``schema``, ``checksum``, ``shard``, ``settings``, ``parts`` and ``items``."""


def encoded(record: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> bytes:
    """The bytes of a shard's file; the same for the same content.

    The record is the one text in the header of a safetensors file. Its ``checksum`` is the SHA-256 of the whole file in
    which the checksum is 64 zeros.
    """
    from safetensors.torch import save

    text = json.dumps({**record, "schema": SCHEMA, "checksum": _BLANK}, sort_keys=True, ensure_ascii=True)
    held = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    data = save(held, {"record": text})
    return data.replace(_field(_BLANK), _field(hashlib.sha256(data).hexdigest()), 1)


def write(path: Path, record: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
    """Write a shard's file, whole or not at all.

    Raises:
        OutputError: The disk refuses.
    """
    files.write(path, encoded(record, tensors))


def read(path: Path) -> tuple[Record, dict[str, Tensor]]:
    """The record and the tensors of a shard.

    Raises:
        OutputError: There is no such file, or not one byte of it may be believed.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load

    data = _bytes(path)
    record = _record(data, path)
    blank = data.replace(_field(str(record.get("checksum"))), _field(_BLANK), 1)
    if record.get("checksum") != hashlib.sha256(blank).hexdigest():
        raise OutputError(f"{named(path)} is damaged: its checksum is another")
    try:
        return record, load(data)
    except (SafetensorError, ValueError, LookupError) as error:
        raise OutputError(f"{named(path)} cannot be read: {error}") from error


def record(path: Path) -> Record:
    """The record alone, of a file whose tensors are not looked at.

    Raises:
        OutputError: There is no such file, or it is none of a shard.
    """
    try:
        with path.open("rb") as file:
            start = file.read(_LENGTH)
            return _record(start + file.read(_size(start, path)), path)
    except OSError as error:
        raise OutputError(f"cannot read {named(path)}: {error.strerror or error}") from error


def _bytes(path: Path) -> bytes:
    if not files.regular(path):
        raise OutputError(f"{named(path)} is no regular file")
    try:
        return path.read_bytes()
    except OSError as error:
        raise OutputError(f"cannot read {named(path)}: {error.strerror or error}") from error


def _size(data: bytes, path: Path) -> int:
    size: int = struct.unpack("<Q", data[:_LENGTH])[0] if len(data) >= _LENGTH else _LONGEST + 1
    if size > _LONGEST:
        raise OutputError(f"{named(path)} is no file of a shard: it has no header")
    return size


def _record(data: bytes, path: Path) -> Record:
    try:
        header = json.loads(data[_LENGTH : _LENGTH + _size(data, path)])
        found = json.loads(header["__metadata__"]["record"])
    except (ValueError, LookupError, TypeError, RecursionError) as error:
        raise OutputError(f"{named(path)} is no file of a shard: {error}") from error
    if not isinstance(found, dict) or found.get("schema") != SCHEMA:
        raise OutputError(f"{named(path)} was written by another version; its schema is not {SCHEMA}")
    return found


def _field(checksum: str) -> bytes:
    """As it stands in the header: JSON within JSON."""
    return f'\\"checksum\\": \\"{checksum}\\"'.encode()

"""Archives that hold weights, judged by what they say of themselves before anything is unpacked."""

import os
import struct
import tarfile
import zipfile
from pathlib import Path
from typing import BinaryIO

from attribution.errors import ModelError

_HARMLESS = 64 * 2**20
"""Bytes that a file of any size may unpack to."""

_TIMES = 4
"""How many times its own size a larger one may unpack to; a compressor takes a tenth off trained weights."""


def check(path: Path) -> None:
    """Refuse an archive that torch would unpack to far more than its own size, and one that holds a program.

    torch writes zip archives without compression, but reads compressed ones; its oldest files are tar archives. A file
    that is neither passes.

    Raises:
        ModelError: The archive unpacks to more than 64 MiB and more than four times its size, contradicts itself about
            its sizes, or holds no state dict.
    """
    with path.open("rb") as file:
        zipped = file.read(4) == b"PK\x03\x04"
    try:
        sizes = _zipped(path) if zipped or zipfile.is_zipfile(path) else _taped(path)
    except (ModelError, OSError):
        raise
    # Damaged archives are answered with BadZipFile, struct.error, NotImplementedError, UnicodeDecodeError and others.
    except Exception as error:
        raise ModelError(
            f"{path} holds no plain tensors: the archive is damaged ({type(error).__name__}); save model.state_dict() "
            "with torch.save again"
        ) from error
    own, unpacked = path.stat().st_size, sum(sizes)
    if unpacked > max(_HARMLESS, _TIMES * own):
        raise ModelError(
            f"{path} has {own / 2**20:.1f} MiB and unpacks to {unpacked / 2**20:,.0f} MiB, as no weights do; if they "
            "are yours, save them with torch.save, which does not compress"
        )


def _zipped(path: Path) -> list[int]:
    """What each member unpacks to."""
    with path.open("rb") as file:
        _check_end(file, path)
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
    names = [member.filename.rpartition("/")[2] for member in members]
    if "data.pkl" not in names or "constants.pkl" in names:
        raise ModelError(
            f"{path} is an archive with a program (TorchScript, torch.export or another zip file); save "
            "model.state_dict() with torch.save instead"
        )
    for member in members:
        if member.compress_type == zipfile.ZIP_STORED and member.file_size != member.compress_size:
            raise ModelError(
                f"{path} says that {member.filename} has {member.file_size} bytes and holds {member.compress_size}; "
                "the archive is damaged or forged: save model.state_dict() with torch.save again"
            )
    return [member.file_size for member in members]


def _check_end(file: BinaryIO, path: Path) -> None:
    """The file has one directory, at its very end: what is read here is then what torch's own reader finds."""
    size = file.seek(0, os.SEEK_END)
    file.seek(max(0, size - 98))
    tail = file.read().rjust(98, b"\0")
    mark, _, _, _, count, length, start, comment = struct.unpack("<4s4H2LH", tail[76:])
    end = size - 22
    whole = mark == b"PK\x05\x06" and comment == 0
    if tail[56:60] == b"PK\x06\x07":  # the same once more in 64 bits
        end = size - 98
        (where,) = struct.unpack("<Q", tail[64:72])
        wide = struct.unpack("<3Q", tail[32:56])
        whole = whole and tail[:4] == b"PK\x06\x06" and where == end
        narrow = ((count, 2**16 - 1), (length, 2**32 - 1), (start, 2**32 - 1))
        whole = whole and all(a in (b, most) for b, (a, most) in zip(wide, narrow, strict=True))
        _, length, start = wide
    if not whole or start + length != end:
        raise ModelError(
            f"{path} holds no plain tensors: it is an archive, but not as torch.save ends one; it may be cut short. "
            "Save model.state_dict() with torch.save again"
        )


def _taped(path: Path) -> list[int]:
    try:
        with tarfile.open(path, "r:") as archive:
            return [member.size for member in archive]
    except tarfile.TarError:
        return []

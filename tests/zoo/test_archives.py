"""Archives of weights are judged before they are unpacked."""

import io
import struct
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from attribution.errors import ModelError
from attribution.zoo import archives
from attribution.zoo.weights import read_state

MIB = 2**20


def saved(path: Path, values: int = 1000) -> Path:
    torch.save({"a": torch.arange(float(values))}, path)
    return path


def packed(path: Path, *, storage: int, method: int = zipfile.ZIP_DEFLATED) -> Path:
    """A state dict in a zip file, its only storage so many zeros."""
    plain = zipfile.ZipFile(saved(path.with_name("plain.pth"), values=storage // 4))
    with zipfile.ZipFile(path, "w", method) as archive:
        for member in plain.infolist():
            is_storage = member.filename.endswith("data/0")
            archive.writestr(member.filename, bytes(storage) if is_storage else plain.read(member))
    return path


def refused(path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    def unpack(*arguments: object, **options: object) -> None:
        raise AssertionError("it was unpacked")

    with monkeypatch.context() as patch:
        patch.setattr(torch, "load", unpack)
        with pytest.raises(ModelError) as caught:
            read_state(path)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("method", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_what_swells_is_refused_before_it_is_unpacked(
    tmp_path: Path, method: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = packed(tmp_path / "a.pth", storage=80 * MIB, method=method)
    assert path.stat().st_size < MIB
    assert "unpacks to 80 MiB, as no weights do" in refused(path, monkeypatch)


def test_small_or_honest_archives_are_read(tmp_path: Path) -> None:
    plain = saved(tmp_path / "plain.pth", values=100_000)
    assert len(read_state(plain)["a"]) == 100_000
    with zipfile.ZipFile(plain) as source, zipfile.ZipFile(tmp_path / "b.pth", "w", zipfile.ZIP_DEFLATED) as target:
        for member in source.infolist():
            target.writestr(member.filename, source.read(member))
    assert (tmp_path / "b.pth").stat().st_size < plain.stat().st_size
    assert torch.equal(read_state(tmp_path / "b.pth")["a"], torch.arange(100_000.0))
    torch.save({"a": torch.ones(3)}, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    assert read_state(tmp_path / "old.pth")["a"].tolist() == [1.0, 1.0, 1.0]


def test_members_that_share_their_bytes_count_each(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = packed(tmp_path / "a.pth", storage=4 * MIB, method=zipfile.ZIP_STORED)
    content = path.read_bytes()
    start = zipfile.ZipFile(path).start_dir
    entries = content[start:-22]
    many = entries * 30
    _, disk, cd, count, _, size, offset, comment = struct.unpack("<4s4H2LH", content[-22:])
    end = struct.pack("<4s4H2LH", b"PK\x05\x06", disk, cd, count * 30, count * 30, size * 30, offset, comment)
    path.write_bytes(content[:start] + many + end)
    assert "unpacks to 120 MiB" in refused(path, monkeypatch)


def _lied(content: bytes, start: int) -> bytes:
    """The uncompressed sizes in the directory, twice what they are."""
    forged = bytearray(content)
    at = start
    while forged[at : at + 4] == b"PK\x01\x02":
        (size,) = struct.unpack_from("<L", forged, at + 24)
        struct.pack_into("<L", forged, at + 24, 2 * size)
        at += 46 + sum(struct.unpack_from("<3H", forged, at + 28))
    return bytes(forged)


FORGED: dict[str, tuple[Callable[[bytes, int], bytes], str]] = {
    "sizes": (_lied, "is damaged or forged"),
    "comment": (lambda content, start: content[:-2] + b"\x04\x00note", "not as torch.save ends one"),
    "tail": (lambda content, start: content + b"more", "not as torch.save ends one"),
    "prefix": (lambda content, start: content[:60] + content, "not as torch.save ends one"),
    "cut": (lambda content, start: content[:-30], "not as torch.save ends one"),
}


@pytest.mark.parametrize("case", FORGED)
def test_archives_that_contradict_themselves(case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    forge, says = FORGED[case]
    path = packed(tmp_path / "a.pth", storage=4000, method=zipfile.ZIP_STORED)
    path.write_bytes(forge(path.read_bytes(), zipfile.ZipFile(path).start_dir))
    assert says in refused(path, monkeypatch)


def test_a_second_directory_in_64_bits_must_be_the_one_that_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = saved(tmp_path / "a.pth")
    content = bytearray(path.read_bytes())
    archives.check(path)
    assert content[-42:-38] == b"PK\x06\x07"
    struct.pack_into("<Q", content, len(content) - 34, 0)
    path.write_bytes(content)
    assert "not as torch.save ends one" in refused(path, monkeypatch)


def test_tar_archives_with_holes_count_what_they_unpack_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.pth"
    with tarfile.open(path, "w", format=tarfile.GNU_FORMAT) as archive:
        info = tarfile.TarInfo("storages")
        archive.addfile(info, io.BytesIO())
    header = bytearray(path.read_bytes())
    header[156:157] = b"S"  # sparse: no bytes in the archive, 3 GiB on the disk
    header[483:495] = b"%011o\0" % (3 * 2**30)
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header[:512])
    path.write_bytes(header)
    with tarfile.open(path) as archive:
        assert archive.getmembers()[0].size == 3 * 2**30
    assert "unpacks to 3,072 MiB" in refused(path, monkeypatch)

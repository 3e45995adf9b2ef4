"""What is no image, or too much of one: refused with a reason, quickly and in little memory."""

import mmap
import os
import struct
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from attribution import images
from attribution.errors import InputError
from attribution.runs import of_folder
from attribution.runs.computing import Unread, read
from attribution.runs.items import Item, Items
from attribution.testing import small_cnn
from attribution.zoo import LoadedModel
from tests.runs.data import to_tensor


def mutated(whole: bytes, random: np.random.Generator) -> bytes:
    """Bytes flipped, cut, doubled or put in."""
    data = bytearray(whole)
    for _ in range(int(random.integers(1, 9))):
        place = int(random.integers(0, len(data)))
        match int(random.integers(0, 4)):
            case 0:
                data[place] = int(random.integers(0, 256))
            case 1:
                del data[place:]
            case 2:
                data[place:place] = data[place : place + int(random.integers(1, 40))]
            case _:
                data[place : place + 4] = random.bytes(4)
        if not data:
            data = bytearray(b"\0")
    return bytes(data)


def wholes(root: Path) -> list[bytes]:
    pixels = np.random.default_rng(0).integers(0, 256, (24, 31, 3), dtype=np.uint8)
    found = []
    for suffix in ("png", "jpg", "webp", "bmp", "gif", "tif"):
        exif = Image.Exif()
        exif[0x0112] = 6
        image = Image.fromarray(pixels)
        options: dict[str, Any] = {"exif": exif} if suffix in ("png", "jpg", "webp", "tif") else {}
        image.save(root / f"whole.{suffix}", **options)
        found.append((root / f"whole.{suffix}").read_bytes())
        (root / f"whole.{suffix}").unlink()
    return found


PARTS = [pytest.param(part, marks=[] if part < 5 else [pytest.mark.slow]) for part in range(100)]
"""Of 100 images each: 500 in every run of the tests, 10,000 with ``-m slow``."""


@pytest.mark.parametrize("part", PARTS)
def test_a_mutated_image_is_an_input_error_or_an_image(tmp_path: Path, part: int) -> None:
    originals, random = wholes(tmp_path), np.random.default_rng(part)
    path = tmp_path / "a.png"
    items: Items | None = None
    bad = 0
    for index in range(100):
        path.write_bytes(mutated(originals[index % len(originals)], random))
        items = items or of_folder(tmp_path, to_tensor)
        start = time.process_time()
        try:
            assert items[0].inputs.shape[0] == 3
        except InputError:
            bad += 1
        assert time.process_time() - start < 5  # a hang, not a speed; a busy machine counts for nothing
    assert bad > 20


def png(width: int, height: int, *, rows: int) -> bytes:
    """One bit a pixel, all white: a few kilobytes for any size."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    packer = zlib.compressobj(9)
    line = b"\0" + b"\xff" * (-(-width // 8))
    packed = b"".join(packer.compress(line) for _ in range(rows)) + packer.flush()
    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", packed) + chunk(b"IEND", b"")


def gif(frames: int) -> bytes:
    head = b"GIF89a" + struct.pack("<HHBBB", 1, 1, 0x80, 0, 0) + b"\0\0\0\xff\xff\xff"
    frame = b"\x2c" + struct.pack("<HHHHB", 0, 0, 1, 1, 0) + b"\x02\x02\x44\x01\x00"
    return head + frame * frames + b";"


BOMBS = {
    "9,400 squared": png(9_400, 9_400, rows=9_400),
    "13,000 squared": png(13_000, 13_000, rows=13_000),
    "30,000 squared": png(30_000, 30_000, rows=30_000),
    "resize, 1 × 2000": png(2_000, 1, rows=1),
    "resize, 2000 × 1": png(1, 2_000, rows=2_000),
}


def status(field: str) -> int:
    """KiB of this process, as Linux counts them."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{field}:"))


def touched(size: int) -> None:
    """Memory that no allocator can have kept."""
    with mmap.mmap(-1, size) as room:
        for place in range(0, size, mmap.PAGESIZE):
            room[place] = 1


def growth_of(body: Callable[[], object]) -> int:
    """KiB by which a child's peak of memory grows in it; 1 GiB where it fails."""
    result, said = os.pipe()
    if (child := os.fork()) == 0:
        grown = 2**20
        try:
            Path("/proc/self/clear_refs").write_text("5")  # the peak is counted from here on, and not its parent's
            before = status("VmRSS")
            body()
            grown = status("VmHWM") - before
        finally:
            os.write(said, str(grown).encode())
            os._exit(0)
    os.close(said)
    os.waitpid(child, 0)
    with os.fdopen(result) as pipe:
        return int(pipe.read())


def test_bombs_are_refused_before_they_take_memory(tmp_path: Path) -> None:
    from torchvision.transforms._presets import ImageClassification

    for index, content in enumerate(BOMBS.values()):
        (tmp_path / f"{index}.png").write_bytes(content)
        assert len(content) < 200_000
    (tmp_path / "frames.gif").write_bytes(gif(100_000))
    half = (0.5, 0.5, 0.5)
    loaded = LoadedModel("stub", small_cnn(), ImageClassification(crop_size=224), half, half, None)
    items = of_folder(tmp_path, lambda photo: loaded.inputs(photo)[0])
    items[len(BOMBS)]  # what reading needs is loaded before it is measured

    def bombs() -> None:
        for index in range(len(BOMBS)):
            assert isinstance(read(items, index), Unread)
        assert isinstance(read(items, len(BOMBS)), Item)

    assert growth_of(bombs) < 50 * 1024
    assert growth_of(lambda: images.read(tmp_path / "0.png")) == 2**20
    assert growth_of(lambda: touched(100 * 2**20)) > 90 * 1024  # what takes memory is seen

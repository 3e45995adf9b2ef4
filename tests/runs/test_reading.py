"""Folders, lists and data sets as items: what is taken, what is refused, and with which words."""

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
import torch
from PIL import Image

from attribution import images
from attribution.errors import InputError, TargetError
from attribution.images import photo
from attribution.runs import Examples, of_folder, of_list
from attribution.runs.computing import Unread, read
from attribution.runs.items import Item, Items
from attribution.testing import small_cnn
from attribution.zoo import LoadedModel
from tests.draw import drawn
from tests.runs.data import Noise, paint, painted, to_tensor


def names(items: Items) -> list[str]:
    return list(items.names)


def reason(items: Items, index: int) -> str:
    with pytest.raises(InputError) as caught:
        items[index]
    return str(caught.value)


def test_a_folder_is_listed_in_one_order_without_what_is_hidden_or_no_image(tmp_path: Path) -> None:
    for name in ("b.png", "a/c.JPG", "a-1.png", ".hidden.png", ".git/x.png", "results/overlays/y.png", "Z.tiff"):
        paint(tmp_path / name, 0)
    (tmp_path / "notes.txt").write_text("no image")
    items = of_folder(tmp_path, to_tensor, without=tmp_path / "results")
    assert names(items) == ["Z.tiff", "a-1.png", "a/c.JPG", "b.png"]
    assert items.source.endswith("1 other files left out")
    found = items[3]
    assert found.inputs.shape == (3, 16, 16)
    assert found.sha256 == items.digest(3)
    assert names(of_folder(tmp_path, to_tensor)) == ["Z.tiff", "a-1.png", "a/c.JPG", "b.png", "results/overlays/y.png"]


def test_regular_files_inside_the_folder_only(tmp_path: Path) -> None:
    root = tmp_path / "root"
    paint(root / "a.png", 0)
    paint(tmp_path / "outside.png", 1)
    os.mkfifo(root / "pipe.png")
    (root / "inside.png").symlink_to(root / "a.png")
    (root / "out.png").symlink_to(tmp_path / "outside.png")
    (root / "dangling.png").symlink_to(root / "gone.png")
    (root / "loop.png").symlink_to(root / "loop.png")
    (root / "round").symlink_to(root)
    items = of_folder(root, to_tensor)
    assert names(items) == ["a.png", "dangling.png", "inside.png", "loop.png", "out.png", "pipe.png"]
    assert items[2].sha256 == items[0].sha256
    said = {
        name: reason(items, index) for index, name in enumerate(names(items)) if name not in ("a.png", "inside.png")
    }
    assert "no file" in said["dangling.png"]
    assert "cannot be opened" in said["loop.png"]
    assert "link out of" in said["out.png"]
    assert "named pipe" in said["pipe.png"]
    (tmp_path / "list.csv").write_text("path\nroot/out.png\n")
    assert of_list(tmp_path / "list.csv", to_tensor)[0].inputs.shape == (3, 16, 16)  # who lists a link means it


def test_a_list_has_paths_and_targets(tmp_path: Path) -> None:
    paint(tmp_path / "a,b.png", 0)
    (tmp_path / "list.csv").write_text('\ufeffTarget, Path \n3,"a,b.png"\n0,gone.png\n')
    items = of_list(tmp_path / "list.csv", to_tensor)
    assert names(items) == ["a,b.png", "gone.png"]
    assert items[0].target == 3
    assert "no file" in reason(items, 1)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "columns none"),
        ("name\na.png\n", "one must be called path"),
        ("path\n", "lists no image"),
        ("path,target\na.png\n", "line 2"),
        ("path\na.png,b\n", "line 2"),
        ("path\n\n \n", "line 3"),
        ("path,target\na.png,1\na.png,-1\n", "line 3: '-1' is no class"),
        ("path,target\na.png,cup\n", "is no class"),
        ('path\n"a.png\n', "is no CSV list"),
    ],
)
def test_a_list_that_is_none(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "list.csv").write_text(text)
    with pytest.raises(InputError, match=said):
        of_list(tmp_path / "list.csv", to_tensor)


def test_no_folder_no_list_no_images(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no folder"):
        of_folder(tmp_path / "gone", to_tensor)
    with pytest.raises(InputError, match="no file that ends"):
        of_folder(tmp_path, to_tensor)
    with pytest.raises(InputError, match="does not exist"):
        of_list(tmp_path / "gone.csv", to_tensor)


def test_classes_are_read_by_the_model(tmp_path: Path) -> None:
    def index(text: str) -> int:
        if text != "cup":
            raise TargetError(f"no class {text!r}")
        return 2

    (tmp_path / "list.csv").write_text("path,target\na.png,cup\n")
    paint(tmp_path / "a.png", 0)
    assert of_list(tmp_path / "list.csv", to_tensor, index=index)[0].target == 2
    (tmp_path / "list.csv").write_text("path,target\na.png,cap\n")
    with pytest.raises(TargetError, match="line 2: no class 'cap'"):
        of_list(tmp_path / "list.csv", to_tensor, index=index)


def test_any_data_set_with_a_length() -> None:
    items = Examples(Noise(3, bad=(1,)))
    assert names(items) == ["0", "1", "2"]
    assert items[0].sha256 == items.digest(0) != items.digest(2)
    assert reason(items, 1) == "example 1 cannot be read: ValueError: no 1"
    assert read(items, 1) == Unread("example 1 cannot be read: ValueError: no 1")
    wrong: Any = [torch.zeros(3, 4, 4), np.zeros((3, 4, 4)), torch.zeros(3, 4, 4, dtype=torch.uint8), torch.zeros(0)]
    items = Examples([*wrong, torch.full((2,), float("nan"))])
    assert isinstance(read(items, 0), Item)
    assert "is a ndarray" in reason(items, 1)
    assert "of torch.uint8" in reason(items, 2)
    assert "(0,)" in reason(items, 3)
    assert "NaN" in reason(items, 4)
    with pytest.raises(InputError, match="__len__"):
        Examples(iter([]))
    with pytest.raises(InputError, match="3 examples and 1 names"):
        Examples(Noise(3), names=["a"])


def test_twelve_bits_in_sixteen_are_noticed(tmp_path: Path) -> None:
    for highest, noticed in ((4095, True), (300, True), (255, False), (4096, False), (65535, False)):
        Image.fromarray(np.array([[0, highest]], dtype=np.uint16)).save(tmp_path / "a.png")
        notes = photo(tmp_path / "a.png").notes
        assert any("12 bits" in note for note in notes) == noticed, highest
    paint(tmp_path / "b.png", 0)
    assert photo(tmp_path / "b.png").notes == ()
    frames = [Image.new("L", (4, 4), shade) for shade in (0, 90)]
    frames[0].save(tmp_path / "c.gif", save_all=True, append_images=frames[1:])
    assert photo(tmp_path / "c.gif").notes == ("it has several frames, of which the first was read",)


# The pixels (0.1, 0.5, 0.9) of every colour mode, by hand: what a viewer shows over white.
GREY, COLOUR = np.array([[26, 128, 230]], dtype=np.uint8), np.array([[[200, 30, 60], [0, 0, 0]]], dtype=np.uint8)
MODES: dict[str, tuple[Image.Image, list[list[int]]]] = {
    "1": (Image.fromarray(GREY).point(lambda v: 255 * (v > 100)).convert("1"), [[0] * 3, [255] * 3, [255] * 3]),
    "L": (Image.fromarray(GREY), [[26] * 3, [128] * 3, [230] * 3]),
    "LA": (Image.fromarray(np.array([[[26, 255], [26, 0]]], dtype=np.uint8)), [[26] * 3, [255] * 3]),
    "RGB": (Image.fromarray(COLOUR), [[200, 30, 60], [0, 0, 0]]),
    "RGBA": (
        Image.fromarray(np.array([[[200, 30, 60, 255], [200, 30, 60, 0]]], dtype=np.uint8)),
        [[200, 30, 60], [255] * 3],
    ),
    "P": (Image.fromarray(COLOUR).quantize(2), [[200, 30, 60], [0, 0, 0]]),
    "I;16": (Image.fromarray(np.array([[0, 32896, 65535]], dtype=np.uint16)), [[0] * 3, [128] * 3, [255] * 3]),
    "CMYK": (Image.fromarray(np.array([[[0, 255, 255, 0], [0, 0, 0, 255]]], np.uint8), "CMYK"), [[255, 0, 0], [0] * 3]),
}
FORMATS = {
    "png": {"CMYK"},
    "tif": set[str](),
    "webp": {"1", "L", "LA", "P", "I;16", "CMYK"},
    "bmp": {"LA", "RGBA", "I;16", "CMYK"},
}
GOLDEN = [(mode, suffix) for mode in MODES for suffix, without in FORMATS.items() if mode not in without]


@pytest.mark.parametrize(("mode", "suffix"), GOLDEN)
def test_golden_pixels(tmp_path: Path, mode: str, suffix: str) -> None:
    image, expected = MODES[mode]
    options: dict[str, Any] = {"lossless": True} if suffix == "webp" else {}
    image.save(tmp_path / f"a.{suffix}", **options)
    found = of_folder(tmp_path, to_tensor)[0].inputs
    assert (found * 255).round().int().movedim(0, -1)[0].tolist() == expected


# --- what is no image, or too much of one ---------------------------------------------------------------


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


PARTS = [
    pytest.param(part, marks=[] if drawn(f"mutated images {part}", 0.05) else [pytest.mark.slow]) for part in range(100)
]


def test_some_mutations_are_drawn() -> None:
    assert 2 <= len([part for part in PARTS if not part.marks]) <= 10


@pytest.mark.parametrize("part", PARTS)
def test_a_mutated_image_is_an_input_error_or_an_image(tmp_path: Path, part: int) -> None:
    originals, random = wholes(tmp_path), np.random.default_rng(part)
    path = tmp_path / "a.png"
    items: Items | None = None
    bad = 0
    for index in range(100):
        path.write_bytes(mutated(originals[index % len(originals)], random))
        items = items or of_folder(tmp_path, to_tensor)
        start = time.monotonic()
        try:
            assert items[0].inputs.shape[0] == 3
        except InputError:
            bad += 1
        assert time.monotonic() - start < 5  # a hang, not a speed
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


def test_a_folder_that_cannot_be_listed_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    painted(tmp_path / "a", 1)

    def closed(path: Any) -> Any:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(os, "scandir", closed)
    with pytest.raises(InputError, match="cannot be listed: Permission denied"):
        of_folder(tmp_path, to_tensor)

import os
import struct
import warnings
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageFile, PngImagePlugin, TiffImagePlugin

from attribution import images
from attribution.errors import InputError
from attribution.images import colours

# Two rows of three pixels, no two alike, so that every turn and mirror image differs.
CORNERS = np.array([[[255, 0, 0], [0, 255, 0], [0, 0, 255]], [[255, 255, 0], [0, 255, 255], [9, 9, 9]]], dtype=np.uint8)


def smooth(height: int = 40, width: int = 56) -> np.ndarray:
    rows, columns = np.mgrid[:height, :width]
    return np.stack([rows * 4, columns * 4, (rows + columns) * 2], axis=-1).astype(np.uint8)


def saved(path: Path, image: Image.Image, **options: Any) -> Path:
    image.save(path, **options)
    return path


def by_pillow(path: Path) -> Image.Image:
    with Image.open(path) as image:
        image.load()
        return image.copy()


def pixels(path: Path) -> np.ndarray:
    image = images.read(path)
    assert image.mode == "RGB"
    assert image.info == {}
    return np.asarray(image)


def refused(path: Path) -> str:
    with pytest.raises(InputError) as caught:
        images.read(path)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("suffix", ["png", "bmp", "tif", "webp"])
def test_lossless_formats_come_back_as_saved(tmp_path: Path, suffix: str) -> None:
    options = {"lossless": True} if suffix == "webp" else {}
    path = saved(tmp_path / f"a.{suffix}", Image.fromarray(smooth()), **options)
    np.testing.assert_array_equal(pixels(path), smooth())


def test_jpeg_and_gif_come_back_nearly_as_saved(tmp_path: Path) -> None:
    jpeg = pixels(saved(tmp_path / "a.jpg", Image.fromarray(smooth()), quality=95))
    assert np.abs(jpeg.astype(int) - smooth()).max() <= 12
    gif = pixels(saved(tmp_path / "a.gif", Image.fromarray(CORNERS)))
    np.testing.assert_array_equal(gif, CORNERS)


def test_the_content_decides_not_the_name(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.jpg", Image.fromarray(CORNERS), format="PNG")
    np.testing.assert_array_equal(pixels(path), CORNERS)


def test_the_file_can_be_deleted_and_linked(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.png", Image.fromarray(CORNERS))
    (tmp_path / "link.png").symlink_to(path)
    image = images.read(tmp_path / "link.png")
    path.unlink()
    np.testing.assert_array_equal(np.asarray(image), CORNERS)


def test_black_and_white_and_grey(tmp_path: Path) -> None:
    bits = Image.fromarray(np.array([[0, 255, 0]], dtype=np.uint8)).convert("1")
    assert pixels(saved(tmp_path / "1.png", bits)).tolist() == [[[0] * 3, [255] * 3, [0] * 3]]
    grey = Image.fromarray(np.array([[0, 7, 200]], dtype=np.uint8))
    assert pixels(saved(tmp_path / "l.png", grey)).tolist() == [[[0] * 3, [7] * 3, [200] * 3]]


def test_palette_colours_not_palette_indices(tmp_path: Path) -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([10, 20, 30, 200, 100, 50])
    image.putdata([0, 1])
    path = saved(tmp_path / "p.png", image)
    assert pixels(path).tolist() == [[[10, 20, 30], [200, 100, 50]]]
    assert np.asarray(by_pillow(path)).tolist() == [[0, 1]]


def test_transparency_is_laid_over_white(tmp_path: Path) -> None:
    palette = Image.new("P", (2, 1))
    palette.putpalette([10, 20, 30, 200, 100, 50])
    palette.putdata([0, 1])
    assert pixels(saved(tmp_path / "p.png", palette, transparency=0)).tolist() == [[[255] * 3, [200, 100, 50]]]
    grey = Image.fromarray(np.array([[[0, 0], [100, 255], [0, 128]]], dtype=np.uint8))
    assert pixels(saved(tmp_path / "la.png", grey)).tolist() == [[[255] * 3, [100] * 3, [127] * 3]]
    colour = Image.fromarray(np.array([[[255, 0, 0, 0], [255, 0, 0, 255], [255, 0, 0, 51]]], dtype=np.uint8))
    assert pixels(saved(tmp_path / "rgba.png", colour)).tolist() == [[[255] * 3, [255, 0, 0], [255, 204, 204]]]
    keyed = Image.fromarray(CORNERS)
    assert pixels(saved(tmp_path / "key.png", keyed, transparency=(9, 9, 9)))[1, 2].tolist() == [255] * 3
    # Without the alpha channel the hidden red would show.
    assert colour.convert("RGB").getpixel((0, 0)) == (255, 0, 0)


def test_cmyk_and_ycbcr(tmp_path: Path) -> None:
    cmyk = Image.new("CMYK", (8, 8), (0, 255, 255, 0))
    red = pixels(saved(tmp_path / "cmyk.tif", cmyk))
    assert red[4, 4].tolist() == [255, 0, 0]
    jpeg = pixels(saved(tmp_path / "cmyk.jpg", cmyk, quality=95)).astype(int)
    assert np.abs(jpeg - [255, 0, 0]).max() <= 4
    ycbcr = Image.new("RGB", (8, 8), (200, 30, 60)).convert("YCbCr")
    colour = pixels(saved(tmp_path / "ycbcr.tif", ycbcr, compression="tiff_lzw")).astype(int)
    assert np.abs(colour - [200, 30, 60]).max() <= 2
    # Pillow before 13 cannot read its own uncompressed YCbCr files, the only ones that keep the mode.
    bare = np.asarray(colours.rgb(ycbcr, "bare")).astype(int)
    assert np.abs(bare - [200, 30, 60]).max() <= 2


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_sixteen_bits_are_scaled_not_clipped(tmp_path: Path, suffix: str) -> None:
    wide = np.array([[0, 128, 129, 257, 32768, 65535]], dtype=np.uint16)
    path = saved(tmp_path / f"a.{suffix}", Image.fromarray(wide))
    assert pixels(path)[0, :, 0].tolist() == [0, 0, 1, 1, 128, 255]
    clipped = np.asarray(by_pillow(path).convert("L"))[0].tolist()
    assert clipped != [0, 0, 1, 1, 128, 255]


def test_sixteen_bits_of_the_other_byte_order(tmp_path: Path) -> None:
    wide = np.array([[0, 257, 65535]], dtype=np.uint16)
    path = saved(tmp_path / "a.tif", Image.fromarray(wide.astype(">u2")))
    assert by_pillow(path).mode == "I;16B"
    assert pixels(path)[0, :, 0].tolist() == [0, 1, 255]


@pytest.mark.parametrize("mode", ["I", "F", "LAB"])
def test_modes_without_a_meaning_on_the_screen_are_refused(tmp_path: Path, mode: str) -> None:
    message = refused(saved(tmp_path / "a.tif", Image.new(mode, (3, 2), 5)))
    assert f"mode '{mode}'" in message
    assert ("without a declared range" in message) == (mode != "LAB")


def test_of_several_frames_the_first_is_read(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (4, 3), colour) for colour in ("red", "lime", "blue")]
    for suffix in ("gif", "tif", "webp", "png"):
        options = {"lossless": True} if suffix == "webp" else {}
        path = saved(tmp_path / f"a.{suffix}", frames[0], save_all=True, append_images=frames[1:], **options)
        with Image.open(path) as opened:
            assert getattr(opened, "n_frames", 1) == 3
        assert pixels(path).reshape(-1, 3).tolist() == [[255, 0, 0]] * 12


# --- orientation ----------------------------------------------------------------------------------------

# How a camera held differently would have stored the picture that EXIF orientation k describes.
STORED = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: np.rot90(a, 1),
    7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
    8: lambda a: np.rot90(a, -1),
}


GENTLE: dict[str, dict[str, Any]] = {"webp": {"lossless": True}, "jpg": {"quality": 95, "subsampling": 0}}


@pytest.mark.parametrize("suffix", ["png", "webp", "tif", "jpg"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_orientation_gives_the_upright_photo(tmp_path: Path, orientation: int, suffix: str) -> None:
    blocks = CORNERS.repeat(16, axis=0).repeat(16, axis=1)
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = Image.fromarray(np.ascontiguousarray(STORED[orientation](blocks)))
    options = GENTLE.get(suffix, {})
    path = saved(tmp_path / f"a.{suffix}", image, exif=exif, **options)
    upright = pixels(path)
    middles = upright[8::16, 8::16].astype(int)
    assert upright.shape == blocks.shape
    assert np.abs(middles - CORNERS).max() <= (6 if suffix == "jpg" else 0)
    if orientation > 1:
        ignored = np.asarray(image)[8::16, 8::16]
        assert ignored.shape != CORNERS.shape or (ignored != CORNERS).any()


def test_orientation_of_sixteen_bits(tmp_path: Path) -> None:
    info = TiffImagePlugin.ImageFileDirectory_v2()
    info[0x0112] = 6
    path = saved(tmp_path / "a.tif", Image.fromarray(np.array([[0], [65535]], dtype=np.uint16)), tiffinfo=info)
    assert pixels(path)[:, :, 0].tolist() == [[255, 0]]


def test_what_is_no_regular_file(tmp_path: Path) -> None:
    assert "no file" in refused(tmp_path / "missing.png")
    assert "a directory" in refused(tmp_path)
    os.mkfifo(tmp_path / "pipe.png")
    assert "a named pipe" in refused(tmp_path / "pipe.png")
    assert "a device" in refused(Path(os.devnull))
    (tmp_path / "dangling.png").symlink_to(tmp_path / "gone.png")
    assert "no file" in refused(tmp_path / "dangling.png")
    (tmp_path / "loop.png").symlink_to(tmp_path / "loop.png")
    assert "cannot be opened" in refused(tmp_path / "loop.png")
    assert "cannot be opened" in refused(tmp_path / ("x" * 300))
    assert "not a path" in refused(Path("a\0b.png"))


def test_a_pipe_that_takes_the_files_place_does_not_block(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    regular = saved(tmp_path / "a.png", Image.fromarray(CORNERS))
    pipe = tmp_path / "pipe.png"
    os.mkfifo(pipe)
    found = os.stat(regular)
    monkeypatch.setattr(os, "stat", lambda path: found)
    with pytest.raises(InputError):
        images.read(pipe)


def test_content_that_is_no_image(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(b"")
    assert "is empty" in refused(path)
    path.write_text("a photo of a cup\n")
    assert "no image of a known format; expected JPEG" in refused(path)
    saved(tmp_path / "a.ppm", Image.fromarray(CORNERS))
    assert "no image of a known format" in refused(tmp_path / "a.ppm")
    assert by_pillow(tmp_path / "a.ppm").size == (3, 2)
    with path.open("wb") as file:
        file.truncate(images.MAX_BYTES + 1)
    assert "above 256 MiB" in refused(path)


@pytest.mark.parametrize("suffix", ["png", "jpg", "bmp", "tif", "webp", "gif"])
def test_a_file_cut_short_is_refused(tmp_path: Path, suffix: str) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (40, 56, 3), dtype=np.uint8)
    whole = saved(tmp_path / f"whole.{suffix}", Image.fromarray(noise)).read_bytes()
    path = tmp_path / f"cut.{suffix}"
    for twentieth in range(1, 20):
        path.write_bytes(whole[: len(whole) * twentieth // 20])
        refused(path)
    path.write_bytes(whole)
    assert pixels(path).shape == (40, 56, 3)


@pytest.mark.parametrize("suffix", ["png", "jpg", "tif", "webp", "gif"])
def test_damaged_files_raise_nothing_else(tmp_path: Path, suffix: str) -> None:
    random = np.random.default_rng(1)
    exif = Image.Exif()
    exif[0x0112] = 6
    options = {} if suffix == "gif" else {"exif": exif}
    whole = saved(tmp_path / f"whole.{suffix}", Image.fromarray(smooth()), **options).read_bytes()
    path = tmp_path / f"damaged.{suffix}"
    damaged = 0
    for _ in range(60):
        content = bytearray(whole)
        for position in random.integers(0, len(whole), 8):
            content[position] = random.integers(0, 256)
        path.write_bytes(content)
        try:
            image = images.read(path)
        except InputError:
            damaged += 1
        else:
            assert image.mode == "RGB"
    assert damaged > 0


def png_header(width: int, height: int) -> bytes:
    """A PNG that promises a size and holds no pixels, so that decoding it fails in another way."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", b"") + chunk(b"IEND", b"")


@pytest.mark.parametrize("side", [7_072, 9_400, 13_000, 30_000])
def test_too_many_pixels_are_refused_before_decoding(tmp_path: Path, side: int) -> None:
    path = tmp_path / "bomb.png"
    path.write_bytes(png_header(side, side))
    assert "limit is 50,000,000" in refused(path)
    path.write_bytes(png_header(7_071, 7_071))  # just below the limit: only decoding finds that nothing is there
    assert "damaged or cut short" in refused(path)


def test_too_much_text_beside_the_pixels_is_refused(tmp_path: Path) -> None:
    text = PngImagePlugin.PngInfo()
    text.add_text("comment", "x" * 2_000_000, zip=True)
    path = saved(tmp_path / "a.png", Image.fromarray(CORNERS), pnginfo=text)
    assert "cannot be decoded" in refused(path)


def test_no_global_setting_is_left(tmp_path: Path) -> None:
    before = Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES, warnings.filters[:]
    images.read(saved(tmp_path / "a.png", Image.fromarray(CORNERS)))
    assert before == (Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES, warnings.filters)

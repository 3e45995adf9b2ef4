"""Reads a photo from a file: upright, RGB, and refused with a reason instead of decoded wrongly."""

import hashlib
import os
import re
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from attribution import paths
from attribution.errors import InputError
from attribution.images.colours import rgb

if TYPE_CHECKING:
    from PIL import Image

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF")
_URL = re.compile(r"[a-z][a-z0-9+.\-]+:/", re.IGNORECASE)
MAX_PIXELS = 50_000_000
MAX_BYTES = 256 * 2**20
MADE_BY = "torch-attribution"
"""What figures of ours, which are PNG files, say of their software."""


@dataclass(frozen=True)
class Photo:
    """What was in a file.

    Attributes:
        image: Of mode ``RGB``, loaded.
        sha256: Of the bytes of the file, in hexadecimal digits.
        notes: What a user should know of how it was read: a file of several frames, 12 bits kept in 16.
    """

    image: "Image.Image"
    sha256: str
    notes: tuple[str, ...]


def read(path: Path) -> "Image.Image":
    """The photo in a file, as a viewer shows it: upright, three channels of 8 bits.

    The EXIF orientation is applied and then dropped with all other metadata; colour profiles are not
    applied. Transparent pixels are laid over white. 16-bit grey maps 0…65535 to 0…255, rounded. Of a file
    with several frames the first is read. Sizes are checked before anything is decoded.

    Args:
        path: a regular file in one of the formats JPEG, PNG, WebP, BMP, GIF, TIFF; the content decides, not
            the name. Links are followed.

    Returns:
        A loaded image of mode ``RGB`` that no longer needs the file.

    Raises:
        InputError: the file is missing, unreadable, not a regular file, empty, above 256 MiB or 50 million
            pixels, of another format, damaged or cut short, or its pixels have no declared range
            (modes ``I`` and ``F``).
    """
    return photo(path).image


def photo(path: Path) -> Photo:
    """The same as `read`, with what else is known of the file.

    Raises:
        InputError: See `read`.
    """
    notes: list[str] = []
    with _open(path) as file:
        image = _decode(file, path, notes)
        digest = _digest(file, path)
    return Photo(rgb(image, str(path), notes), digest, tuple(notes))


def made_here(path: Path) -> bool:
    """Whether a file is a figure of ours; one that cannot be read is none."""
    if path.suffix.lower() != ".png":
        return False
    try:
        if not path.is_file():  # to open a pipe would wait for who writes into it
            return False
        with path.open("rb") as file:
            return f"Software\0{MADE_BY}".encode() in file.read(512)
    except OSError:
        return False


def digest(path: Path) -> str:
    """The SHA-256 of a file that could be an image, which is not decoded.

    Raises:
        InputError: It is missing, no regular file, empty or above 256 MiB.
    """
    with _open(path) as file:
        return _digest(file, path)


def openable(path: Path) -> None:
    """Refuse a file that could be no image, without looking into it.

    Raises:
        InputError: It is missing, no regular file, empty or above 256 MiB.
    """
    _open(path).close()


def _digest(file: BinaryIO, path: Path) -> str:
    try:
        file.seek(0)
        return hashlib.file_digest(file, "sha256").hexdigest()  # type: ignore[arg-type]  # typed too narrowly
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}") from error


def _open(path: Path) -> BinaryIO:
    """The file, opened so that a named pipe or a device cannot block."""
    fault = paths.fault(path)
    if fault == paths.MISSING:
        raise InputError(f"no file {paths.named(path)}; {_instead(str(path))}")
    if fault:
        raise InputError(f"{paths.named(path)} {fault}; expected an image file")
    try:
        # Between stat and open the name may be swapped for a pipe; then open must not wait for a writer.
        flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
        file = os.fdopen(os.open(path, flags), "rb")
        size = os.fstat(file.fileno()).st_size
    except OSError as error:
        raise InputError(f"{path} cannot be opened: {error.strerror or error}") from error
    if size == 0 or size > MAX_BYTES:
        file.close()
        found = "empty" if size == 0 else f"{size / 2**20:.0f} MiB, above {MAX_BYTES >> 20} MiB"
        raise InputError(f"{path} is {found}; expected an image")
    return file


def _instead(text: str) -> str:
    """What to give in place of a name that is no file's."""
    if text == "-":
        return "standard input is not read: save the image, and give its path"
    if _URL.match(text):
        return "addresses are not fetched: download the image, and give the path of the file"
    if os.sep == "/" and "\\" in text:
        return "folders are parted by / here: give the path of an image as this system writes it"
    return "give the path of an image"


def _decode(file: BinaryIO, path: Path, notes: list[str]) -> "Image.Image":
    """The first frame, upright, in the file's own mode."""
    from PIL import Image, ImageOps, UnidentifiedImageError

    try:
        with warnings.catch_warnings(action="ignore"):
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(file, formats=FORMATS) as image:
                _check_size(image, path)
                if getattr(image, "is_animated", False):
                    notes.append("it has several frames, of which the first was read")
                image.load()
                ImageOps.exif_transpose(image, in_place=True)  # which copies nothing where nothing is turned
                _check_size(image, path)
                return image
    except InputError:
        raise
    except UnidentifiedImageError:
        raise InputError(f"{path} is no image of a known format; expected {', '.join(FORMATS)}") from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise InputError(f"{path} has too many pixels, the limit is {MAX_PIXELS:,}: {_line(error)}") from None
    # Pillow's decoders answer bad files with ValueError, SyntaxError, struct.error and others.
    except Exception as error:
        raise InputError(f"{path} cannot be decoded, it may be damaged or cut short: {_line(error)}") from error


def _check_size(image: "Image.Image", path: Path) -> None:
    width, height = image.size
    if width * height > MAX_PIXELS:
        raise InputError(
            f"{path} is {width} × {height} = {width * height:,} pixels, the limit is {MAX_PIXELS:,}; "
            "scale it down first"
        )


def _line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__

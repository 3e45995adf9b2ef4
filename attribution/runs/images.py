"""Images of a folder or of a list as the items of a run."""

import csv
import os
import threading
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from attribution import images, numbers
from attribution.errors import AttributionError, InputError
from attribution.images.files import made_here
from attribution.paths import fault, named
from attribution.runs import fingerprint
from attribution.runs.folder import RunFolder
from attribution.runs.items import Item, checked
from attribution.runs.transforms import stateless

if TYPE_CHECKING:
    from PIL import Image

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff")
_PATH, _TARGET = ("path", "file", "filename", "image"), ("target", "class", "index")
_LONGEST_LIST = 2**28
_CLASSES = 2**31


class ImageFiles:
    """Image files as items.

    Args:
        paths: Of the files.
        names: What each is called in results.
        transform: From an RGB photo to a tensor (C, H, W).
        source: Where they were found, in words.
        told: A text that names the transform; ``None``: it is made of the function.
        root: A folder out of which no link may lead; ``None``: links are followed.
        targets: One class per file, or none at all.
        place: The folder or list that a record tells.
        together: Whether several threads may call ``transform`` at once; ``None``: where it is made of torchvision's
            that keep nothing.

    Attributes:
        ahead: Whether files may be read, and ``transform`` called, in threads of the run, several files at once and
            before their turn.
    """

    ahead = True

    def __init__(
        self,
        paths: Sequence[Path],
        names: Sequence[str],
        transform: "Callable[[Image.Image], Tensor]",
        *,
        source: str,
        told: str | None = None,
        root: Path | None = None,
        targets: Sequence[int] | None = None,
        place: Path | None = None,
        together: bool | None = None,
    ) -> None:
        self.paths, self.names, self.source, self.place = paths, names, source, place
        self.transform = fingerprint.of_function(transform) if told is None else told
        self._transform, self.targets = transform, targets
        self._together = stateless(transform) if together is None else together
        self._one = threading.Lock()
        self._root = None if root is None else os.path.realpath(root)

    def __getitem__(self, index: int) -> Item:
        path = self.paths[index]
        try:
            self._admit(path)
            photo = images.photo(path)
        except InputError as error:  # wherever the folder lies, the record of the run is the same
            raise InputError(str(error).replace(str(path), self.names[index])) from error
        name = named(self.names[index])
        try:
            with nullcontext() if self._together else self._one:
                inputs = self._transform(photo.image)
        except AttributionError as error:
            raise InputError(f"{name}: {error}") from error
        except Exception as error:  # a stranger's transform
            raise InputError(f"{name}: the transform fails: {type(error).__name__}: {error}") from error
        checked(inputs, name)
        target = None if self.targets is None else self.targets[index]
        return Item(inputs, photo.sha256, target, photo.notes)

    def __getstate__(self) -> dict[str, Any]:
        return {name: held for name, held in vars(self).items() if name != "_one"}  # a lock goes to no other process

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state, _one=threading.Lock())

    def digest(self, index: int) -> str:
        """Of the file's bytes."""
        self._admit(self.paths[index])
        return images.digest(self.paths[index])

    def _admit(self, path: Path) -> None:
        """Refuse a link out of the folder, which shows what nobody put into it."""
        if self._root is None:
            return
        try:
            real = os.path.realpath(path)
        except (OSError, ValueError) as error:
            raise InputError(f"{named(path)} cannot be opened: {error}") from error
        if os.path.commonpath((real, self._root)) != self._root:
            raise InputError(f"{named(path)} is a link out of its folder; list it, or copy the file")


def of_folder(
    root: Path,
    transform: "Callable[[Image.Image], Tensor]",
    *,
    told: str | None = None,
    without: Path | None = None,
    together: bool | None = None,
) -> ImageFiles:
    """All files below a folder that are called like images, in the order of their names' bytes.

    Hidden files and folders, folders of runs and figures of ours are left out, and links to folders are not entered.

    Args:
        root: The folder.
        transform: See `ImageFiles`.
        told: Likewise.
        without: A folder that is left out, such as that of the results.
        together: See `ImageFiles`.

    Raises:
        InputError: There is no such folder, or no image in it.
    """
    if not root.is_dir():
        raise InputError(f"{named(root)} is no folder; give a folder of images, or a list that ends in .csv")
    hidden = None if without is None else os.path.realpath(without)
    found: list[tuple[bytes, Path]] = []
    others = 0
    for place, folders, names in os.walk(root, onerror=_unreadable):
        folders[:] = [
            name
            for name in folders
            if not name.startswith(".")
            and os.path.realpath(os.path.join(place, name)) != hidden
            and not RunFolder.settled(Path(place, name))  # its pictures are none of the user's
        ]
        for name in (name for name in names if not name.startswith(".")):
            path = Path(place, name)
            if path.suffix.lower() in SUFFIXES and not made_here(path):
                found.append((os.fsencode(path.relative_to(root).as_posix()), path))
            else:
                others += 1
    if not found:
        raise InputError(f"{named(root)} has no file that ends in {', '.join(SUFFIXES)}")
    found.sort()
    source = f"folder {named(root)}" + (f", {others} other files left out" if others else "")
    paths, names = [path for _, path in found], [os.fsdecode(name) for name, _ in found]
    return ImageFiles(paths, names, transform, source=source, told=told, root=root, place=root, together=together)


def _index(text: str) -> int:
    """An int as it stands in a list: Python's own reads ``1_0`` as 10."""
    if not (text.isascii() and text.removeprefix("-").isdigit()):
        raise ValueError(text)
    return int(text)


def of_list(
    path: Path,
    transform: "Callable[[Image.Image], Tensor]",
    *,
    told: str | None = None,
    index: Callable[[str], int] = _index,
    together: bool | None = None,
) -> ImageFiles:
    """The files of a CSV list with the column ``path``, and ``target`` where each has a class of its own.

    Args:
        path: The list; paths in it count from its folder.
        transform: See `ImageFiles`.
        told: Likewise.
        index: From what is written in ``target`` to a class.
        together: See `ImageFiles`.

    Raises:
        InputError: It is no such list; the text names the line.
        TargetError: ``index`` refuses a class.
    """
    if found := fault(path):
        raise InputError(f"{named(path)} {found}; give a folder of images, or a list that ends in .csv")
    if path.stat().st_size > _LONGEST_LIST:
        raise InputError(f"{named(path)} is above {_LONGEST_LIST >> 20} MiB; split it")
    try:
        with path.open(newline="", encoding="utf-8-sig", errors="surrogateescape") as file:
            reader = csv.DictReader(file, strict=True)
            header = [name.strip().lower() for name in reader.fieldnames or []]
            reader.fieldnames = header
            rows = [(reader.line_num, row) for row in reader]
    except (OSError, ValueError, csv.Error) as error:
        raise InputError(f"{named(path)} is no CSV list: {error}") from error
    column = next((name for name in _PATH if name in header), None)
    if column is None:
        raise InputError(
            f"{named(path)} has the columns {named(', '.join(header)) or 'none'}; one must be called path, with commas "
            "between them, in UTF-8"
        )
    if twice := [name for name in (*_PATH, *_TARGET) if header.count(name) > 1]:
        raise InputError(f"{named(path)} has {header.count(twice[0])} columns called {twice[0]}; leave one")
    target = next((name for name in _TARGET if name in header), None)
    names: list[str] = []
    targets: list[int] = []
    for line, row in rows:
        if not (row[column] or "").strip() or None in row:
            raise InputError(f"{named(path)}, line {line}: expected {len(header)} fields, one of them a path")
        names.append(row[column])
        if target is not None:
            targets.append(_class(row[target], index, path, line))
    if not names:
        raise InputError(f"{named(path)} lists no image")
    paths = [path.parent / name for name in names]
    given = None if target is None else targets
    source = f"list {named(path)}"
    about: dict[str, Any] = {"source": source, "told": told, "targets": given, "place": path, "together": together}
    return ImageFiles(paths, names, transform, **about)


def _class(text: str | None, index: Callable[[str], int], path: Path, line: int) -> int:
    try:
        found = numbers.integer(index((text or "").strip()))
    except AttributionError as error:
        raise type(error)(f"{named(path)}, line {line}: {error}") from error
    except ValueError:
        found = None
    if found is None or not 0 <= found < _CLASSES:
        raise InputError(f"{named(path)}, line {line}: {text!r} is no class; give its index")
    return found


def _unreadable(error: OSError) -> None:
    raise InputError(f"{named(error.filename)} cannot be listed: {error.strerror or error}") from error

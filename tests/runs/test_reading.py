"""Folders, lists and data sets as items: what is taken, what is refused, and with which words."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure

from attribution import plots
from attribution.errors import InputError, TargetError
from attribution.runs import Examples, of_folder, of_list
from attribution.runs.computing import Unread, read
from attribution.runs.items import Item, Items
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
    (tmp_path / "results" / "run.json").write_text("{}")  # another run's
    assert names(of_folder(tmp_path, to_tensor)) == ["Z.tiff", "a-1.png", "a/c.JPG", "b.png"]
    (tmp_path / "run.json").write_text("{}")
    assert names(of_folder(tmp_path, to_tensor)) == ["Z.tiff", "a-1.png", "a/c.JPG", "b.png"]


def test_figures_of_ours_are_no_photos(tmp_path: Path) -> None:
    paint(tmp_path / "cat.png", 0)
    paint(tmp_path / "cat.grad_cam.png", 1)  # the user's, whatever its name
    figure = Figure()
    figure.subplots().plot([1, 2])
    plots.save(figure, tmp_path / "cat.occlusion.png")
    figure.savefig(tmp_path / "drawn.png")  # by another program
    items = of_folder(tmp_path, to_tensor)
    assert names(items) == ["cat.grad_cam.png", "cat.png", "drawn.png"]
    assert items.source.endswith("1 other files left out")


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
        ("path,target\na.png,1_0\n", "'1_0' is no class"),
        ("path,target\na.png,9999999999\n", "is no class"),
        ("path,path\na.png,b.png\n", "2 columns called path"),
        ("path;target\na.png;1\n", "has the columns path;target; one must be called path, with commas"),
        ("\x1b[2Jname\na.png\n", r"has the columns \\x1b\[2jname"),
        ("p\0a\0t\0h\0\n", r"has the columns p\\x00a"),
        (f"path\n{'x' * 200_000}\n", "field larger than field limit"),
    ],
)
def test_a_list_that_is_none(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "list.csv").write_text(text)
    with pytest.raises(InputError, match=said):
        of_list(tmp_path / "list.csv", to_tensor)


def test_a_list_from_a_spreadsheet(tmp_path: Path) -> None:
    """A mark of the byte order, ends of lines of two letters, quotes, long cells, and paths that lead elsewhere."""
    names_ = ["a.png", 'q,"x".png', "../outside.png", str(tmp_path / "in" / "a.png"), "x" * 10_000 + ".png", "a\0.png"]
    for name in names_[:3]:
        paint(tmp_path / "in" / name, len(name))
    rows = [f'"{name.replace(chr(34), chr(34) * 2)}",{"y" * 10_000},{number}' for number, name in enumerate(names_)]
    text = "\r\n".join(["\ufeffFile , note,CLASS", *rows, ""])
    (tmp_path / "in" / "list.csv").write_bytes(text.encode())
    items = of_list(tmp_path / "in" / "list.csv", to_tensor)
    assert names(items) == names_
    found = [read(items, index) for index in range(len(names_))]
    assert [item.target for item in found if isinstance(item, Item)] == [0, 1, 2, 3]
    assert torch.equal(items[3].inputs, items[0].inputs)
    assert not torch.equal(items[1].inputs, items[0].inputs)
    long, null = found[4:]
    assert isinstance(long, Unread)
    assert isinstance(null, Unread)
    assert long.reason.endswith("cannot be opened: File name too long; expected an image file")
    assert len(long.reason) < 400
    assert null.reason.endswith("a\\x00.png is not a path: embedded null byte; expected an image file")


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
    both = torch.tensor([float("inf"), -float("inf")])
    large = torch.full((3, 2, 2), 6e4, dtype=torch.float16)  # the sum of which is infinite
    items = Examples([large, both, both[:1], torch.zeros(300, 1), torch.full((2,), 3e38)])
    assert [isinstance(read(items, index), Item) for index in range(5)] == [True, False, False, True, True]
    with pytest.raises(InputError, match="__len__"):
        Examples(iter([]))
    with pytest.raises(InputError, match="3 examples and 1 names"):
        Examples(Noise(3), names=["a"])


def test_a_folder_that_cannot_be_listed_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    painted(tmp_path / "a", 1)

    def closed(path: Any) -> Any:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(os, "scandir", closed)
    with pytest.raises(InputError, match="cannot be listed: Permission denied"):
        of_folder(tmp_path, to_tensor)

"""Names of results, and the folder in which they appear whole."""

import os
from pathlib import Path

import pytest

from attribution import OutputError
from attribution.cli.output_folder import result_folder, stems


@pytest.mark.parametrize(
    ("paths", "names"),
    [
        (["a.jpg", "b.jpg"], ["a", "b"]),
        (["x/a.jpg", "y/a.jpg", "a.png"], ["a", "a-2", "a-3"]),
        (["a.jpg", "a.png", "a-2.jpg"], ["a", "a-2", "a-2-2"]),
        (["Cup.jpg", "cup.png"], ["Cup", "cup-2"]),
        (["a.b.jpg", "a.c.jpg"], ["a.b", "a.c"]),
    ],
)
def test_every_image_has_a_name_of_its_own(paths: list[str], names: list[str]) -> None:
    assert stems([Path(path) for path in paths]) == names


def test_results_appear_when_they_are_published(tmp_path: Path) -> None:
    with result_folder(tmp_path / "deep" / "out") as folder:
        (folder.stage / "b").write_text("2")
        (folder.stage / "a").write_text("1")
        assert not (folder.path / "a").exists()
        assert folder.publish() == [folder.path / "a", folder.path / "b"]
        (folder.stage / "late").write_text("3")
    assert sorted(os.listdir(tmp_path / "deep" / "out")) == ["a", "b"]


def test_a_failure_leaves_no_trace(tmp_path: Path) -> None:
    def fail() -> None:
        with result_folder(tmp_path / "deep" / "out") as folder:
            (folder.stage / "half").write_text("…")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert os.listdir(tmp_path) == []


def test_a_folder_that_was_there_stays(tmp_path: Path) -> None:
    with result_folder(tmp_path):
        pass
    assert tmp_path.is_dir()
    assert os.listdir(tmp_path) == []


def test_nothing_is_published_when_one_result_has_no_place(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    with result_folder(tmp_path) as folder:
        (folder.stage / "a").write_text("1")
        (folder.stage / "b").write_text("2")
        with pytest.raises(OutputError, match="is a folder"):
            folder.publish()
    assert os.listdir(tmp_path) == ["b"]


@pytest.mark.parametrize("name", ["file", "file/below", "nul\0"])
def test_a_folder_that_cannot_be_made_is_an_output_error(name: str, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="choose another --out"), result_folder(tmp_path / name):
        pass

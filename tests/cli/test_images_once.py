"""The command line decodes and transforms each image once, whatever it draws and writes of it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from attribution import load
from attribution.cli import question
from attribution.images import files
from attribution.images.files import read
from tests.cli.conftest import MODEL

COUNTED = MODEL.replace(
    "def transform(photo):\n",
    "from pathlib import Path\n\ndef transform(photo):\n"
    "    with open(Path(__file__).with_name('transformed'), 'a') as log:\n"
    "        log.write(photo.tobytes()[:64].hex() + '\\n')\n",
)


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Name of each image that is decoded."""
    found, decode = list[str](), files._decode

    def counted(file: Any, path: Path, notes: list[str]) -> Any:
        found.append(path.name)
        return decode(file, path, notes)

    monkeypatch.setattr(files, "_decode", counted)
    return found


@pytest.mark.parametrize(
    "words",
    [
        ("explain", "-t", "grad_cam", "-l", "body"),
        ("explain", "-t", "grad_cam", "-t", "layer_cam", "-l", "body", "--target", "1"),
        ("compare", "-t", "grad_cam", "-l", "body"),
    ],
    ids=["explain", "several techniques", "compare"],
)
def test_each_image_is_decoded_and_transformed_once(
    words: tuple[str, ...],
    tmp_path: Path,
    painted: Callable[..., Path],
    attribution: Callable[..., Any],
    decoded: list[str],
) -> None:
    (tmp_path / "model.py").write_text(COUNTED)
    photos = [painted(tmp_path / "photos" / f"{name}.png", seed=seed) for seed, name in enumerate("ab")]
    spec = f"{tmp_path / 'model.py'}:make"
    command, *options = words
    photos = photos[:1] if command == "compare" else photos  # which takes one
    done = attribution(command, *photos, *options, "-m", spec, "-o", tmp_path / "out")
    assert done.code == 0, done.err
    assert sorted(decoded) == [photo.name for photo in photos]
    seen = (tmp_path / "transformed").read_text().split()  # beside it is shown a ramp, for what it cuts off
    assert [seen.count(read(photo).tobytes()[:64].hex()) for photo in photos] == [1] * len(photos)


def test_images_that_are_too_many_to_keep_are_read_again(
    tmp_path: Path,
    painted: Callable[..., Path],
    spec: str,
    attribution: Callable[..., Any],
    decoded: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    photos = [painted(tmp_path / "photos" / f"{name}.png", seed=seed) for seed, name in enumerate("abc")]
    monkeypatch.setattr(question, "MOST_KEPT", 2 * 4 * 3 * 17 * 23)
    asked = ("explain", *photos, "-t", "activations", "-l", "body", "-m", spec)
    assert attribution(*asked, "-o", tmp_path / "some").code == 0
    assert sorted(decoded) == ["a.png", "b.png", "c.png", "c.png"]
    monkeypatch.undo()
    assert attribution(*asked, "-o", tmp_path / "all").code == 0
    for name in "abc":
        some, every = (load(tmp_path / where / f"{name}.activations.safetensors").map for where in ("some", "all"))
        assert torch.equal(some, every)

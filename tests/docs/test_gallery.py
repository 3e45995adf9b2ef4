"""The gallery's pages are those of the examples as they are: whoever changes one runs ``docs/make_gallery.py``."""

import hashlib
import tempfile
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[2] / "docs"
EXAMPLES = sorted((DOCS / "gallery").glob("plot_*.py"))
PAGES = DOCS / "auto_gallery"


def stale(example: Path) -> bool:
    """Whether the page of an example was made of another text."""
    text = example.read_text(encoding="utf-8")
    copy, digest = PAGES / example.name, PAGES / f"{example.name}.md5"
    if not (copy.exists() and digest.exists()):
        return True
    own = hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()
    return copy.read_text(encoding="utf-8") != text or digest.read_text(encoding="utf-8").strip() != own


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_a_page_is_that_of_its_example(example: Path, tmp_path: Path) -> None:
    assert not stale(example), "run: uv run --group docs --group weights python docs/make_gallery.py"
    changed = tmp_path / example.name
    changed.write_text(example.read_text(encoding="utf-8") + "x = 1\n", encoding="utf-8")
    assert stale(changed)
    page = (PAGES / f"{example.stem}.rst").read_text(encoding="utf-8")
    assert tempfile.gettempdir() not in page  # a path of the machine that ran it
    made = [line.split()[-1] for line in page.splitlines() if line.startswith(".. image-sg::")]
    assert len(made) == example.read_text(encoding="utf-8").count("\nfigure = ")
    for name in made:
        picture = DOCS / name.removeprefix("/")
        assert 5_000 < picture.stat().st_size < 500_000


def test_there_are_examples_and_no_pages_of_others() -> None:
    assert len(EXAMPLES) >= 13
    assert {path.stem for path in PAGES.glob("plot_*.rst")} == {path.stem for path in EXAMPLES}

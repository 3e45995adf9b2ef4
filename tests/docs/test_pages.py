"""Links lead somewhere, pictures are shown, and pages keep to their form."""

import importlib.util
import re
from pathlib import Path

import pytest
from PIL import Image

ROOT = Path(__file__).parents[2]
PAGES = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")])
DECISIONS = sorted((ROOT / "docs/decisions").glob("[0-9]*.md"))
PICTURES = sorted(path for path in (ROOT / "docs/pictures").iterdir() if path.suffix in (".jpg", ".png"))
LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
FENCE = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)


def prose(page: Path) -> str:
    """The page without its code."""
    return re.sub(r"`[^`\n]*`", "", FENCE.sub("", page.read_text(encoding="utf-8")))


def anchors(page: Path) -> list[str]:
    """What a heading is called in a link, as GitHub forms it."""
    text = FENCE.sub("", page.read_text(encoding="utf-8"))
    headings = re.findall(r"^#+ +(.+)$", text, re.MULTILINE)
    return [re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings]


def targets(page: Path) -> list[Path]:
    """The files that a page links to."""
    links = [link.partition("#")[0] for link in LINK.findall(prose(page)) if "://" not in link]
    return [(page.parent / link).resolve() for link in links if link]


def broken(page: Path) -> list[str]:
    """Internal links of a page that lead nowhere."""
    found = []
    for link in LINK.findall(prose(page)):
        file, _, anchor = link.partition("#")
        place = (page.parent / file).resolve() if file else page
        if "://" not in link and (not place.exists() or (anchor and anchor not in anchors(place))):
            found.append(link)
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_links_resolve(page: Path) -> None:
    assert broken(page) == []


def test_a_broken_link_is_caught(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# A rule: *of* its own\n[a](#a-rule-of-its-own) [b](#none) [c](none.md) `[d](code.md)`\n")
    assert broken(page) == ["#none", "none.md"]


def test_every_rule_has_an_anchor_of_its_own() -> None:
    names = anchors(ROOT / "docs/conventions.md")
    assert len(names) == len(set(names))


def test_every_picture_is_shown_and_every_page_found() -> None:
    shown = {place for page in PAGES for place in targets(page)}
    assert [picture.name for picture in PICTURES if picture not in shown] == []
    listed = {ROOT / "README.md", *(ROOT / "docs").rglob("index.md"), *DECISIONS}
    assert [page.name for page in PAGES if page not in shown | listed] == []


@pytest.mark.parametrize("picture", PICTURES, ids=lambda picture: picture.name)
def test_pictures_are_small_and_not_blank(picture: Path) -> None:
    assert picture.stat().st_size < (600_000 if picture.name == "paper_figure.png" else 200_000)  # for print
    with Image.open(picture) as image:
        shades = image.convert("L").tobytes()
    assert max(shades) - min(shades) > 128


def test_every_picture_is_made_by_a_script() -> None:
    makers = ("evaluation", "paper_figure", "pictures", "report", "vgg16_pictures")
    scripts = [(ROOT / f"docs/make_{name}.py").read_text(encoding="utf-8") for name in makers]
    names = [*re.findall(r'[/"](\w+\.(?:jpg|png))"', "".join(scripts)), "filters_early.jpg", "filters_middle.jpg"]
    drawn = {picture.name for picture in PICTURES if not picture.name.startswith("benchmark-")}
    assert sorted(drawn - set(names)) == []


@pytest.mark.parametrize("page", DECISIONS, ids=lambda page: page.stem)
def test_decisions_are_short_and_complete(page: Path) -> None:
    lines = page.read_text(encoding="utf-8").splitlines()
    assert len(lines) <= 40
    assert [line for line in lines if line.startswith("## ")] == ["## Context", "## Decision", "## Cost"]
    assert lines[0].startswith(f"# {int(page.name[:4])}. ")


def test_decisions_are_numbered_without_gaps() -> None:
    assert [int(page.name[:4]) for page in DECISIONS] == list(range(1, len(DECISIONS) + 1))


def test_the_reference_lists_every_public_name() -> None:
    spec = importlib.util.spec_from_file_location("make_reference", ROOT / "docs/make_reference.py")
    assert spec is not None
    assert spec.loader is not None
    made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    assert made.PAGE.read_text(encoding="utf-8") == made.page(), "run docs/make_reference.py"
    public = {name for name in (ROOT / "tests/public_names.txt").read_text().split() if not name.startswith("_")}
    assert {name for names in made.names().values() for name in names} == public

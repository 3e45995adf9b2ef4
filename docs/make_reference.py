"""Writes the lists of public names for the site: ``uv run python docs/make_reference.py``.

The names are those of ``attribution/__init__.pyi``, by the package that each comes from.
"""

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs/reference/index.md"

GROUPS = {
    "Asking": ("api", "comparison", "inputs", "running", "isolation"),
    "Answers": ("result", "agreement"),
    "Scores": ("scores",),
    "Techniques": ("techniques",),
    "Plugins": ("attributor", "registry", "technique"),
    "Errors": ("errors",),
}


def names() -> dict[str, list[str]]:
    """Public names by group; what belongs to none goes under "More"."""
    found: dict[str, list[str]] = {group: [] for group in [*GROUPS, "More"]}
    stub = (ROOT / "attribution/__init__.pyi").read_text(encoding="utf-8")
    for module, name in re.findall(r"^from \.([\w.]*) import (\w+) as \w+$", stub, re.MULTILINE):
        package = (module or name).partition(".")[0]
        group = next((group for group, packages in GROUPS.items() if package in packages), "More")
        found[group].append(name)
    return {group: sorted(listed) for group, listed in found.items() if listed}


def page() -> str:
    """The page as it should be."""
    lines = ["# Reference", "", "Everything that `from attribution import …` gives. Made by `docs/make_reference.py`."]
    for group, listed in names().items():
        lines += ["", f"## {group}", "", "```{eval-rst}", ".. currentmodule:: attribution", ""]
        lines += [".. autosummary::", "   :toctree: names", "", *(f"   {name}" for name in listed), "```"]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")

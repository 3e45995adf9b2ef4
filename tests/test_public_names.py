"""A public name goes in two steps, and never by accident."""

from pathlib import Path

import attribution

NAMES = Path(__file__).with_name("public_names.txt").read_text(encoding="utf-8").split()


def missing(names: list[str]) -> list[str]:
    return [name for name in names if not hasattr(attribution, name)]


def test_every_public_name_is_still_there() -> None:
    assert missing(NAMES) == []
    assert missing([*NAMES, "GradCam"]) == ["GradCam"]


def test_new_public_names_are_written_down() -> None:
    assert sorted(NAMES) == NAMES
    assert [name for name in sorted(vars(attribution)["__all__"]) if name not in NAMES] == []

"""The table of known disagreements: each size and reason, measured anew, and the page that tells them."""

import importlib.util
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

PATH = Path(__file__).parents[2] / "docs/make_disagreements.py"


def loaded() -> Any:
    spec = importlib.util.spec_from_file_location("make_disagreements", PATH)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where its dataclasses look for it
    spec.loader.exec_module(module)
    return module


TABLE = loaded()


@pytest.mark.parametrize("row", TABLE.ROWS, ids=lambda row: f"{row.technique}-{row.library}")
def test_a_disagreement_has_its_size_and_its_reason(row: Any) -> None:
    """A library that was mended fails here: take its row out, and let the reference prove that it agrees."""
    found = row.measure()
    assert not row.changed(found)
    assert not row.portable or row.size > 100 * TABLE.LEFT, "what the reason leaves is nothing beside the size"


def test_a_mended_library_and_another_reason_are_noticed() -> None:
    row = replace(TABLE.ROWS[0], size=0.5)
    told = row.changed(TABLE.Measured(0.0, 0.0))
    assert "the size is 0 and was 0.5; look whether it was mended" in told
    assert "torchcam" in told
    assert "is not explained by the reason" in row.changed(TABLE.Measured(0.5, 1e-3))
    assert row.changed(TABLE.Measured(0.52, 1e-6)) == ""
    assert replace(row, portable=False).changed(TABLE.Measured(0.1, 1e-6)) == ""


def test_the_page_is_what_the_command_writes() -> None:
    assert TABLE.PAGE.read_text(encoding="utf-8") == TABLE.page()

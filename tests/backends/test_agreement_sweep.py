"""Both backends on one net of every torchvision family: they agree, and what is left is rounding."""

from collections.abc import Callable
from dataclasses import replace
from functools import cache

import pytest
import torch
from torch import Tensor

from attribution import Attribution
from attribution.agreement import all_hold, table
from benchmarks.families import NETS
from docs import make_agreement as sweep

QUICK = ("squeezenet1_1", "mobilenet_v3_small", "shufflenet_v2_x0_5")
LEAST = 20
AMPLIFIES = {("googlenet", "occlusion")}
"""Plain float32 is off by more than the tolerance, so that two right answers may lie on either side of float64."""


def held(name: str) -> None:
    found = list(sweep.rows(name))
    assert [row.technique for row in found] == list(sweep.TECHNIQUES)
    for row in found:
        assert row.verdict == "rounding", row
        assert row.counted == row.pairs > 0, row
        assert all_hold(row.double), table(row.double)
        assert all_hold(row.single) or (name, row.technique) in AMPLIFIES, table(row.single)


@pytest.mark.parametrize("name", QUICK)
def test_family(name: str) -> None:
    held(name)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in NETS if name not in QUICK])
def test_every_family(name: str) -> None:
    held(name)


CHANGES: dict[str, Callable[[Tensor], Tensor]] = {
    "a tenth of a percent too large": lambda map_: map_ * 1.001,
    "normalised": lambda map_: (map_ - map_.min()) / (map_.max() - map_.min()),
    "upside down": lambda map_: map_.flip(-2),
}


@cache
def answers(index: int) -> dict[tuple[str, torch.dtype | int], Attribution]:
    name = "mobilenet_v3_small"
    models = sweep.shown(name)
    ask = sweep.asker(models, sweep.questions(name, models[torch.float32][0])[index])
    return {
        (by, key): ask(by, key) for by in ("hooks", "captum") for key in models if by == "hooks" or key not in (1, 2)
    }


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("index", range(4), ids=sweep.TECHNIQUES)
def test_a_wrong_backend_is_called_a_bug(index: int, change: str) -> None:
    """Whichever is wrong, and also where both are wrong alike, which their agreement cannot tell."""
    found = answers(index)

    def row(*wrong: str) -> sweep.Row:
        def ask(by: str, key: torch.dtype | int) -> Attribution:
            good = found[by, key]
            if key != torch.float32 or by not in wrong:
                return good
            return replace(good, raw={layer: CHANGES[change](map_) for layer, map_ in good.raw.items()})

        return sweep.row("net", ask)

    assert row().verdict == "rounding"
    assert all_hold(row().single)
    for wrong in ("hooks", "captum"):
        assert row(wrong).verdict == "bug"
        assert not all_hold(row(wrong).single)
        assert "DIFFERS" in sweep.difference(row(wrong).single)
    alike = row("hooks", "captum")
    assert alike.verdict == "bug"
    assert all_hold(alike.single)


def test_the_committed_page_has_every_row() -> None:
    text = sweep.PAGE.read_text(encoding="utf-8")
    assert f"{4 * len(NETS)} rows: the backends agree in {4 * len(NETS)}, " in text
    assert len(NETS) >= LEAST
    sections = text.split("\n## ")[1:]
    assert [section.partition("\n")[0] for section in sections] == list(sweep.TECHNIQUES)
    for section in sections:
        lines = [line.strip("| ").split(" | ") for line in section.splitlines() if line.startswith("| ")]
        assert lines[0] == list(sweep.COLUMNS)
        assert [cells[0] for cells in lines[2:]] == list(NETS)
        for _, _, pairs, single, double, hooks, captum, _, verdict in lines[2:]:
            counted, _, compared = pairs.partition(" of ")
            assert counted == compared
            for cell in (single, double):
                off, _, allowed = cell.partition(" of ")
                assert float(off) <= float(allowed)
            assert max(float(hooks), float(captum)) <= 1e-2
            assert verdict == "rounding"

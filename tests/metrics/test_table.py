"""Tables: sentences, pairs, files and the figure."""

import csv
from pathlib import Path

import numpy as np
import pyarrow.parquet
import pytest

from attribution import (
    InputError,
    OutputError,
)
from attribution.metrics import (
    Infidelity,
    Table,
    evaluate,
)
from attribution.metrics.rows import Row
from attribution.testing import small_cnn
from tests.metrics.asked import (
    CAM,
    CHEAP,
    ordered,
    pictures,
)


def test_what_is_said() -> None:
    table = ordered()
    assert table.ranking()[0] == "best"
    assert table.ranking()[-1] == "reversed"
    said = table.verdicts()
    assert said[0].startswith("best by srg: better than random, centre and edges.")
    assert said[1].startswith("reversed by srg: worse than random, centre and edges.")
    assert said[2] == "best beats reversed on 100 % of photos (100–100)."
    assert "two halves of the photos" in said[-1]
    text = table.text()
    assert text.index("| best |") < text.index("| reversed |") < text.index("| *random* |")
    assert "12 photos; mean (95 % interval" in text
    turned = [row if row.map != "best" else Row(**{**vars(row), "value": -row.value}) for row in table.rows]
    mutant = Table(turned, table.curves, table.contestants, table.better)
    assert mutant.verdicts()[0] != said[0]
    few = ordered(4).verdicts()
    assert few[0] == "With fewer than 6 photos no two maps are told apart."
    assert "no better than random, centre and edges" in few[1]


def test_photos_are_paired_by_their_names() -> None:
    table = ordered()
    rows = [row for row in table.rows if row.map != "random"]
    rows += [row for row in table.rows if row.map == "random"][::-1]  # in another order
    again = Table(rows, table.curves, table.contestants, table.better)
    assert again.values("srg")["random"].tolist() == table.values("srg")["random"].tolist()
    less = Table(
        [r for r in rows if (r.map, r.photo) != ("random", "3")], table.curves, table.contestants, table.better
    )
    assert all(len(each) == 11 for each in less.values("srg").values())


def test_files(tmp_path: Path) -> None:
    table = ordered()
    made = table.save(tmp_path)
    tables = [f"{name}.{kind}" for name in ("scores", "costs", "curves") for kind in ("csv", "parquet")]
    assert [path.name for path in made] == [*tables, "table.md", "curves.png"]
    with (tmp_path / "scores.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    scored = [row for row in table.rows if row.metric == "srg"]
    assert [float(line["value"]) for line in lines] == [row.value for row in scored]
    (parquet,) = [each for each in made if each.name == "scores.parquet"]
    assert pyarrow.parquet.read_table(parquet).to_pylist() == [vars(row) for row in scored]
    with (tmp_path / "costs.csv").open(newline="") as file:
        assert {line["metric"] for line in csv.DictReader(file)} == {"seconds"}
    again = Table.load(tmp_path, table.contestants, table.better)
    assert again.text() == table.text()
    assert list(again.curves) == list(table.curves)
    with pytest.raises(OutputError):
        table.save(tmp_path / "missing")


def test_the_figure_has_a_line_per_baseline() -> None:
    table = evaluate(small_cnn(), pictures(2), [CAM], target=1, title="small", **CHEAP)
    figure = table.figure()
    assert len(figure.axes) == 4
    drawn = figure.axes[0].get_lines()
    assert [line.get_label() for line in drawn] == table.maps
    clean = small_cnn()(pictures(2)).detach().softmax(1)[:, 1].mean()
    assert float(np.asarray(drawn[0].get_ydata())[0]) == pytest.approx(float(clean), abs=1e-6)
    assert "small · 2 photos" in figure.get_suptitle()
    only = evaluate(small_cnn(), pictures(2), [CAM], target=1, metrics=(Infidelity(samples=2),))
    with pytest.raises(InputError, match="no curves"):
        only.figure()

"""The files of an evaluation."""

from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from attribution.errors import OutputError
from attribution.metrics import rows
from attribution.metrics.rows import COSTS, CurveRow, Row
from attribution.paths import named

if TYPE_CHECKING:
    from attribution.metrics.table import Table


def write(table: "Table", folder: Path, *, leave: tuple[str, ...] = ()) -> list[Path]:
    """See `Table.save`.

    Args:
        table: What to write.
        folder: Where.
        leave: Names of files that are there already, by another hand.
    """
    from attribution import plots

    parts: dict[str, tuple[type[Row] | type[CurveRow], list[Row] | list[CurveRow]]] = {
        "scores": (Row, [row for row in table.rows if row.metric not in COSTS]),
        "costs": (Row, [row for row in table.rows if row.metric in COSTS]),
        "curves": (CurveRow, [*table.curves]),
    }
    made = []
    for name, (kind, lines) in parts.items():
        made.append(folder / f"{name}.csv")
        rows.write(made[-1], kind, lines)
        if find_spec("pyarrow") is not None and f"{name}.parquet" not in leave:
            made.append(folder / f"{name}.parquet")
            rows.write_parquet(made[-1], kind, lines)
    made.append(folder / "table.md")
    try:
        made[-1].write_text(table.text(), encoding="utf-8")
    except OSError as error:
        raise OutputError(f"cannot write into {named(folder)}: {error.strerror or error}") from error
    if table.curves:
        made.append(folder / "curves.png")
        plots.save(table.figure(), made[-1])
    return made

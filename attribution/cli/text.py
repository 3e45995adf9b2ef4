"""Results in a line of text."""

from attribution.result import Attribution
from attribution.zoo import LoadedModel

_MOST = 3


def summary(result: Attribution, loaded: LoadedModel) -> str:
    """Layers, targets with their scores, backend: ``"features.12 · espresso (967) 0.966 · hooks"``."""
    parts = [", ".join(key for key in result.maps if key != "input")]
    if result.target is not None and result.scores is not None:
        pairs = list(zip(result.target[0].tolist(), result.scores[0].tolist(), strict=True))
        told = [f"{loaded.label(index)} ({index}) {score:.3g}" for index, score in pairs[:_MOST]]
        parts.append(", ".join(told) + (f" and {len(pairs) - _MOST} more" if len(pairs) > _MOST else ""))
    elif result.scores is not None:
        parts += [
            f"{name}: {score:.3g}" for name, score in zip(result.names[0], result.scores[0].tolist(), strict=True)
        ][:_MOST]
    return " · ".join(filter(None, [*parts, result.backend]))


def table(rows: list[tuple[str, ...]]) -> str:
    """Columns as wide as they need, the first row being their heads."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )

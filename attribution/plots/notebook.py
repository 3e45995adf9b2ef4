"""A figure that a notebook shows as the value of a cell."""

import io

from matplotlib.figure import Figure


class Shown(Figure):
    """A matplotlib figure with the picture that notebooks ask for; those of pyplot are shown by pyplot itself."""

    def _repr_png_(self) -> bytes:
        buffer = io.BytesIO()
        self.savefig(buffer, format="png", bbox_inches="tight")
        return buffer.getvalue()

"""``Journal``: a folder in which an evaluation keeps what it has, and goes on after a break."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from attribution.errors import OutputError
from attribution.metrics import rows
from attribution.metrics.rows import CurveRow, Row
from attribution.paths import named

SCORES, CURVES, PHOTOS, QUESTION = "scores.csv", "curves.csv", "photos.txt", "question.json"


class Journal:
    """Rows of finished photos. A photo is finished when its name is in ``photos.txt``, which is written last.

    Args:
        folder: Made where it is missing.
        question: What is asked; a folder holds the answers to one question.

    Raises:
        OutputError: The folder holds the answers to another question, or cannot be read or written.
    """

    def __init__(self, folder: Path, question: Mapping[str, object]) -> None:
        self._folder = folder
        self.scores: list[Row] = []
        self.curves: list[CurveRow] = []
        self.finished: set[str] = set()
        text = json.dumps(question, indent=1, ensure_ascii=False, default=str)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            place = folder / QUESTION
            known = place.read_text(encoding="utf-8") if place.exists() else None
            if known is not None and known != text:
                raise OutputError(
                    f"{named(folder)} holds an evaluation of another question (see {QUESTION}); choose another folder"
                )
            names = folder / PHOTOS
            if known is not None and names.exists():
                self.finished = {json.loads(line) for line in names.read_text(encoding="utf-8").splitlines() if line}
                self.scores = [row for row in rows.read(folder / SCORES, Row) if row.photo in self.finished]
                self.curves = [row for row in rows.read(folder / CURVES, CurveRow) if row.photo in self.finished]
            place.write_text(text, encoding="utf-8")
            names.touch()
        except (OSError, ValueError) as error:
            if isinstance(error, OutputError):
                raise
            raise OutputError(f"cannot use the folder {named(folder)}: {error}") from error
        rows.write(folder / SCORES, Row, self.scores)
        rows.write(folder / CURVES, CurveRow, self.curves)

    def add(self, photos: Sequence[str], scores: Sequence[Row], curves: Sequence[CurveRow]) -> None:
        """Keep some photos.

        Raises:
            OutputError: The folder cannot be written.
        """
        rows.append(self._folder / CURVES, curves)
        rows.append(self._folder / SCORES, scores)
        try:
            with (self._folder / PHOTOS).open("a", encoding="utf-8") as file:
                file.writelines(json.dumps(photo) + "\n" for photo in photos)
        except OSError as error:
            raise OutputError(f"cannot write into {named(self._folder)}: {error.strerror or error}") from error
        self.scores += scores
        self.curves += curves
        self.finished |= {*photos}

"""What was found out about a model that is run, kept with the model itself: it goes when the model goes.

A dictionary with weak keys would not do: what is found leads to modules, and modules may lead back to their model.
"""

from typing import Any

from torch import nn

NAME = "_attribution_notes"


class Notes(dict[str, Any]):
    """A copy of the model is another model, of which nothing is known."""

    def __deepcopy__(self, memo: object) -> "Notes":
        return Notes()


def begin(model: nn.Module) -> None:
    """Let notes be kept, from none on. Isolation says so of each model that it hands out, and of no other."""
    vars(model)[NAME] = Notes()


def notes(model: nn.Module) -> dict[str, Any]:
    """What is known, to be read and written; of a model that was not isolated, a dict that is thrown away."""
    found = vars(model).get(NAME)
    return found if isinstance(found, Notes) else Notes()

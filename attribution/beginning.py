"""``Beginning``: the images and the score that a call starts from, made and checked once, before any forward."""

from collections.abc import Iterator

from torch import nn

from attribution import layers
from attribution.errors import TargetError
from attribution.inputs import checks
from attribution.inputs.inputs import Inputs, as_inputs
from attribution.running.guards import Guards
from attribution.scores.reading import Asked, score_of
from attribution.scores.score import Score
from attribution.technique import Technique


class Beginning:
    """What a call starts from.

    Args:
        technique: As the user gave it.
        inputs: Checked; ``None`` for a technique that makes its own.
        target: As the user gave it.
        guards: Of the call. What is found by running a model on an example is kept, so that they are settled before.
    """

    def __init__(self, technique: Technique, inputs: Inputs | None, target: Asked, guards: Guards) -> None:
        self._technique, self._inputs, self._target, self._guards = technique, inputs, target, guards
        self._found: tuple[Inputs, Score] | None = None

    def of(self, model: nn.Module) -> tuple[Inputs, Score]:
        """The inputs, a copy that is nobody else's, and the score; ``model`` is not run.

        Raises:
            AttributionError: The technique refuses the images, the target fits neither it nor them, or the model has no
                layer of a name that the technique was given.
        """
        if self._found is None:
            technique, target = self._technique, self._target
            for name in technique.named(model):
                layers.find(model, name)
            start = as_inputs(technique.start(model)) if self._inputs is None else self._inputs.detach().clone()
            if technique.takes_gradients:
                checks.floats_only(start, technique.name)
            technique.check(start)
            if not technique.needs_target and target is not None:
                raise TargetError(f"{technique.name} explains no score; leave target out (found {target!r})")
            score = score_of(target, technique.default_score).check(len(start))
            if score.of_layer is not None and technique.needs_target:
                layers.find(model, score.of_layer)
            self._found = start, score
        return self._found

    def example(self, model: nn.Module) -> Inputs:
        """The first example, for a forward that is made before the technique's own.

        Raises:
            AttributionError: See `of`.
        """
        self._guards.settle()
        return self.of(model)[0][:1]


def in_parts(inputs: Inputs, asked: Score, size: int | None) -> Iterator[tuple[slice, Inputs, Score]]:
    """Rows, inputs and score of each part of a call, ``size`` examples at a time; ``None``: all at once."""
    size = size or len(inputs)
    for first in range(0, len(inputs), size):
        rows = slice(first, first + size)
        yield rows, inputs[rows], asked.rows(rows) if size < len(inputs) else asked

"""``Beginning``: the images and the scores that a call starts from, made and checked once, before any forward."""

from collections.abc import Sequence

from torch import nn

from attribution import layers
from attribution.errors import TargetError, named
from attribution.inputs import checks
from attribution.inputs.inputs import Inputs, as_inputs
from attribution.members import Member
from attribution.running.guards import Guards
from attribution.scores.reading import score_of
from attribution.scores.score import Score


class Beginning:
    """What a call starts from.

    Args:
        members: The techniques, as the user gave them.
        inputs: Checked; ``None`` for techniques that make their own.
        guards: Of the call. What is found by running a model on an example is kept, so that they are settled before.
    """

    def __init__(self, members: Sequence[Member], inputs: Inputs | None, guards: Guards) -> None:
        self._members, self._inputs, self._guards = members, inputs, guards
        self._found: tuple[list[Inputs], list[Score]] | None = None

    def of(self, model: nn.Module) -> tuple[list[Inputs], list[Score]]:
        """Of each technique the inputs, the same for all where they are the user's, and the score.

        They are a private copy; where all techniques are computed by attributors that only read them, the user's own.
        ``model`` is not run.

        Raises:
            AttributionError: A technique refuses the images, the target fits neither it nor them, or the model has no
                layer of a name that the technique was given.
        """
        if self._found is None:
            given = self._inputs
            if given is not None and not all(member.only_reads for member in self._members):
                given = given.detach().clone()
            starts: list[Inputs] = []
            scores: dict[tuple[int, int], Score] = {}
            found = []
            for member in self._members:
                technique = member.technique
                with named(member.label):
                    for name in technique.named(model):
                        layers.find(model, name)
                    start = as_inputs(technique.start(model)) if given is None else given
                    if not technique.takes_integers:
                        checks.floats_only(start, technique.name)
                    technique.check(start)
                    if not technique.needs_target and member.target is not None:
                        raise TargetError(
                            f"{technique.name} explains no score; leave target out (found {member.target!r})"
                        )
                    key = (id(member.target), id(technique.default_score))
                    if key not in scores:  # read once for all techniques that read classes alike
                        scores[key] = score_of(member.target, technique.default_score).check(len(start))
                    score = scores[key]
                    if score.of_layer is not None and technique.needs_target:
                        layers.find(model, score.of_layer)
                starts.append(start)
                found.append(score)
            self._found = starts, found
        return self._found

    def example(self, model: nn.Module) -> Inputs:
        """The first example, for a forward that is made before the techniques' own.

        Raises:
            AttributionError: See `of`.
        """
        self._guards.settle()
        return self.of(model)[0][0][:1]


def in_parts(inputs: Inputs, asked: Sequence[Score], size: int | None) -> list[tuple[slice, Inputs, Sequence[Score]]]:
    """Rows, inputs and scores of each part of a call, ``size`` examples at a time; ``None``: all at once."""
    examples = len(inputs)
    if size is None or size >= examples:
        return [(slice(0, examples), inputs, asked)]
    parts = [slice(first, first + size) for first in range(0, examples, size)]
    return [(rows, inputs[rows], [score.rows(rows) for score in asked]) for rows in parts]

"""Row n of everything is image n: the model's output has a row per image, and no row depends on its neighbours."""

from collections.abc import Callable
from dataclasses import replace
from functools import cache, partial

from torch import Tensor, nn

from attribution.errors import LayerError, ModelError, PluginError
from attribution.result import Attribution
from attribution.running.execution import Execution
from attribution.scores.classes import ClassScore
from attribution.techniques import FilterVisualization, Occlusion
from attribution.testing.checks.check import Template, check, raises, require
from attribution.testing.checks.contract import tensors
from attribution.testing.checks.covered import occluded
from attribution.testing.checks.subject import Subject, knows_layers, needs_inputs, part
from attribution.testing.models.deceptive import MIXING, OTHER_ROWS, Folded, Plain, fronted
from attribution.testing.models.small import small_cnn


@check("Models: what is taken", needs_inputs)
def check_rows_follow_the_images(subject: Subject) -> None:
    """Row n is image n's, in all that an answer holds; an output or a layer with other rows is refused."""
    for images, size in ((1, None), (2, None), (3, 2)):
        found = subject.ask(subject.on(small_cnn()), subject.noise(images), execution=Execution(batch_size=size))
        wrong = {key: tuple(tensor.shape) for key, tensor in tensors(found).items() if tensor.shape[:1] != (images,)}
        require(not wrong, f"{wrong} for {images} images", "a first axis of images")
    if subject.technique.needs_target:
        for case, change in OTHER_ROWS.items():
            raises(ModelError, lambda c=change: subject.ask(_ending(subject, c)), f"logits with other rows ({case})")  # type: ignore[misc]
        _mean_of_one(subject)
    if knows_layers(subject):
        folded = lambda: subject.ask(subject.on(Folded()), technique=subject.asking("fold"))  # noqa: E731  # a thunk
        raises((LayerError, ModelError, PluginError), folded, "a layer that folds the batch")


def _mean_of_one(subject: Subject) -> None:
    """The mean over a batch of one is the image's own, but windows in a batch may have it too."""
    model, inputs = _ending(subject, OTHER_ROWS["the mean of the batch"]), subject.noise(1)
    try:
        found = subject.ask(model, inputs)
    except ModelError:
        return
    difference = subject.difference(found, subject.ask(subject.on(small_cnn()), inputs))
    require(not difference, f"the mean of a batch of one: {difference}", "the image's own map, or ModelError")


def _ending(subject: Subject, change: Callable[[Tensor], Tensor]) -> nn.Module:
    class Changed(Plain):
        def after(self, logits: Tensor) -> Tensor:
            return change(logits)

    return subject.on(Changed().eval())


_ASKED = ClassScore([[1, 3]] * 3, of="logit")


@check("Agreement: chunks")
def check_rows_that_mix_change_no_map(subject: Subject) -> None:
    """Of a model whose rows see each other: the map that each image has alone and says so, or `ModelError`."""
    for case, front in MIXING.items():
        model, alone = subject.on(fronted(front())), cache(partial(_alone, subject, subject.on(fronted(front()))))
        for size in (None, 64):
            try:
                found = subject.ask(model, subject.noise(3), _ASKED, execution=Execution(batch_size=size))
            except ModelError as error:
                require(len(str(error)) > 15, f"{case}: the text {error!s}", "what mixes, and how to mend it")
                continue
            where = f"{case}, batch_size={size}"
            require("rows" in found.provenance, f"{where}: no word of it", "provenance['rows']")
            for (name, piece), expected in zip(_pieces(subject, found), alone(), strict=True):
                difference = subject.difference(piece, expected)
                require(not difference, f"{where}: {name}: {difference}", "the map that it has alone")


def _alone(subject: Subject, model: nn.Module) -> list[Attribution]:
    """The answers for each image or filter without neighbours, in an attributor that never saw a batch."""
    technique, one, inputs = subject.technique, Execution(batch_size=1), subject.noise(3)
    if isinstance(technique, FilterVisualization):
        questions = [replace(technique, channels=(channel,)) for channel in technique.channels]
        return [subject.ask(model, technique=question, execution=one) for question in questions]
    if not technique.needs_inputs:
        return [subject.ask(model, execution=one)]
    asked = ClassScore([[1, 3]], of="logit")
    found = [subject.ask(model, inputs[[index]], asked, execution=one) for index in range(3)]
    if isinstance(technique, Occlusion):  # whose windows are neighbours too
        maps = [occluded(model, image, technique, (1, 3))[0] for image in inputs.split(1)]
        return [replace(answer, raw={"input": map_}) for answer, map_ in zip(found, maps, strict=True)]
    return found


def _pieces(subject: Subject, found: Attribution) -> list[tuple[str, Attribution]]:
    """One answer for all, cut like those of `_alone`."""
    if isinstance(found.technique, FilterVisualization):
        return [(f"channel {k}", _filter(found, index)) for index, k in enumerate(found.technique.channels)]
    if not subject.technique.needs_inputs:
        return [("the answer", found)]
    return [(f"image {index}", part(found, [index])) for index in range(3)]


def _filter(found: Attribution, index: int) -> Attribution:
    extras = {key: extra[:, [index]] if key == "objective" else extra[[index]] for key, extra in found.extras.items()}
    maps, raw = ({key: map_[[index]] for key, map_ in held.items()} for held in (found.maps, found.raw))
    assert isinstance(found.technique, FilterVisualization)
    technique = replace(found.technique, channels=found.technique.channels[index : index + 1])
    return replace(found, technique=technique, maps=maps, raw=raw, extras=extras)


CHECKS: tuple[Template, ...] = (check_rows_follow_the_images, check_rows_that_mix_change_no_map)

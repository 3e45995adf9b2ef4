"""``--model FILE.py:FUNCTION``: questions asked of one model, of a file or of wherever `attribution.zoo` loads from."""

from functools import cache

from PIL import Image

from attribution import Activations, GradCAM, IntegratedGradients, Occlusion, zoo
from attribution.errors import ModelError
from attribution.layers import Stop, survey
from attribution.layers.defaults import grad_cam_default
from benchmarks.models import MODELS, Subject
from benchmarks.questions import Question, Size


@cache
def questions(spec: str, size: Size) -> tuple[Question, ...]:
    """Of a model, which is known in `MODELS` by its spec from then on.

    Args:
        spec: As the command line takes it.
        size: Of the run.

    Raises:
        ModelError: The model cannot be loaded, gives no logits, or has too few layers with places.
    """
    loaded = zoo.load(spec)
    inputs = loaded.inputs(Image.new("RGB", (512, 512)))
    pixels = min(inputs.shape[2:])
    logits = loaded.model(inputs)
    if getattr(logits, "ndim", 0) != 2:
        raise ModelError(f"{spec} gives no matrix of logits; the benchmarks ask about classes")
    late, _ = grad_cam_default(loaded.model, inputs)
    three = _three(list(survey(loaded.model, inputs)), late, spec)
    MODELS[spec] = Subject(spec, lambda: loaded.model, "own", late, three, three[2], three[1], 0, logits.shape[1])
    window = max(1, pixels // 6)
    asked = (
        Question(f"activations, {three[2]}", lambda subject: Activations(layers=(subject.early,)), pixels=pixels),
        Question("grad_cam, 1 target", lambda subject: GradCAM(layers=(subject.late,)), pixels=pixels),
        Question("grad_cam, 3 layers × 3 targets", lambda subject: GradCAM(layers=subject.three), 3, pixels),
        Question("integrated_gradients, 1 target", lambda _: IntegratedGradients(), pixels=pixels),
        Question(
            f"occlusion, {pixels} px, window {window}, stride {max(1, window // 2)}",
            lambda _: Occlusion(window=window, stride=max(1, window // 2)),
            pixels=pixels,
            of="logit",
        ),
    )
    for question in asked:
        question.models.clear()
        question.models[size] = (spec,)
        question.batches[size] = (1,)
    return asked


def _three(stops: list[Stop], late: str, spec: str) -> tuple[str, str, str]:
    """The late layer, and two with places a third and two thirds of the way there."""
    names = [stop.name for stop in stops if stop.shape is not None and len(stop.shape) == 4 and stop.calls == 1]
    if late not in names or names.index(late) < 2:
        raise ModelError(f"{spec} has fewer than three layers with places before {late!r}; too few to be asked about")
    end = names.index(late)
    return late, names[max(1, 2 * end // 3)], names[end // 3]

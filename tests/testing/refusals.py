"""What the attributors say to mistakes; run as a program, it prints the same in another interpreter."""

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch

from attribution import (
    Attributor,
    ClassScore,
    Execution,
    FilterVisualization,
    Occlusion,
    Run,
    registry,
)
from attribution.technique import Maps
from attribution.techniques.cam.family import CAM
from attribution.testing import awkward, small_cnn
from tests.cases import OF_LAYERS, PAIRS, TECHNIQUES, given
from tests.conftest import noise

CNN, REUSED, TUPLE = small_cnn(), awkward("reused layer"), awkward("tuple layer")
PLANTED = "occlusion.asserting: three channels"
NAN = noise(2, 3, 17, 23)
NAN[1, 2, 3, 4] = float("nan")


class Asserting(Attributor[Occlusion]):
    """Checks its inputs as Captum does."""

    technique_type = Occlusion
    backend = "asserting"

    def compute(self, run: Run[Any]) -> Maps:
        assert run.inputs.shape[1] == 4, "four channels are wanted"
        run.scores(run.forward(run.inputs))
        return {"input": run.inputs.tensor[:, :1]}


def mistakes(cls: type[Attributor[Any]]) -> dict[str, Callable[[], object]]:
    """Each wrong in one thing, where the technique has that thing."""
    technique = TECHNIQUES[cls.technique_type.name]
    good, target = given(technique, noise(2, 3, 17, 23))

    def asked(
        asked_of: Any = CNN, inputs: Any = good, target: Any = target, as_: Any = technique, **how: Any
    ) -> Callable[[], object]:
        return lambda: cls(asked_of, as_, Execution(**how)).attribute(inputs, target)

    found = {
        "no module": asked("a model"),
        "another technique": asked(as_="grad_cam"),
        "batch size": asked(batch_size=0),
        "a target": asked(target=9 if technique.needs_target else 0),
    }
    if technique.needs_target:
        for wrong in (-1, True, 1.0, "cat", [1, 2, 3], [[1], [2, 3]]):
            found[f"target {wrong!r}"] = asked(target=wrong)
        found["no such item"] = asked(target=ClassScore(1, output="logits"))
    if technique.needs_inputs:
        shown = noise(2, 3, 17, 23)
        wrong_inputs = {
            "None": None,
            "numpy": shown.numpy(),
            "one image": shown[0],
            "empty": shown[:0],
            "integers": shown.int(),
            "double": shown.double(),
            "NaN": NAN,
            "two channels": shown[:, :2],
        }
        found |= {f"inputs: {case}": asked(inputs=inputs) for case, inputs in wrong_inputs.items()}
    else:
        found["inputs where none are taken"] = asked(inputs=noise(1, 3, 17, 23))
    if isinstance(technique, Occlusion):
        found["window > image"] = asked(as_=replace(technique, window=18))
        found["stride > window"] = lambda: replace(technique, stride=10)
        found["stride 0"] = lambda: replace(technique, stride=0)
        found["baseline"] = asked(as_=replace(technique, baseline=(0.0, 1.0)))
        return found
    if technique.name not in OF_LAYERS:
        return found
    for model, layer in (
        (CNN, "bodi"),
        (CNN, "body#7"),
        (CNN, "body["),
        (REUSED, "body.first"),
        (TUPLE, "body.pair"),
        (TUPLE, "body.idle"),
    ):
        named: Any = {"layers": (layer,)} if hasattr(technique, "layers") else {"layer": layer}
        found[f"layer {layer}"] = asked(model, as_=replace(technique, **named))
    if isinstance(technique, FilterVisualization):
        found["channel"] = asked(as_=replace(technique, channels=(8,)))
    if isinstance(technique, CAM):
        found["a grid that does not fit"] = asked(as_=replace(technique, tokens=(0, 3, 4)))
    return found


def told(act: Callable[[], object]) -> list[str]:
    """Class and text of what is raised; nothing where nothing is."""
    try:
        act()
    except Exception as error:
        return [f"{type(error).__module__}.{type(error).__name__}", str(error)]
    return []


def refusals() -> dict[str, list[str]]:
    """``technique.backend: mistake`` → class and text of the error; last an attributor that relies on ``assert``."""
    found = {
        f"{'.'.join(pair)}: {mistake}": told(act)
        for pair in PAIRS
        for mistake, act in mistakes(registry.get(*pair)).items()
    }
    found[PLANTED] = told(lambda: Asserting(CNN, Occlusion(window=9, stride=8)).attribute(noise(2, 3, 17, 23), 1))
    return found


if __name__ == "__main__":
    torch.set_num_threads(1)
    print(json.dumps({"assertions": __debug__, "refusals": refusals()}))

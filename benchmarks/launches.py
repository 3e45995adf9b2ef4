"""``python -m benchmarks.launches``: kernels that a call launches on a device, and how often the host waits for it.

Counted on the simulated device of the tests, where no noise can move them. `benchmarks.report` makes a table of the
file that is written.
"""

import argparse
import json
import platform
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache, partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import captum.attr
import torch
import torchvision
from torch import Tensor, nn
from torch.nn import functional as F

from attribution import (
    Activations,
    Execution,
    FilterVisualization,
    GradCAM,
    IntegratedGradients,
    LayerCAM,
    Occlusion,
    Saliency,
    Technique,
    explain,
)
from tests.simulated_device.counted import counted
from tests.simulated_device.device import load

COMMAND = "uv run python -m benchmarks.launches"
RESULTS = Path("benchmarks/results/launches.json")
LAYERS = ("layer2", "layer3", "layer4")
BACKENDS = ("hooks", "captum")
ROWS = 8
"""Points of a path that go through the network together."""

DEFAULT = Execution()

_KEY = "launches and waits"


@dataclass(frozen=True)
class Count:
    """What one warm call asked of a device.

    Attributes:
        question: What was asked.
        who: A backend, or ``"captum.attr"`` for Captum's own functions called by hand.
        launches: Kernels; views, allocations and copies from and to the host are none.
        waits: Times the host waited for the device.
    """

    question: str
    who: str
    launches: int
    waits: int


@dataclass(frozen=True, eq=False)
class Question:
    """One question to ResNet-18, in our words and by hand in Captum's.

    Attributes:
        name: As the table says it.
        technique: In our words; ``None``: the network itself.
        images: How many.
        pixels: Height and width.
        target: Classes.
        by_hand: (model, images) → what Captum's functions give, without our checks; ``None``: Captum has none.
        execution: How.
        backends: Who is asked.
    """

    name: str
    technique: Technique | None
    images: int = 1
    pixels: int = 224
    target: Any = None
    by_hand: Callable[[nn.Module, Tensor], object] | None = None
    execution: Execution = DEFAULT
    backends: tuple[str, ...] = BACKENDS


def _cams(model: nn.Module, x: Tensor, names: Sequence[str], targets: Sequence[int]) -> list[Tensor]:
    """One call for each layer and target, as Captum wants it, with the upsampling of Grad-CAM."""
    return [
        F.interpolate(
            captum.attr.LayerGradCam(model, model.get_submodule(name)).attribute(x, target=target).relu(),
            size=x.shape[2:],
            mode="bilinear",
        )
        for name in names
        for target in targets
    ]


def _integrated(chunks: int, *, rows: int | None = ROWS) -> Question:
    """Integrated gradients, eight points a chunk, or all at once."""
    steps = ROWS * chunks
    return Question(
        f"integrated_gradients, {steps} points, {rows or 'all'} a pass, 64 px",
        IntegratedGradients(steps=steps),
        pixels=64,
        target=3,
        by_hand=lambda model, x: captum.attr.IntegratedGradients(model).attribute(
            x, target=3, n_steps=steps, internal_batch_size=rows
        ),
        execution=Execution(batch_size=rows),
    )


def _covered(model: nn.Module, x: Tensor) -> Tensor:
    occlusion: Tensor = captum.attr.Occlusion(model).attribute(
        x, (3, 40, 40), strides=(3, 20, 20), target=3, perturbations_per_eval=16
    )
    return occlusion


def _filters(steps: int, **fields: Any) -> FilterVisualization:
    return FilterVisualization(layer="layer2", channels=(0, 5), steps=steps, size=96, **fields)


QUESTIONS = (
    Question("forward, without graph", None),
    Question(
        "activations, layer2",
        Activations(layers=("layer2",)),
        by_hand=lambda model, x: captum.attr.LayerActivation(model, model.get_submodule("layer2")).attribute(x),
    ),
    Question(
        "grad_cam, layer4, 1 target",
        GradCAM(layers=("layer4",)),
        target=3,
        by_hand=lambda model, x: _cams(model, x, ["layer4"], [3]),
    ),
    Question(
        "grad_cam, 3 layers × 3 targets, 3 images",
        GradCAM(layers=LAYERS),
        images=3,
        target=[[1, 2, 3]] * 3,
        by_hand=lambda model, x: _cams(model, x, LAYERS, [1, 2, 3]),
    ),
    Question(
        "grad_cam, layer2, 64 targets, 64 px",
        GradCAM(layers=("layer2",)),
        pixels=64,
        target=[[*range(64)]],
        by_hand=lambda model, x: _cams(model, x, ["layer2"], range(64)),
    ),
    Question("layer_cam, layer4, 1 target", LayerCAM(layers=("layer4",)), target=3),
    Question(
        "saliency, 1 target",
        Saliency(),
        target=3,
        by_hand=lambda model, x: captum.attr.Saliency(model).attribute(x.detach().requires_grad_(), target=3),
    ),
    *(_integrated(chunks) for chunks in (1, 4)),
    _integrated(4, rows=None),
    Question("occlusion, 40/20", Occlusion(), target=3, by_hand=_covered),
    Question(
        "occlusion, 40/20, incremental='always'",
        Occlusion(),
        target=3,
        execution=Execution(incremental="always"),
        backends=("hooks",),
    ),
    Question("filters, 2 at once, 1 step, 96 px", _filters(1)),
    Question("filters, 2 at once, 9 steps, 96 px", _filters(9)),
    Question("filters, 2 of a neuron, 1 step, 96 px", _filters(1, neuron="center")),
)


def counts(device: str, questions: Sequence[Question] = QUESTIONS) -> Iterator[Count]:
    """Count warm calls on a simulated device, question by question.

    What a call does once, and not again for the same question, is not counted. Captum keeps nothing between calls, and
    our backend by Captum nothing that the first target does not ask for already.
    """
    model = _model(device)
    source = torch.Generator().manual_seed(0)
    for question in questions:
        x = torch.randn(question.images, 3, question.pixels, question.pixels, generator=source).to(device)
        warm = _calls(question, model, x) | {"captum.attr": lambda: None}
        if isinstance(question.target, list):
            warm |= {"captum": _calls(_of_first_targets(question), model, x)["captum"]}
        for who, call in _calls(question, model, x).items():
            warm[who]()
            with counted() as seen:
                call()
            yield Count(question.name, who, seen.launches, seen.waits)


def _of_first_targets(question: Question) -> Question:
    return replace(question, target=[of_image[:1] for of_image in question.target])


@cache
def _model(device: str) -> nn.Module:
    """Random weights count as trained ones do. Positive ones of the head leave no map zero, which would be told."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = torchvision.models.resnet18(weights=None).eval()
    with torch.no_grad():
        model.fc.weight.abs_()
    return model.to(device)  # type: ignore[no-any-return]


def _calls(question: Question, model: nn.Module, x: Tensor) -> dict[str, Callable[[], object]]:
    technique, calls = question.technique, dict[str, Callable[[], object]]()
    if technique is None:
        return {"the network": lambda: _alone(model, x)}
    shown = x if technique.needs_inputs else None
    for backend in question.backends:
        ask = partial(explain, target=question.target, backend=backend, execution=question.execution)
        calls[backend] = partial(ask, model, shown, technique)
    if (by_hand := question.by_hand) is not None:
        calls["captum.attr"] = lambda: by_hand(model, x)
    return calls


def _alone(model: nn.Module, x: Tensor) -> None:
    with torch.no_grad():
        model(x)


def main(arguments: Sequence[str] | None = None) -> int:
    """Count, print and write."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.launches", description=__doc__)
    parser.add_argument("--out", type=Path, default=RESULTS, help=f"default: {RESULTS}")
    options = parser.parse_args(arguments)
    load()
    torch.set_num_threads(1)
    found = []
    for count in counts("sim:0"):
        print(f"{count.question} · {count.who}: {count.launches} launches, {count.waits} waits", flush=True)
        found.append(asdict(count))
    versions = {name: version(name) for name in ("torch", "captum")} | {"python": platform.python_version()}
    options.out.write_text(json.dumps({"versions": versions, _KEY: found}, indent=1, ensure_ascii=False) + "\n")
    return 0


def read(path: Path) -> tuple[dict[str, str], list[Count]] | None:
    """The versions and the counts in a file; ``None``: it is of another kind."""
    if path.suffix == ".jsonl":
        return None
    content = json.loads(path.read_text())
    if not isinstance(content, dict) or _KEY not in content:
        return None
    return content["versions"], [Count(**count) for count in content[_KEY]]


def section(versions: dict[str, str], found: Sequence[Count]) -> str:
    """The part of the page: a row for each question, a column for each who answers it."""
    columns = list(dict.fromkeys(count.who for count in found if count.who != "the network"))
    lines = [
        "## Launches and waits on a device",
        "",
        f"Counted on the simulated device by `{COMMAND}`, which needs no GPU: kernels that one warm call launches / "
        "times the host waits for the device. ResNet-18, 224 px, one image, unless said. `captum.attr` is Captum "
        "called by hand: no checks, no private copy of model and images, a call for each layer and target. "
        + " · ".join(f"{key} {value}" for key, value in versions.items()),
        "",
        "| question | " + " | ".join(columns) + " |",
        "|" + " --- |" * (len(columns) + 1),
    ]
    for name in dict.fromkeys(count.question for count in found):
        cells = {count.who: f"{count.launches:,} / {count.waits}" for count in found if count.question == name}
        row = [cells.get("the network", cells.get(who, "")) for who in columns]
        lines.append(f"| {name} | " + " | ".join(row) + " |")
    return "\n".join([*lines, ""])


if __name__ == "__main__":
    raise SystemExit(main())

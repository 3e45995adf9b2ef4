"""Writes ``docs/agreement.md``: ``uv run python docs/make_agreement.py``.

Both backends answer four techniques on one net of every torchvision family, in float32 and in float64. Weights are
random but healthy (``benchmarks/families.py``), the image is seeded noise; nothing is downloaded.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from importlib.metadata import version
from itertools import chain
from pathlib import Path

import torch
from torch import Tensor, nn

from attribution import (
    Activations,
    Attribution,
    ClassScore,
    FilterVisualization,
    GradCAM,
    Occlusion,
    Technique,
    explain,
)
from attribution.agreement import Agreement, all_hold
from attribution.comparison.rounding import Judgement, Verdict, judge_all, shaken, shaken_model
from attribution.layers import activation_layers
from attribution.techniques.filter_visualization import LOGITS
from benchmarks.families import NETS, family

PAGE = Path(__file__).parent / "agreement.md"
REFERENCE, OTHER = "hooks", "captum"
TECHNIQUES = ("activations", "grad_cam", "occlusion", "filter_visualization")
TARGETS = [[3, 999]]
BASELINE = (1.5, -1.0, 0.5)
SIZES = {"alexnet": (80, 96), "googlenet": (96, 112), "inception_v3": (128, 144), "vit_b_16": (224, 224)}
SIZE = (64, 80)

TOKENS: dict[str, tuple[Technique, ...]] = {
    "swin_t": (
        Activations(layers=("features.1", "features.3", "features.5", "features.7")),
        GradCAM(layers=("features.7",), tokens="channels_last"),
    ),
    "vit_b_16": (
        Activations(layers=("conv_proj", "encoder.layers.encoder_layer_5", "encoder.layers.encoder_layer_11")),
        GradCAM(layers=("encoder.layers.encoder_layer_11.ln_1",), tokens=(1, 14, 14)),
    ),
}
"""Nets without a grid at their end have no default layers."""

SEEDS = (1, 2)

Ask = Callable[[str, torch.dtype | int], Attribution]
"""Backend, and dtype or the seed of a shaken model → answer."""

Shown = tuple[nn.Module, Tensor]


@dataclass(frozen=True)
class Row:
    """One technique on one net.

    Attributes:
        net: torchvision's name.
        technique: Its name.
        layer: That of the pair that uses up most of its budget.
        single: Backends against each other in float32.
        double: The same in float64.
        errors: float32 against the oracle, by backend; the oracle is the hooks backend in float64.
        beside: hooks in float32 against the oracle, by what captum in float32 is off.
    """

    net: str
    technique: str
    layer: str
    single: list[Agreement]
    double: list[Agreement]
    errors: dict[str, list[Judgement]]
    beside: list[Judgement]

    @property
    def counted(self) -> int:
        """How many pairs are well above rounding: a hundred times as large as the float32 error of either backend."""
        both = zip(*self.errors.values(), strict=True)
        return sum(all(judged.scale >= 100 * judged.error for judged in pair) for pair in both)

    @property
    def pairs(self) -> int:
        """Layer × image × target, or filters."""
        return len(self.errors[REFERENCE])

    @property
    def verdict(self) -> Verdict:
        """``"rounding"``: both backends are within the budget."""
        near = all(judged.verdict == "rounding" for judged in chain(*self.errors.values()))
        return "rounding" if near else "bug"


def image(name: str) -> Tensor:
    """Noise of odd shape, as the nets' batch norms have seen; (1, 3, H, W)."""
    return torch.randn((1, 3, *SIZES.get(name, SIZE)), generator=torch.Generator().manual_seed(0))


def questions(name: str, model: nn.Module) -> tuple[Technique, ...]:
    """The four techniques: default layers, nine windows of which the last are cut, two filters of a middle layer.

    The filters' random transforms are off: they are the core's, and their float32 positions would drown the rest.
    """
    height, width = size = SIZES.get(name, SIZE)
    if name in TOKENS:
        first, layer = TOKENS[name], LOGITS
    else:
        layers = activation_layers(model, image(name))
        first, layer = (Activations(layers=layers), GradCAM()), layers[len(layers) // 2]
    window, stride = (height // 3 + 3, width // 3 + 3), (height // 3, width // 3)
    return (
        *first,
        Occlusion(window=window, stride=stride, baseline=BASELINE),
        FilterVisualization(layer=layer, channels=(0, 1), steps=2, size=size, jitter=0, scale=0.0, rotate=0.0),
    )


def rows(name: str) -> Iterator[Row]:
    """The four rows of one net."""
    models = shown(name)
    for technique in questions(name, models[torch.float32][0]):
        yield row(name, asker(models, technique))


def shown(name: str) -> dict[torch.dtype | int, Shown]:
    """The net and its image in float32, in float64, and shaken."""
    model, inputs = family(name), image(name)
    models: dict[torch.dtype | int, Shown] = {
        torch.float32: (model, inputs),
        torch.float64: (deepcopy(model).double(), inputs.double()),
    }
    for seed in SEEDS:
        generator = torch.Generator().manual_seed(seed)
        models[seed] = (
            shaken_model(model, torch.float32, seed=seed),
            shaken(inputs, torch.float32, generator),
        )
    return models


def asker(models: Mapping[torch.dtype | int, Shown], technique: Technique) -> Ask:
    """One question, to be asked of any backend."""

    def ask(backend: str, key: torch.dtype | int) -> Attribution:
        model, inputs = models[key]
        target = ClassScore(TARGETS, of="logit") if technique.needs_target else None
        return explain(model, inputs if technique.needs_inputs else None, technique, backend=backend, target=target)

    return ask


def row(name: str, ask: Ask) -> Row:
    """Ask both backends in both dtypes, and hold the answers against each other and against float64."""
    single, double = ({by: ask(by, dtype) for by in (REFERENCE, OTHER)} for dtype in (torch.float32, torch.float64))
    oracle = double[REFERENCE]
    twins = [ask(REFERENCE, seed) for seed in SEEDS]
    errors = {by: judge_all(result, oracle, twins) for by, result in single.items()}
    technique = oracle.technique
    furthest = worst_error(errors[REFERENCE]).name.partition(" · ")[0]
    return Row(
        name,
        technique.name,
        technique.layer if isinstance(technique, FilterVisualization) else furthest,
        technique.agreement(single[REFERENCE], single[OTHER]),
        technique.agreement(double[REFERENCE], double[OTHER]),
        errors,
        judge_all(single[REFERENCE], oracle, plain=single[OTHER]),
    )


def worst_pair(pairs: Sequence[Agreement]) -> Agreement:
    """The pair that uses up most of what is allowed."""
    return max(pairs, key=lambda pair: pair.difference / pair.tolerance if pair.tolerance else 0.0)


def worst_error(judgements: Sequence[Judgement]) -> Judgement:
    """The judgement that uses up most of its budget."""
    return max(judgements, key=lambda found: found.error / found.allowed if found.allowed else 0.0)


HEAD = """# Agreement

This page is written by `uv run python docs/make_agreement.py`; nothing in it is typed by hand.

Both backends answer four techniques on one net of every torchvision family: random weights whose signal neither
dies nor explodes, an image of noise of {size} pixels ({others}), targets {targets}. What must hold is the
[rule of agreement](conventions.md#agreement-tolerance) and the
[error budget](conventions.md#agreement-rounding-or-bug), measured by {seeds} shaken float64 models.

{found}

| column | says |
|---|---|
| layer | of the pair that uses up most of its budget |
| pairs | layer × image × target, or filters; those that are at least a hundred times their float32 error, of all |
| difference | of the backends in float32, as a part of the map's maximum, and what is allowed; of the worst pair |
| in float64 | the same with the model in float64; occlusion is allowed float32's tolerance, in which Captum folds |
| hooks, captum | float32 error of each against the hooks backend in float64, as a part of the map's maximum |
| budget | what rounding may amount to, on the same scale |
| verdict | "rounding": both backends are within the budget for every pair; else "bug" |
"""
COLUMNS = ("net", "layer", "pairs", "difference", "in float64", "hooks", "captum", "budget", "verdict")


def page(found: Sequence[Row]) -> str:
    """The whole page: what was done, and a table per technique."""
    others = ", ".join(f"{name} {height} × {width}" for name, (height, width) in SIZES.items())
    targets = " and ".join(map(str, TARGETS[0]))
    about = {"size": f"{SIZE[0]} × {SIZE[1]}", "others": others, "targets": targets, "seeds": len(SEEDS)}
    parts = [HEAD.format(**about, found=summary(found))]
    for technique in TECHNIQUES:
        part = [row for row in found if row.technique == technique]
        used = max(judged.error / judged.allowed for row in part for judged in chain(*row.errors.values()))
        twice = [judged.verdict == "rounding" for row in part for judged in row.beside]
        parts.append(
            f"\n## {technique}\n\nAt most {used:.0%} of the budget is used. In {sum(twice)} of {len(twice)} pairs "
            f"hooks is at most twice as far off as captum.\n\n{line(COLUMNS)}{line('---' for _ in COLUMNS)}"
        )
        parts += [line(cells(row)) for row in part]
    return "".join(parts)


def summary(found: Sequence[Row]) -> str:
    """What the tables come to, and on what it was run."""
    agree = sum(all_hold(row.single) and all_hold(row.double) for row in found)
    rounding = sum(row.verdict == "rounding" for row in found)
    counted, pairs = sum(row.counted for row in found), sum(row.pairs for row in found)
    sharp = sum(
        all(judged.sharp for judged in pair) for row in found for pair in zip(*row.errors.values(), strict=True)
    )
    versions = " · ".join(f"{name} {version(name)}" for name in ("torch", "torchvision", "captum"))
    return (
        f"{len(found)} rows: the backends agree in {agree}, and what is left is rounding in {rounding}. "
        f"Of {pairs} pairs {counted} are well above rounding.\n"
        f"The budget of {sharp} is below 1 % of the map; that of the others is wider, "
        f"as a shaken weight can move a rectifier across its kink.\n\nCPU, one thread · {versions}"
    )


def cells(row: Row) -> tuple[str, ...]:
    """One row of the table."""
    errors = {by: worst_error(judgements) for by, judgements in row.errors.items()}
    return (
        row.net,
        f"`{row.layer}`",
        f"{row.counted} of {row.pairs}",
        difference(row.single),
        difference(row.double),
        *(f"{errors[by].scaled:.1e}" for by in (REFERENCE, OTHER)),
        f"{errors[REFERENCE].allowed / errors[REFERENCE].scale:.1e}",
        row.verdict,
    )


def difference(pairs: Sequence[Agreement]) -> str:
    """The worst pair's difference, what is allowed, and whether any pair does not hold."""
    worst = worst_pair(pairs)
    told = f"{worst.scaled:.1e} of {worst.tolerance / worst.scale:.1e}"
    return told if all_hold(pairs) else f"{told}, DIFFERS"


def line(texts: Iterable[str]) -> str:
    """A line of a table."""
    return f"| {' | '.join(texts)} |\n"


def main() -> None:
    """Write the page."""
    torch.set_num_threads(1)
    found: list[Row] = []
    for name in NETS:
        found += rows(name)
        print(f"{name}: {', '.join(f'{row.technique} {row.verdict}' for row in found if row.net == name)}", flush=True)
    PAGE.write_text(page(found), encoding="utf-8")


if __name__ == "__main__":
    main()

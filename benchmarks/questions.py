"""What is asked of models: a new question is one more entry of `QUESTIONS`."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Literal

from attribution import (
    RISE,
    AblationCAM,
    Activations,
    EigenCAM,
    FeatureAblation,
    FilterVisualization,
    GradCAM,
    GradientSHAP,
    GuidedBackprop,
    HiResCAM,
    IntegratedGradients,
    LayerCAM,
    Occlusion,
    ScoreCAM,
    SmoothGrad,
    Technique,
    XGradCAM,
)
from attribution.scores.classes import Of
from attribution.techniques.cam.family import CAM
from benchmarks.models import FAMILIES, SMALL, SUBJECTS, Subject

Size = Literal["smoke", "full", "families", "device"]
ALL_CLASSES = 1000
FOUR_CAMS = "grad_cam, layer_cam, hires_cam and xgrad_cam at once"
STATISTICS = "smooth_grad, mean, square and variance at once"
LINES = {1: "integrated_gradients, 1 target", 5: "integrated_gradients, 5 targets"}
ON_ONE_MODEL = (FOUR_CAMS, STATISTICS, *LINES.values())
FAMILY_OCCLUSION = "occlusion, 224 px, window 56, stride 28"
SLOW_IN_BATCHES = ("VGG16",)
"""Models that a CPU is asked about one image at a time."""


@dataclass(frozen=True)
class Question:
    """One question, asked of any model.

    Attributes:
        label: As rows print it.
        technique: The question for a model.
        targets: How many classes, for techniques that need a target.
        pixels: Image side.
        stand_in: A question of equal cost per window that is timed instead where a backend's cost is the same for
            every window; its time is scaled by the number of windows.
        timed_targets: Likewise for targets that a backend computes one by one.
        first_class: Of the targets; random weights leave some classes dead.
        whole: The models for which agreement is checked on the whole question rather than on the stand-in.
        batches: Images, by size of the run.
        models: Which subjects, by size of the run.
        dtypes: On an accelerator; the CPU runs float32.
        of: What of a class is explained; ``None``: the technique's own default.
        beside: Techniques that are asked in the same call, by name; the row stands for all of them.
    """

    label: str
    technique: Callable[[Subject], Technique]
    targets: int = 1
    pixels: int = 224
    stand_in: Callable[[Subject], Technique] | None = None
    timed_targets: int | None = None
    first_class: int = 7
    whole: tuple[str, ...] = tuple(SUBJECTS)
    batches: dict[Size, tuple[int, ...]] = field(default_factory=lambda: {"smoke": (1,), "full": (1,)})
    models: dict[Size, tuple[str, ...]] = field(default_factory=lambda: {"smoke": (), "full": tuple(SUBJECTS)})
    dtypes: tuple[str, ...] = ("float32", "bfloat16")
    of: Of | None = None
    beside: Callable[[Subject], dict[str, Technique]] | None = None


def _occlusion(
    window: int,
    stride: int,
    pixels: int,
    *,
    smoke: tuple[str, ...] = (),
    full: tuple[str, ...] = tuple(SUBJECTS),
    whole: tuple[str, ...] = tuple(SUBJECTS),
) -> Question:
    """One forward per window costs the same wherever the window lies, so 64 large ones stand in for many small ones."""
    return Question(
        f"occlusion, {pixels} px, window {window}, stride {stride}",
        lambda _: Occlusion(window=window, stride=stride),
        pixels=pixels,
        stand_in=lambda _: Occlusion(window=pixels // 8, stride=pixels // 8),
        of="logit",
        whole=whole,
        models={"smoke": smoke, "full": full},
    )


def _filters(label: str, count: int, steps: int, size: int = 128) -> Question:
    return Question(
        label,
        lambda subject: FilterVisualization.notebook(
            layer=subject.middle, channels=tuple(range(min(count, subject.middle_channels))), steps=steps, size=size
        ),
        models={"smoke": ("SqueezeNet 1.1",) if count < 64 else (), "full": tuple(SUBJECTS)},
    )


def _cam(kind: type[CAM]) -> Question:
    """What one more CAM costs, on the models that its peers are asked about."""
    return Question(
        f"{kind.name}, 1 target",
        lambda subject: kind(layers=(subject.late,)),
        models={"smoke": ("SqueezeNet 1.1",), "full": ("ResNet-18", "SqueezeNet 1.1")},
    )


def _eigen(layer: str, *, smoke: tuple[str, ...] = ()) -> Question:
    return Question(
        f"eigen_cam, {layer}",
        lambda _: EigenCAM(layers=(layer,)),
        models={"smoke": smoke, "full": ("ResNet-18",)},
    )


def _forwards(
    label: str, technique: Callable[[Subject], Technique], *full: str, smoke: str = SMALL.name, targets: int = 1
) -> Question:
    """By forwards alone, of small images: hundreds of them for each of several calls."""
    return Question(
        label,
        technique,
        targets=targets,
        pixels=64,
        of="logit",
        whole=(*SUBJECTS, SMALL.name),
        models={"smoke": (smoke,), "full": full},
    )


def _tiled(_: Subject, *, window: int) -> Technique:
    return Occlusion(window=window, stride=window)


def _scaling() -> list[Question]:
    """How time and memory grow with each number, on one model."""
    one: dict[Size, tuple[str, ...]] = {"smoke": (), "full": ("SqueezeNet 1.1",)}
    windows = [
        Question(f"scaling, windows: {(224 // w) ** 2}", partial(_tiled, window=w), of="logit") for w in (56, 28, 14)
    ]
    targets = [
        Question(f"scaling, targets: {t}", lambda subject: GradCAM(layers=(subject.late,)), targets=t)
        for t in (1, 4, 16)
    ]
    filters = [_filters(f"scaling, filters: {k}", k, 2) for k in (1, 4, 16)]
    sides = [
        Question(f"scaling, image size: {p}", lambda subject: GradCAM(layers=(subject.late,)), pixels=p)
        for p in (112, 224, 448)
    ]
    return [replace(question, models=one) for question in (*windows, *targets, *filters, *sides)]


_ONE: dict[Size, tuple[str, ...]] = {"smoke": (), "full": ("SqueezeNet 1.1",)}


def _three_cams(subject: Subject) -> dict[str, Technique]:
    kinds = {"layer_cam": LayerCAM, "hires_cam": HiResCAM, "xgrad_cam": XGradCAM}
    return {name: kind(layers=(subject.late,)) for name, kind in kinds.items()}


def _two_statistics(_: Subject) -> dict[str, Technique]:
    return {"squared": SmoothGrad(statistic="squared"), "variance": SmoothGrad(statistic="variance")}


QUESTIONS: tuple[Question, ...] = (
    Question(
        "activations, one early layer",
        lambda subject: Activations(layers=(subject.early,)),
        batches={"smoke": (1,), "full": (1, 16)},
        models={"smoke": ("SqueezeNet 1.1", "ResNet-18"), "full": tuple(SUBJECTS)},
    ),
    Question(
        "activations, one middle layer",
        lambda subject: Activations(layers=(subject.between or subject.early,)),
        models={"smoke": (), "full": tuple(subject.name for subject in SUBJECTS.values() if subject.between)},
    ),
    Question("activations, default layers", lambda _: Activations(), batches={"smoke": (1,), "full": (1, 16)}),
    Question(
        "grad_cam, 1 target",
        lambda subject: GradCAM(layers=(subject.late,)),
        batches={"smoke": (1, 3), "full": (1, 16)},
        models={"smoke": ("SqueezeNet 1.1", "ResNet-18", "MobileNetV2"), "full": tuple(SUBJECTS)},
    ),
    Question(
        "grad_cam, 3 layers × 3 targets",
        lambda subject: GradCAM(layers=subject.three),
        targets=3,
        models={"smoke": ("SqueezeNet 1.1",), "full": tuple(SUBJECTS)},
    ),
    Question(
        "grad_cam, all classes",
        lambda subject: GradCAM(layers=(subject.late,), upsample=False),
        targets=ALL_CLASSES,
        timed_targets=8,
        whole=(),
    ),
    Question(
        FOUR_CAMS,
        lambda subject: GradCAM(layers=(subject.late,)),
        beside=_three_cams,
        models={"smoke": ("SqueezeNet 1.1",), "full": ("SqueezeNet 1.1",)},
    ),
    *(
        Question(label, lambda _: IntegratedGradients(), targets=targets, models=_ONE)
        for targets, label in LINES.items()
    ),
    Question(STATISTICS, lambda _: SmoothGrad(), beside=_two_statistics, models=_ONE),
    _cam(LayerCAM),
    _cam(HiResCAM),
    _cam(XGradCAM),
    _eigen("layer1"),
    _eigen("layer4", smoke=("ResNet-18",)),
    _occlusion(40, 20, 224, smoke=("SqueezeNet 1.1",)),
    _occlusion(16, 8, 224, whole=("ResNet-18", "MobileNetV2", "SqueezeNet 1.1")),
    _occlusion(16, 16, 448, full=("ResNet-50", "SqueezeNet 1.1"), whole=()),
    _filters("filter_visualization, 1 filter", 1, 10),
    _filters("filter_visualization, 64 filters", 64, 3, size=64),
    *_scaling(),
    _forwards(
        "ablation_cam, 64 px, 1 target",
        lambda subject: AblationCAM(layers=(subject.late,)),
        "ResNet-18",  # a closed form
        "SqueezeNet 1.1",  # tails
    ),
    _forwards(
        "score_cam, 64 px, 10 targets",
        lambda subject: ScoreCAM(layers=(subject.late,)),
        "ResNet-18",
        "SqueezeNet 1.1",
        targets=10,
    ),
    _forwards("rise, 64 px, 256 masks", lambda _: RISE(masks=256), "ResNet-18", "SqueezeNet 1.1"),
    _forwards(
        "feature_ablation, 64 px, 64 segments",
        lambda _: FeatureAblation(segments=8),
        "ResNet-18",
        "SqueezeNet 1.1",
        smoke="SqueezeNet 1.1",
    ),
    Question(
        "guided_backprop, 1 target",
        lambda _: GuidedBackprop(),
        models={"smoke": ("SqueezeNet 1.1",), "full": ("ResNet-18", "SqueezeNet 1.1")},
    ),
    Question(
        "gradient_shap, 20 samples",
        lambda _: GradientSHAP(samples=20),
        models={"smoke": (), "full": ("ResNet-18", "SqueezeNet 1.1")},
    ),
    Question(
        FAMILY_OCCLUSION,
        lambda _: Occlusion(window=56, stride=28),
        of="logit",
        whole=tuple(FAMILIES),
        first_class=3,
        models={"families": tuple(FAMILIES)},
    ),
)

"""What is asked for minutes on a rented device."""

from dataclasses import replace

from benchmarks.questions import FOUR_CAMS, QUESTIONS, STATISTICS, Question


def _on_a_device(label: str, models: tuple[str, ...], batches: tuple[int, ...], *, half: bool = False) -> Question:
    (question,) = (question for question in QUESTIONS if question.label == label)
    return replace(
        question,
        models={"device": models},
        batches={"device": batches},
        whole=models,
        stand_in=question.technique if question.stand_in else None,  # a device has the time for all windows
        dtypes=("float32", "bfloat16") if half else ("float32",),
    )


_WINDOWS = "occlusion, 224 px, window 40, stride 20"

DEVICE: tuple[Question, ...] = (
    _on_a_device("grad_cam, 1 target", ("ResNet-50",), (1, 16, 64), half=True),
    _on_a_device(_WINDOWS, ("ResNet-18",), (1, 16), half=True),
    _on_a_device(_WINDOWS, ("VGG16", "ResNet-50"), (1,)),
    _on_a_device("grad_cam, 3 layers × 3 targets", ("ResNet-50",), (1, 16)),
    _on_a_device("filter_visualization, 1 filter", ("ResNet-50",), (1,)),
    _on_a_device("activations, one early layer", ("ResNet-50",), (1, 64)),
    _on_a_device("grad_cam, all classes", ("ResNet-50",), (1,)),
    _on_a_device("filter_visualization, 64 filters", ("ResNet-50",), (1,)),
    _on_a_device(_WINDOWS, ("MobileNetV2", "SqueezeNet 1.1"), (1,)),
    _on_a_device("grad_cam, 1 target", ("SqueezeNet 1.1", "VGG16"), (1, 64)),
    _on_a_device("integrated_gradients, 1 target", ("ResNet-50",), (1,)),
    _on_a_device(STATISTICS, ("ResNet-50",), (1,)),
    _on_a_device("layer_cam, 1 target", ("ResNet-50",), (1, 16)),
    _on_a_device(FOUR_CAMS, ("ResNet-50",), (1, 16)),
    _on_a_device("guided_backprop, 1 target", ("ResNet-18",), (1, 16)),
    _on_a_device("gradient_shap, 20 samples", ("ResNet-18",), (1,)),
    _on_a_device("eigen_cam, layer4", ("ResNet-18",), (1,)),
    _on_a_device("ablation_cam, 64 px, 1 target", ("ResNet-18",), (1,)),
    _on_a_device("feature_ablation, 64 px, 64 segments", ("ResNet-18",), (1,)),
    _on_a_device("integrated_gradients, 5 targets", ("ResNet-50",), (1,)),
    _on_a_device("filter_visualization, 1 filter", ("SqueezeNet 1.1",), (1,)),
)
"""For minutes on a rented device: the questions that decide come first, so that a cut loses the least."""

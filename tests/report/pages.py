"""Reports of small models."""

from typing import Any

import torch
from torch import Tensor, nn

from attribution import Activations, FilterVisualization, GradCAM, InputXGradient, Saliency, compare, explain
from attribution.metrics import Table
from attribution.metrics.rows import SECONDS, CurveRow, Row
from attribution.report import Item, Report

LABELS = ("teapot", "espresso", "cup", "saucer", "spoon")
HOSTILE = (
    "<script>document.title='caught'</script>\"'><img src=http://example.org/x onerror=\"document.title='caught'\">"
)
TURNED = "gnp\u202e.exe\x07\ud800"


def net(channels: int = 40) -> nn.Module:
    """More channels than a page of them shows."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.Sequential(
            *[nn.Conv2d(3, channels, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(channels, 8, 3), nn.ReLU()],
            *[nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5)],
        ).eval()


MODEL = net()
CAM = GradCAM(layers=("1", "4"))


def picture(count: int = 1) -> Tensor:
    """(N, 3, 34, 46) in [0, 1], no square and no grey."""
    down, right = torch.linspace(0, 1, 34)[:, None], torch.linspace(0, 1, 46)[None]
    planes = torch.stack([down + 0 * right, right + 0 * down, 1 - (down * right)])
    return torch.stack([planes.roll(7 * k, dims=-1) for k in range(count)])


def evidence() -> Table:
    """Two techniques and a control on six photos."""
    rows = [
        Row(f"photo {k}", "class 1", name, metric, variant, value + k / 50)
        for k in range(6)
        for name, value in (("grad_cam", 0.6), ("saliency", 0.4), ("random", 0.1))
        for metric, variant in (("srg", "mean"), ("srg", "blur"))
    ]
    rows += [Row(f"photo {k}", "", name, SECONDS, "", 0.1) for k in range(6) for name in ("grad_cam", "saliency")]
    curves = [
        CurveRow(f"photo {k}", "class 1", name, "mean", part, 1 - part, 1 - part**2)
        for k in range(6)
        for name in ("grad_cam", "saliency", "random")
        for part in (0.0, 0.5, 1.0)
    ]
    return Table(rows, curves, ("grad_cam", "saliency"), {"srg": "higher"})


def answers(count: int = 1) -> dict[str, Any]:
    inputs, target = picture(count), [[1, 3]] * count
    return {
        "grad_cam": explain(MODEL, inputs, CAM, target=target),
        "saliency": explain(MODEL, inputs, Saliency(), target=target),
        "input_x_gradient": explain(MODEL, inputs, InputXGradient(), target=target),
        "activations": explain(MODEL, inputs, Activations(layers=("1", "4", "6"))),
    }


def item(**changed: Any) -> Item:
    compared = {"grad_cam": compare(MODEL, picture(), CAM, target=[[1, 3]])}
    given: dict[str, Any] = {
        "answers": answers(),
        "name": "cup.jpg",
        "image": picture(),
        "top": [("espresso", 1, 0.75), ("saucer", 3, 0.2), ("cup", 2, 0.04)],
        "comparisons": compared,
    }
    return Item(**{**given, **changed})


def everything() -> Report:
    second = item(name=HOSTILE, top=[(HOSTILE, 1, 0.6), (TURNED, 2, 0.1)], comparisons={}, notes=[HOSTILE])
    return Report(
        items=[item(), second, Item({"saliency": answers()["saliency"]}, name=TURNED)],
        title="Cups & saucers",
        labels=LABELS,
        filters={"filters": explain(MODEL, None, FilterVisualization(layer="3", channels=(0, 5), steps=1, size=17))},
        evidence=evidence(),
        facts={"weights": "SHA-256 0123456789abcdef", HOSTILE: HOSTILE},
        command="attribution report cup.jpg --target espresso",
        left_out="3 of 9 items are shown.",
    )

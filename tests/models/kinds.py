"""Kinds of models that a user may have, each with the plain model whose answer it must give."""

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.ao import quantization
from torch.nn.utils import parametrizations
from torch.utils.checkpoint import checkpoint

from attribution import (
    Attribution,
    ClassScore,
    FilterVisualization,
    Technique,
)
from attribution.agreement import all_hold, table
from attribution.attributor import Attributor
from attribution.registry import get
from attribution.running.execution import Execution
from attribution.techniques.cam.family import CAM
from attribution.testing import small_cnn, small_residual
from tests import cases
from tests.cases import OF_LAYERS, given
from tests.cases import PAIRS as PAIRS
from tests.conftest import noise

Build = Callable[[], nn.Module]

TECHNIQUES: dict[str, Technique] = {
    **cases.TECHNIQUES,
    **{
        name: replace(each, layers=("stem", "body"), relu=False)
        for name, each in cases.TECHNIQUES.items()
        if isinstance(each, CAM)
    },
    "filter_visualization": FilterVisualization(
        layer="body", channels=(0, 2), parametrization="pixel", steps=2, size=(17, 23), jitter=1, in_channels=3
    ),
}
GRADIENTS = [pair for pair in PAIRS if TECHNIQUES[pair[0]].takes_gradients]
OTHERS = [pair for pair in PAIRS if pair not in GRADIENTS]
WHOLE = [pair for pair in PAIRS if pair[0] not in OF_LAYERS]
"""Those that need no layer, only what the model gives."""
INPUTS = noise(2, 3, 17, 23)
CLASS_1 = ClassScore(1, of="logit")


def ask(
    pair: tuple[str, str],
    model: nn.Module,
    inputs: Tensor = INPUTS,
    *,
    technique: Technique | None = None,
    execution: Execution = Execution(),
    score: ClassScore = CLASS_1,
) -> Attribution:
    """One answer about class 1, by its logit where nothing else is said."""
    question = technique or TECHNIQUES[pair[0]]
    attributor: Attributor[Any] = get(*pair)(model, question, execution)
    return attributor.attribute(*given(question, inputs, score))


@cache
def expected(plain: Build, pair: tuple[str, str]) -> Attribution:
    return ask(pair, plain())


def difference(found: Attribution, wanted: Attribution) -> str:
    """Empty where two answers agree."""
    agreements = found.technique.agreement(found, wanted)
    return "" if all_hold(agreements) else table(agreements)


class Parts(nn.Module):
    """The children of a small model, by their names."""

    head: nn.Module

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        for name, child in net.named_children():
            setattr(self, name, child)

    def trunk(self, x: Tensor) -> Tensor:
        for name in ("stem", "stem_relu", "pool", "body", "body_relu"):
            x = self.get_submodule(name)(x)
        return x

    def forward(self, x: Tensor) -> Any:
        return self.head(self.trunk(x))


class Checkpointed(nn.Module):
    """A layer that runs again in the backward pass."""

    def __init__(self, layer: nn.Module, *, reentrant: bool) -> None:
        super().__init__()
        self.layer, self.reentrant = layer, reentrant

    def forward(self, x: Tensor) -> Any:
        return checkpoint(self.layer, x, use_reentrant=self.reentrant)


class HalfHead(Parts):
    """The head computes in bfloat16."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__(net)
        self.head.to(torch.bfloat16)

    def forward(self, x: Tensor) -> Any:
        return self.head(self.trunk(x).bfloat16()).float()


class Merging(nn.Linear):
    """Adds a correction to its weights when it is told to evaluate, as low-rank adapters do."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__(linear.in_features, linear.out_features)
        self.load_state_dict(linear.state_dict())
        self.correction = nn.Parameter(torch.full_like(self.weight, 0.5))
        self.merged = False

    def train(self, mode: bool = True) -> "Merging":
        if not mode and not self.merged:
            self.weight.data += self.correction.data
            self.merged = True
        return super().train(mode)

    def forward(self, x: Tensor) -> Tensor:
        weight = self.weight if self.merged else self.weight + self.correction
        return nn.functional.linear(x, weight, self.bias)


def changed(build: Build, name: str, change: Callable[[Any], nn.Module]) -> nn.Module:
    """A model with one of its layers replaced."""
    model = build()
    parent, _, child = name.rpartition(".")
    owner = model.get_submodule(parent)
    setattr(owner, child, change(getattr(owner, child)))
    return model


def seeded(norm: Callable[[nn.Module], nn.Module]) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return changed(small_residual, "body.conv", norm)


def compiled(*, run: bool, how: str = "whole") -> nn.Module:
    """By ``torch.compile`` or ``Module.compile``, whole or one layer, run once or never; nothing needs a compiler."""
    model: Any = small_residual()
    if how == "whole":
        model = torch.compile(model, backend="eager")
    elif how == "layer":
        model.body = torch.compile(model.body, backend="eager")
    else:
        (model if how == "method" else model.body).compile(backend="eager")
    if run:
        with torch.no_grad():
            model(INPUTS)
    return model  # type: ignore[no-any-return]


def old_weight_norm() -> nn.Module:
    with quiet():
        return changed(small_residual, "body.conv", nn.utils.weight_norm)


def inference_made(build: Build) -> nn.Module:
    with torch.inference_mode():
        return build()


def exported(batch: Any = torch.export.Dim.DYNAMIC) -> nn.Module:
    return torch.export.export(small_cnn(), (noise(3, 3, 17, 23),), dynamic_shapes=({0: batch},)).module()


def scripted(how: str) -> nn.Module:
    with quiet():
        if how == "traced":
            return torch.jit.trace(small_cnn(), INPUTS)  # type: ignore[no-any-return]
        if how == "a part":
            return changed(small_cnn, "head", torch.jit.script)
        model: nn.Module = torch.jit.script(small_cnn())
        return torch.jit.freeze(model) if how == "frozen" else model


def dynamically_quantised() -> nn.Module:
    with quiet():
        return quantization.quantize_dynamic(small_cnn(), {nn.Linear}, dtype=torch.qint8)  # type: ignore[no-any-return]


class Stubs(Parts):
    """Floats in and out, integers between."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__(net)
        self.enter, self.leave = quantization.QuantStub(), quantization.DeQuantStub()

    def forward(self, x: Tensor) -> Any:
        return self.leave(self.head(self.trunk(self.enter(x))))


def statically_quantised() -> nn.Module:
    with quiet():
        model = Stubs(small_cnn()).eval()
        model.qconfig = quantization.get_default_qconfig(torch.backends.quantized.engine)
        quantization.prepare(model, inplace=True)
        with torch.no_grad():
            model(INPUTS)
        return quantization.convert(model, inplace=True)  # type: ignore[no-any-return]


@contextmanager
def quiet() -> Iterator[None]:
    """Torch calls the tools that make old kinds of models deprecated."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@contextmanager
def process_group(folder: Path) -> Iterator[None]:
    """One process that is a whole group."""
    distributed = torch.distributed
    distributed.init_process_group("gloo", init_method=(folder / "store").as_uri(), rank=0, world_size=1)
    try:
        yield
    finally:
        distributed.destroy_process_group()


KINDS: dict[str, tuple[Build, Build]] = {
    "train mode": (lambda: small_residual().train(), small_residual),
    "frozen": (lambda: small_residual().requires_grad_(False), small_residual),
    "checkpointed": (
        lambda: changed(small_residual, "body", partial(Checkpointed, reentrant=False)),
        small_residual,
    ),
    **{
        f"{how} compiled, {'run' if run else 'not run'}": (partial(compiled, run=run, how=how), small_residual)
        for how in ("whole", "layer", "method", "layer's method")
        for run in (False, True)
    },
    "data parallel": (lambda: nn.DataParallel(small_residual()), small_residual),
    "data parallel, compiled": (
        lambda: torch.compile(nn.DataParallel(small_residual()), backend="eager"),  # type: ignore[dict-item, return-value]
        small_residual,
    ),
    "channels last": (lambda: small_residual().to(memory_format=torch.channels_last), small_residual),
    "weight norm": (lambda: seeded(parametrizations.weight_norm), small_residual),
    "old weight norm": (old_weight_norm, small_residual),
    "traced by fx": (lambda: torch.fx.symbolic_trace(small_cnn()), small_cnn),
    "half head": (lambda: HalfHead(small_residual()), lambda: HalfHead(small_residual())),
    "merges weights in eval": (
        lambda: changed(small_residual, "head.2", Merging).train(),
        lambda: changed(small_residual, "head.2", Merging).eval(),
    ),
}
"""Kinds that every attributor explains: how to build one, and its plain twin."""

HOOKLESS: dict[str, tuple[Build, Build, str]] = {
    **{how: (partial(scripted, how), small_cnn, "TorchScript") for how in ("scripted", "traced", "frozen", "a part")},
    "exported": (exported, small_cnn, "an exported graph"),
}
"""Kinds without layers to hook: techniques that need no layer answer, the others say why they cannot."""

"""Every kind of model gets the plain model's answer from every attributor, or a reason why it cannot."""

import copy
import re
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from attribution import FilterVisualization, ModelError, Occlusion
from attribution.testing import guard, small_cnn, small_residual
from tests.cases import OF_RECTIFIERS, SOME_PAIRS
from tests.models.kinds import (
    GRADIENTS,
    HOOKLESS,
    INPUTS,
    KINDS,
    OTHERS,
    PAIRS,
    WHOLE,
    Build,
    Checkpointed,
    ask,
    changed,
    difference,
    expected,
    exported,
    inference_made,
    process_group,
)

EVERY = pytest.mark.parametrize("pair", SOME_PAIRS)
GUARDED = ("layer compiled, not run", "layer compiled, run", "old weight norm")
WRAPPERS = {
    "whole compiled, not run": "OptimizedModule",
    "whole compiled, run": "OptimizedModule",
    "data parallel": "DataParallel",
    "data parallel, compiled": "OptimizedModule",
}


@pytest.mark.parametrize("kind", KINDS)
def test_the_plain_models_answer(kind: str) -> None:
    """One model serves all attributors, is as before, and still runs."""
    build, plain = KINDS[kind]
    model = build()
    with torch.no_grad():
        output = copy.deepcopy(plain()).eval()(INPUTS)
    for pair in PAIRS:
        with guard(model, INPUTS):
            found = ask(pair, model)
        assert not (text := difference(found, expected(plain, pair))), f"{pair}: {text}"
        way = "guarded" if kind in GUARDED else "copy" if kind == "merges weights in eval" else "shadow"
        assert found.provenance["isolation"] == (
            f"{way}, unwrapped from {WRAPPERS[kind]}" if kind in WRAPPERS else way
        ), pair
    with torch.no_grad():
        assert torch.allclose(model.eval()(INPUTS), output, rtol=1e-5, atol=1e-6)


@EVERY
@pytest.mark.parametrize("build", [small_cnn, small_residual], ids=lambda build: build.__name__)
def test_a_model_that_differs_by_a_hundredth_is_caught(build: Build, pair: tuple[str, str]) -> None:
    model = build()
    with torch.no_grad():
        for parameter in (*model.get_submodule("stem").parameters(), *model.get_submodule("body").parameters()):
            parameter[::2] *= 1.01
    assert difference(ask(pair, model), expected(build, pair))


def test_distributed_data_parallel(tmp_path: Path) -> None:
    with process_group(tmp_path):
        wrapped = nn.parallel.DistributedDataParallel(small_residual())
        for model, name in (
            (wrapped, "DistributedDataParallel"),
            (torch.compile(wrapped, backend="eager"), "Optimized"),
        ):
            for pair in PAIRS:
                with guard(model, INPUTS):  # type: ignore[arg-type]
                    found = ask(pair, model)  # type: ignore[arg-type]
                assert not difference(found, expected(small_residual, pair)), pair
                assert str(found.provenance["isolation"]).startswith(f"shadow, unwrapped from {name}")
        assert torch.equal(wrapped(INPUTS), small_residual()(INPUTS))


@pytest.mark.parametrize("kind", HOOKLESS)
def test_without_hooks(kind: str) -> None:
    """Techniques of inputs need no layers, and neither do the images of classes; the rest says why it cannot."""
    build, plain, name = HOOKLESS[kind]
    model = build()
    for pair in PAIRS:
        if pair not in WHOLE:
            with pytest.raises(
                ModelError, match=rf"model is {name}, whose layers take no hooks; give the eager module"
            ):
                ask(pair, model)
            continue
        try:
            found = ask(pair, model)
        except ModelError as error:
            if pair[0] in OF_RECTIFIERS and re.search(r"nn\.ReLU modules only|hidden inside of a script", str(error)):
                continue
            raise
        assert not (text := difference(found, expected(plain, pair))), f"{pair}: {text}"
    classes = FilterVisualization.notebook(layer="logits", channels=(0, 3), steps=2, size=(17, 23), in_channels=3)
    for pair in (pair for pair in PAIRS if pair[0] == "filter_visualization"):
        found, wanted = ask(pair, model, technique=classes), ask(pair, plain(), technique=classes)
        assert not difference(found, wanted), pair


@pytest.mark.parametrize("kind", HOOKLESS)
def test_without_hooks_leaves_no_trace(kind: str) -> None:
    model = HOOKLESS[kind][0]()
    if kind == "scripted":
        model.train()
    for pair in PAIRS:
        with guard(model, INPUTS):
            if pair in WHOLE and pair[0] not in OF_RECTIFIERS:
                ask(pair, model)
            elif pair in WHOLE and pair[1] == "hooks":
                with suppress(ModelError):  # torch may fuse a script
                    ask(pair, model)
            else:
                with pytest.raises(ModelError):
                    ask(pair, model)


def test_an_export_for_one_batch_size() -> None:
    model = exported(batch=torch.export.Dim.STATIC)
    for pair in WHOLE:
        with pytest.raises(ModelError, match=r"exported|Guard failed"):
            ask(pair, model)


def test_weights_made_in_inference_mode() -> None:
    model = inference_made(small_residual)
    for pair in OTHERS:
        with guard(model, INPUTS):
            assert not difference(ask(pair, model), expected(small_residual, pair))
    for pair in GRADIENTS:
        with guard(model, INPUTS), pytest.raises(ModelError, match=r"inference_mode.*give copy\.deepcopy\(model\)"):
            ask(pair, model)
        assert not difference(ask(pair, copy.deepcopy(model)), expected(small_residual, pair)), "the advice is wrong"


@EVERY
def test_models_without_values_are_refused(pair: tuple[str, str]) -> None:
    for part in ("stem", "head"):
        model = small_residual()
        model.get_submodule(part).to("meta")
        with pytest.raises(ModelError, match=r"meta device, which have no values; .*to_empty"):
            ask(pair, model)
        vars(model.get_submodule(part))["_hf_hook"] = object()
        with pytest.raises(ModelError, match=r"dispatched by accelerate.* device_map=\{'': 0\}"):
            ask(pair, model)
    lazy = nn.Sequential(nn.LazyConv2d(4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    with pytest.raises(ModelError, match="lazy parameters without values yet; run it once"):
        ask(pair, lazy)


@pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad=True")
def test_a_reentrant_checkpoint() -> None:
    model = changed(small_residual, "body", lambda body: Checkpointed(body, reentrant=True))
    for pair in PAIRS:
        with guard(model, INPUTS):
            if pair in OTHERS:
                assert not difference(ask(pair, model), expected(small_residual, pair))
            else:
                with pytest.raises(ModelError, match=r"checkpoint with use_reentrant=True.*give .*use_reentrant=False"):
                    ask(pair, model)


def test_a_model_that_spoils_its_own_gradient() -> None:
    """Its checkpoint runs again on what it has overwritten."""

    class Spoilt(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.sigmoid().mul_(x).exp() * x.sigmoid_()

    model = changed(small_residual, "body_relu", lambda relu: Spoilt())
    for pair in PAIRS:
        if pair[0] == "grad_cam":
            with guard(model, INPUTS), pytest.raises(ModelError, match="in-place operation overwrites"):
                ask(pair, model)


class Counting(nn.Module):
    """Cannot be copied, and every forward changes an attribute, makes one, and replaces a buffer."""

    calls: Tensor

    def __init__(self, fail: bool) -> None:
        super().__init__()
        self.net, self.count, self.fail = small_residual(), 0, fail
        self.register_buffer("calls", torch.zeros(()))
        self.forward = lambda x: self._forward(x)

    def _forward(self, x: Tensor) -> Tensor:
        self.count += 1
        self.seen = x
        self.calls = self.calls + 1
        if self.fail and self.count > 1:
            raise ValueError("mine")
        return self.net(x)  # type: ignore[no-any-return]


@pytest.mark.parametrize("fail", [False, True], ids=["returns", "raises"])
def test_attributes_of_a_model_that_cannot_be_copied(fail: bool) -> None:
    model, question = Counting(fail).train(), Occlusion(window=9, stride=7)
    for backend in ("hooks", "captum"):
        with guard(model, INPUTS):
            if fail:
                with pytest.raises(
                    ModelError, match=r"failed on inputs of shape \(\d+, 3, 17, 23\), torch.float32: ValueError: mine"
                ):
                    ask(("occlusion", backend), model, technique=question)
            else:
                found = ask(("occlusion", backend), model, technique=question)
                wanted = ask(("occlusion", backend), small_residual(), technique=question)
                assert not difference(found, wanted)
                assert found.provenance["isolation"] == "guarded"


@EVERY
def test_a_hook_that_a_copy_would_lose(pair: tuple[str, str]) -> None:
    """``GraphModule`` copies itself without its hooks."""
    model = torch.fx.symbolic_trace(small_cnn())
    seen: list[int] = []

    def hook(module: nn.Module, args: Any, output: Tensor) -> Tensor:
        seen.append(len(output))
        return 2 * output

    model.register_forward_hook(hook)
    with guard(model, INPUTS):
        found = ask(pair, model)
    doubled = small_cnn()
    doubled.register_forward_hook(lambda module, args, output: 2 * output)
    wanted = ask(pair, doubled)
    if found.scores is not None:
        assert wanted.scores is not None
        assert torch.allclose(found.scores, wanted.scores)
        plain = ask(pair, small_cnn()).scores
        assert plain is not None
        assert not torch.allclose(found.scores, plain)
        assert seen
    for key, map_ in wanted.raw.items():
        assert torch.allclose(found.raw[key], map_, rtol=1e-4, atol=1e-6)

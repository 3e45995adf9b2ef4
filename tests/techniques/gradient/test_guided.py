"""Guided backpropagation and deconvolution by both backends, held to backwards that are written out by hand."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from attribution import Deconvolution, GuidedBackprop, LayerScore, ModelError, Saliency, compare, explain
from attribution.running import torch_internals
from attribution.testing import guard, small_cnn
from tests.conftest import BACKENDS
from tests.models.kinds import quiet
from tests.techniques.gradient.cases import noise
from tests.techniques.gradient.rectified import (
    CAPPED,
    CHANNELS,
    FUNCTIONS,
    MODULES,
    RULE,
    RULES,
    TARGETS,
    Net,
    Rectifier,
    Rule,
    X,
    by_hand,
    by_mode,
    off,
    written,
    written_out,
)


def asked(rectify: Rectifier, rule: Rule, backend: str, batch: int = 3) -> Tensor:
    net = Net(rectify)
    with guard(net, X):
        return explain(net, X[:batch], RULES[rule], backend=backend, target=TARGETS[:batch]).map


@RULE
@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("spelling", MODULES)
@BACKENDS
def test_modules(backend: str, spelling: str, batch: int, rule: Rule) -> None:
    """The gradient of h's other reader is not rectified, and a module that is used twice keeps its gradients apart."""
    assert off(asked(MODULES[spelling], rule, backend, batch), written_out((rule, rule), batch)) < 1e-12


@RULE
@pytest.mark.parametrize("spelling", FUNCTIONS)
def test_functions(spelling: str, rule: Rule) -> None:
    assert off(asked(FUNCTIONS[spelling], rule, "hooks"), written_out((rule, rule))) < 1e-12
    with pytest.raises(ModelError, match=r"nn\.ReLU modules only.*backend='hooks'"):
        asked(FUNCTIONS[spelling], rule, "captum")


@RULE
@pytest.mark.parametrize("spelling", CAPPED)
def test_rectifiers_with_an_end(spelling: str, rule: Rule) -> None:
    assert off(asked(CAPPED[spelling], rule, "hooks"), written_out((rule, rule), top=1.5)) < 1e-12
    if rule == "guided":  # the other rule does not ask where the rectifier ends
        assert off(asked(CAPPED[spelling], rule, "hooks"), written_out((rule, rule))) > 1e-3
    with pytest.raises(ModelError, match="ReLU6"):
        asked(CAPPED[spelling], rule, "captum")


@RULE
@pytest.mark.parametrize("mutant", [("plain", "plain"), ("negative", "negative"), (None, "plain"), ("plain", None)])
@BACKENDS
def test_wrong_ones_are_seen(backend: str, mutant: tuple[Rule | None, Rule | None], rule: Rule) -> None:
    """The plain gradient, the wrong sign, and one layer without the rule."""
    wrong = written_out((mutant[0] or rule, mutant[1] or rule))
    assert off(asked(MODULES["modules"], rule, backend), wrong) > 1e-3
    other: Rule = "deconvolution" if rule == "guided" else "guided"
    assert off(asked(MODULES["modules"], rule, backend), written_out((other, other))) > 1e-3


@RULE
def test_the_mode_is_another_witness(rule: Rule) -> None:
    net = Net(MODULES["modules"])
    expected = torch.stack([by_mode(net, X, t, rule) for t in range(3)], dim=1)
    found = explain(net, X, RULES[rule], target="all").map
    assert off(found, expected) < 1e-12
    assert off(found, torch.stack([by_mode(net, X, t, rule, but=1) for t in range(3)], dim=1)) > 1e-3


def torchvision_net(name: str) -> nn.Module:
    from torchvision import models

    more: dict[str, Any] = {"aux_logits": False, "init_weights": False} if name == "googlenet" else {}
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        model: nn.Module = models.get_model(name, weights=None, num_classes=5, **more)
    return model.double().eval()


@pytest.mark.parametrize(("name", "least", "most"), [("googlenet", 0.9, 1.1), ("densenet121", 0.05, 1.0)])
def test_nets_with_functions(name: str, least: float, most: float) -> None:
    """Bare Captum, 0.9.0: GoogLeNet's map is the plain gradient to the bit, DenseNet's has parts without the rule."""
    model, x = torchvision_net(name), noise(1, 3, 64, 64)
    expected = by_mode(model, x, 3, "guided")
    found = explain(model, x, GuidedBackprop(), target=3)
    assert off(found.map[:, 0], expected) < 1e-10
    with pytest.raises(ModelError, match="backend='hooks'"):
        explain(model, x, GuidedBackprop(), backend="captum", target=3)
    plain = explain(model, x, Saliency(channels="none", absolute=False), target=3).map[:, 0]
    theirs = bare("GuidedBackprop", model, x, 3)
    assert least < off(theirs, expected) < most, "Captum sees functions by now: take the row out of the pages"
    assert (off(theirs, plain) < 1e-12) is (name == "googlenet")


def bare(name: str, model: nn.Module, x: Tensor, target: int) -> Tensor:
    """Captum, called as its documentation shows it."""
    import captum.attr

    with quiet():
        found: Tensor = getattr(captum.attr, name)(model).attribute(x.clone(), target=target)
    return found


@pytest.mark.parametrize("name", ["GuidedBackprop", "Deconvolution"])
def test_known_disagreement_captum_rectifies_what_others_read(name: str) -> None:
    """Captum 0.9.0 rectifies the whole gradient of a ReLU's input, or replaces it."""
    net, rule = Net(MODULES["modules"]), "guided" if name == "GuidedBackprop" else "deconvolution"
    expected = torch.stack([written((rule, rule), n, 1, float("inf")) for n in range(3)])
    assert off(bare(name, net, X, 1), expected) > 0.1


def test_known_disagreement_captum_leaves_a_relu_in_place_out_whose_result_is_ignored() -> None:
    net, same = Net(MODULES["modules in place, their result ignored"]), Net(MODULES["modules in place"])
    assert off(bare("GuidedBackprop", net, X, 1), bare("GuidedBackprop", same, X, 1)) > 0.1


def test_known_disagreement_captum_knows_no_relu6() -> None:
    model = nn.Sequential(nn.Conv2d(CHANNELS, 3, 3), nn.ReLU6(), nn.Flatten(), nn.Linear(18, 2)).double()
    plain = explain(model, X, Saliency(channels="none", absolute=False), target=1).map[:, 0]
    assert off(bare("GuidedBackprop", model, X, 1), plain) < 1e-12
    assert off(explain(model, X, GuidedBackprop(), target=1).map[:, 0], plain) > 0.1


class Beside(nn.Module):
    """A ReLU that ran, but not between the input and the score."""

    def __init__(self) -> None:
        super().__init__()
        self.linear, self.relu, self.weight = nn.Linear(4, 3), nn.ReLU(), nn.Parameter(torch.ones(3))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.linear(x).tanh() * self.relu(self.weight)
        return out


@RULE
@pytest.mark.parametrize(
    ("model", "what"),
    [(nn.Sequential(nn.Linear(4, 4), nn.GELU(), nn.Linear(4, 3), nn.GELU()), "GELU × 2"), (Beside(), "tanh × 1"),
     (nn.Linear(4, 3), "nothing that bends"), (nn.Sequential(nn.Linear(4, 3), nn.Hardtanh()), "hardtanh × 1")],
)  # fmt: skip
def test_nets_without_a_rectifier_are_refused(model: nn.Module, what: str, rule: Rule) -> None:
    for backend, text in (("hooks", f"none ran between.*{what}.*plain gradient"), ("captum", "plain gradient")):
        with pytest.raises(ModelError, match=text):
            explain(model, noise(2, 4).float(), RULES[rule], backend=backend, target=1)


@RULE
@BACKENDS
def test_a_rectifier_of_the_score_keeps_its_gradient(backend: str, rule: Rule) -> None:
    net = Net(MODULES["modules"] if backend == "captum" else FUNCTIONS["F.relu"])

    def negative(output: Tensor) -> Tensor:
        return -F.threshold(output, -1e9, 0.0)[:, 1] if backend == "captum" else -F.relu(output + 100)[:, 1]

    expected = torch.stack([_of_minus(x, rule) for x in X])
    assert off(explain(net, X, RULES[rule], backend=backend, target=negative).map[:, 0], expected) < 1e-12


def _of_minus(x: Tensor, rule: Rule) -> Tensor:
    """Class 1 of a net whose last layer has the other sign."""
    net = Net(MODULES["modules"])
    with torch.no_grad():
        net.last.weight.neg_()
    return by_hand(net, x, 1, (rule, rule))


def test_what_was_passed_over_is_noted() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.GELU(), nn.Linear(4, 3), nn.ReLU6(), nn.Sigmoid()).double()
    found = explain(model, noise(2, 4), GuidedBackprop(), target=1)
    assert found.provenance["rectifiers"] == 2
    assert found.provenance["passed over"] == "GELU × 1, sigmoid × 1"
    assert "passed over" not in explain(small_cnn(), noise(2, 3, 9, 9).float(), GuidedBackprop(), target=1).provenance


@BACKENDS
def test_channels_and_the_score_of_a_layer(backend: str) -> None:
    model, x = small_cnn(dtype=torch.float64), noise(2, 3, 9, 11)
    score = LayerScore("body", 2, position=(1, 1))
    kept = explain(model, x, GuidedBackprop(), backend=backend, target=score).map
    assert kept.shape == (2, 1, 3, 9, 11)
    for channels in ("sum", "max"):
        found = explain(model, x, GuidedBackprop(channels=channels), backend=backend, target=score).map
        wanted = kept.sum(2) if channels == "sum" else kept.gather(2, kept.abs().argmax(2, keepdim=True))[:, :, 0]
        assert torch.allclose(found, wanted, rtol=0, atol=1e-14)
    assert compare(model, x, Deconvolution(), target=score).holds


def test_modes_are_nested_and_none_is_left() -> None:
    before = torch_internals.function_modes()
    net = Net(FUNCTIONS["halves in place"])
    with Onlooker():
        found = explain(net, X, GuidedBackprop(), target=TARGETS).map
    assert off(found, written_out(("guided", "guided"))) < 1e-12

    class Fails(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            raise ValueError("on purpose")

    with pytest.raises(ModelError, match="on purpose"):
        explain(Fails(), X, GuidedBackprop(), target=1)
    assert torch_internals.function_modes() == before


class Onlooker(torch.overrides.TorchFunctionMode):
    """A mode of the user's that changes nothing."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return func(*args, **(kwargs or {}))

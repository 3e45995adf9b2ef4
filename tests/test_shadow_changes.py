"""A copy that serves many calls: every change in between is seen, and nothing the copy does reaches the model."""

import copy
import gc
import weakref
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from attribution import Activations, explain
from attribution.isolation import structural_copy as shadow
from attribution.isolation.context import isolated
from attribution.isolation.known import known
from tests.conftest import noise

INPUTS = noise(2, 3, 9, 11)
ASK = Activations(layers=("head",))


class Net(nn.Module):
    """One of each kind of thing that can be changed."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4)
        self.drop, self.act = nn.Dropout(0.5), nn.ReLU(inplace=True)
        self.head = nn.Linear(4, 5)
        self.shift: Tensor
        self.register_buffer("shift", torch.full((4,), 0.25))
        self.times = 1
        self.sizes: Any = [1.0, [2.0]]
        self.options: dict[str, Any] = {"scale": 1.0}

    def forward(self, x: Tensor) -> Tensor:
        x = self.drop(self.act(self.norm(self.conv(x)))) * self.times
        x = x * self.sizes[0] * self.sizes[1][0] * self.options["scale"]
        return self.head(x.mean(dim=(2, 3)) + self.shift)  # type: ignore[no-any-return]


def build() -> Net:
    torch.manual_seed(0)
    model = Net().eval()
    with torch.no_grad():
        model.norm.get_buffer("running_mean").copy_(torch.randn(4))
    return model


def twice(model: Net) -> Any:
    return model.act.register_forward_hook(lambda module, args, output: 2 * output)


class Half(nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        return 0.5 * super().forward(x)


def rename(model: Net) -> None:
    """As many attributes as before, with the same values in the same order."""
    held = {name: vars(model).pop(name) for name in ("times", "sizes", "options")}
    vars(model).update(times=2, sizes=held["sizes"], options=held["options"])


CHANGES: dict[str, Callable[[Net], Any]] = {
    "eps": lambda m: setattr(m.norm, "eps", 1.0),
    "stride": lambda m: setattr(m.conv, "stride", (2, 2)),
    "number": lambda m: setattr(m, "times", 3),
    "renamed": rename,
    "item of a list": lambda m: m.sizes.__setitem__(0, 3.0),
    "item of a list in a list": lambda m: m.sizes[1].append(m.sizes[1].pop() + 1),
    "item of a dict": lambda m: m.options.update(scale=3.0),
    "hook": twice,
    "pre-hook": lambda m: m.head.register_forward_pre_hook(lambda module, args: (2 * args[0],)),
    "class": lambda m: setattr(m.head, "__class__", Half),
    "module": lambda m: setattr(m, "act", nn.Tanh()),
    "module by name": lambda m: m._modules.update(act=nn.Tanh()),
    "parameter": lambda m: setattr(m.head, "weight", nn.Parameter(torch.ones(5, 4))),
    "parameter's data": lambda m: setattr(m.head.weight, "data", torch.ones(5, 4)),
    "parameter's values": lambda m: m.head.weight.data.mul_(2),
    "parameter removed": lambda m: setattr(m.head, "bias", None),
    "buffer": lambda m: setattr(m, "shift", torch.ones(4)),
    "buffer in place": lambda m: m.shift.add_(1),
    "buffer unseen by its version": lambda m: m.shift.data.add_(1),
    "buffer from numpy": lambda m: m.shift.numpy().fill(3),
    "buffer's data": lambda m: setattr(m.shift, "data", torch.ones(4)),
    "buffer's data of another shape": lambda m: setattr(m.shift, "data", torch.ones(1)),
    "buffer of a norm": lambda m: m.norm.get_buffer("running_mean").zero_(),
    "state dict": lambda m: m.load_state_dict({key: value + 0.5 for key, value in m.state_dict().items()}),
    "forward": lambda m: setattr(m.act, "forward", torch.tanh),
}


def answer(model: nn.Module) -> Tensor:
    return explain(model, INPUTS, ASK).map


@pytest.mark.parametrize("name", CHANGES)
def test_a_change_between_two_calls_is_seen(name: str) -> None:
    model = build()
    before = answer(model)
    with torch.no_grad():
        CHANGES[name](model)
    after = answer(model)
    with torch.no_grad():
        assert torch.equal(after, model(INPUTS))
    assert not torch.equal(after, before), "the change changes nothing, so it proves nothing"
    assert torch.equal(answer(model), after)


def test_a_hook_that_goes_is_seen() -> None:
    model = build()
    plain, handle = answer(model), twice(model)
    assert not torch.equal(answer(model), plain)
    handle.remove()
    assert torch.equal(answer(model), plain)


def test_another_dtype_is_seen() -> None:
    model = build()
    answer(model)
    found = explain(model.double(), INPUTS.double(), ASK).map
    assert found.dtype == torch.float64
    with torch.no_grad():
        assert torch.equal(found, model(INPUTS.double()))


def test_dropout_is_compared_though_it_draws_nothing() -> None:
    model = build()
    with isolated(model) as (first, _):
        pass
    model.drop.p = 0.25
    with isolated(model) as (second, _):
        assert second.get_submodule("drop").p == 0.25
    assert first is not second


def kept(model: nn.Module, change: Callable[[], Any] = lambda: None) -> bool:
    with isolated(model) as (first, way):
        assert way == "shadow"
    change()
    with isolated(model) as (second, _):
        return first is second


def test_one_copy_serves_while_nothing_changes() -> None:
    from torchvision import models

    model = build()
    assert kept(model)
    assert kept(model, model.train)
    assert kept(model, lambda: model.norm.eval())
    assert kept(model, lambda: model.shift.add_(1))
    assert kept(model, lambda: model.zero_grad())
    assert kept(model, lambda: setattr(model, "sizes", [1.0, [2.0]])), "an equal list is no change"
    assert not kept(model, lambda: setattr(model, "times", True)), "1 is not True"
    assert not kept(model, lambda: setattr(model, "extra", 1))
    for name in ("resnet18", "mobilenet_v2", "squeezenet1_1", "googlenet", "densenet121"):
        options = {"init_weights": False} if name == "googlenet" else {}
        with torch.device("meta"):
            other = models.get_model(name, **options)
        assert kept(other.to_empty(device="cpu")), name


class Writer(nn.Module):
    """Its forward writes what its next forward reads."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how, self.count, self.layer = how, 0, nn.Identity()
        self.calls: Tensor
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        if self.how == "in place":
            self.calls += 1
        elif self.how == "data":
            self.calls.data.add_(1)
        elif self.how == "replaced":
            self.calls = self.calls + 1
        else:
            self.count += 1
        return self.layer(x + self.calls + self.count)  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("how", "limit"),
    [(how, shadow.LARGEST_COPY) for how in ("in place", "data", "replaced", "attribute")]
    + [(how, 0) for how in ("in place", "replaced", "attribute")],
)
def test_what_a_forward_writes_does_not_add_up(how: str, limit: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shadow, "LARGEST_COPY", limit)
    model = Writer(how).eval()
    buffer, version = model.calls, -1
    for call in range(4):
        found = explain(model, INPUTS, Activations(layers=("layer",))).map
        version = version if call else buffer._version  # the proof of the copy has run the model itself, once
        assert torch.equal(found, INPUTS + 1)
        assert (model.calls is buffer, buffer.item(), model.count) == (True, 0, 0)
        if limit:
            assert buffer._version == version, "not even for a moment"
    model.calls.add_(5)
    assert torch.allclose(explain(model, INPUTS, Activations(layers=("layer",))).map, INPUTS + 5 + 1)


def test_a_buffer_on_a_parameters_memory_follows_it() -> None:
    """An update of the parameter leaves the buffer's version alone; a copy must not stand in for it."""
    model = build()
    model.register_buffer("shift", model.head.bias.data[:4])
    before = answer(model)
    with torch.no_grad():
        model.head.bias.add_(1)
    with torch.no_grad():
        assert torch.equal(answer(model), model(INPUTS))
    assert not torch.equal(answer(model), before)


def test_two_views_of_one_memory_stay_one() -> None:
    class Views(Net):
        def __init__(self) -> None:
            super().__init__()
            memory = torch.zeros(8)
            self.register_buffer("left", memory[:4])
            self.register_buffer("all", memory)

        def forward(self, x: Tensor) -> Tensor:
            self.get_buffer("left").add_(1)
            return super().forward(x) + self.get_buffer("all")[:4].sum()

    model = Views().eval()
    with torch.no_grad():
        expected = copy.deepcopy(model)(INPUTS)
    for _ in range(2):
        explained = explain(model, INPUTS, Activations(layers=("head",))).map
        assert torch.equal(explained + 4, expected)
        assert model.get_buffer("all").eq(0).all()


def test_a_model_made_in_inference_mode() -> None:
    with torch.inference_mode():
        model = build()
    for _ in range(2):
        with torch.no_grad():
            assert torch.equal(answer(model), model(INPUTS))


def test_an_attribute_that_is_a_module_or_a_buffer_of_the_model_is_known_again() -> None:
    model = build()
    model.options["same"] = model.shift
    model.sizes.append([model.conv])
    assert kept(model)
    assert not kept(model, lambda: model.sizes[-1].__setitem__(0, model.norm))


def test_the_model_dies_with_its_last_user() -> None:
    model = build()
    model.options["owner"] = 1.0
    model.conv.register_forward_hook(lambda module, args, output: None)
    answer(model)
    gone = weakref.ref(model)
    del model
    gc.collect()
    assert gone() is None
    assert all(model is not None for model in known.shadows)


def test_a_buffer_that_moved_to_another_device_has_another_form() -> None:
    """``buffer.data = buffer.data.cuda()`` keeps the tensor, its shape and its dtype; a copy keeps the old values."""
    assert shadow._FORM(torch.empty(2)) == shadow._FORM(torch.ones(2))
    assert shadow._FORM(torch.empty(2)) != shadow._FORM(torch.empty(2, device="meta"))

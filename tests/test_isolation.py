"""The user's model, input and torch's modes are as found, after every way out, for every attributor."""

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from attribution import Attribution, ModelError
from attribution.attributor import Attributor
from attribution.registry import get
from attribution.running.execution import Execution
from tests.cases import SOME_PAIRS, all_placed, given
from tests.conftest import build, noise
from tests.draw import pairwise

TECHNIQUES = all_placed({"stem": "net.stem", "body": "net.body"})


class Restless(nn.Module):
    """Draws random numbers also in eval mode, counts its calls in a buffer, and can be told to fail."""

    def __init__(self, fail: Callable[[], None] | None = None, *, closure: bool = False) -> None:
        super().__init__()
        self.net = build("residual")
        self.inner = nn.Sequential(nn.Dropout(0.5), nn.Identity())
        self.fail = fail
        self.calls: Tensor
        self.register_buffer("calls", torch.zeros(()))
        if closure:
            original = self.net.forward
            self.net.forward = lambda x: original(x)

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        x = self.net.pool(self.net.stem_relu(self.net.stem(x)))  # type: ignore[operator]
        if self.fail is not None:
            self.fail()
        x = self.net.body(x)  # type: ignore[operator]
        x = self.net.body_relu(x)  # type: ignore[operator]
        x = x + 1e-3 * torch.rand_like(x)
        return self.inner(self.net.head(x))  # type: ignore[operator, no-any-return]


class Clumsy(nn.Module):
    """Writes into its input, as a preprocessing step may."""

    def __init__(self) -> None:
        super().__init__()
        self.net = build("cnn")

    def forward(self, x: Tensor) -> Tensor:
        x.mul_(0.5)
        return self.net(x)  # type: ignore[no-any-return]


def state(model: nn.Module, inputs: Tensor | None) -> list[Any]:
    """Everything that a run must leave alone."""
    found: list[Any] = []
    for name, module in model.named_modules():
        own = {key: id(value) for key, value in vars(module).items()}
        hooks = {key: dict(value) for key, value in vars(module).items() if key.endswith("hooks") and value is not None}
        found.append((name, id(module), module.training, getattr(module, "inplace", None), own, hooks))
    for tensor_name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        found.append(
            (tensor_name, id(tensor), tensor.detach().clone(), tensor.requires_grad, tensor.grad, tensor.data_ptr())
        )
    found += [(name, parameter._version) for name, parameter in model.named_parameters()]
    if inputs is not None:
        version = None if inputs.is_inference() else inputs._version
        found.append((inputs.detach().clone(), version, inputs.requires_grad, inputs.grad, inputs.is_leaf))
    found += [
        torch.get_rng_state(),
        torch.is_grad_enabled(),
        torch.is_inference_mode_enabled(),
        torch.is_autocast_enabled("cpu"),
        torch.get_autocast_dtype("cpu"),
        torch.is_autocast_cache_enabled(),
        torch.are_deterministic_algorithms_enabled(),
        torch.get_num_threads(),
        threading.active_count(),
    ]
    return found


def same(a: Any, b: Any) -> bool:
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        return torch.equal(a, b)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    return bool(a == b)


def ask(pair: tuple[str, str], model: nn.Module, inputs: Tensor, execution: Execution = Execution()) -> Attribution:
    technique = TECHNIQUES[pair[0]]
    attributor: Attributor[Any] = get(*pair)(model, technique, execution)
    return attributor.attribute(*given(technique, inputs))


def ask_often(pair: tuple[str, str], model: nn.Module, inputs: Tensor) -> None:
    for _ in range(3):
        ask(pair, model, inputs)


def mixed(model: nn.Module) -> nn.Module:
    """In train mode, but for one part."""
    model.train()
    model.get_submodule("net.body").eval()
    return model


@pytest.fixture(params=SOME_PAIRS)
def pair(request: pytest.FixtureRequest) -> tuple[str, str]:
    return tuple(request.param)


@pytest.mark.parametrize("closure", [False, True], ids=["shadow", "guarded"])
def test_after_a_normal_return(pair: tuple[str, str], closure: bool) -> None:
    model, inputs = mixed(Restless(closure=closure)), noise(2, 3, 17, 23).requires_grad_()
    next(model.parameters()).grad = torch.ones_like(next(model.parameters()))
    next(iter(model.net.body.parameters())).requires_grad_(False)  # type: ignore[union-attr]
    inputs.grad = torch.ones_like(inputs)
    before = state(model, inputs)
    for execution in (Execution(), Execution(batch_size=1, autocast=torch.bfloat16, deterministic=True)):
        result = ask(pair, model, inputs, execution)
        assert same(before, state(model, inputs))
        assert result.provenance["isolation"] == ("guarded" if closure else "shadow")
        assert all(
            not map_.requires_grad and map_.grad_fn is None for map_ in (*result.maps.values(), *result.raw.values())
        )


class Interruption:
    """Raises at the n-th call."""

    def __init__(self, error: BaseException, after: int) -> None:
        self.error, self.left = error, after

    def __call__(self) -> None:
        self.left -= 1
        if self.left < 0:
            raise self.error

    def __deepcopy__(self, memo: object) -> "Interruption":
        return self


@pairwise(
    pair=SOME_PAIRS,
    error={"ValueError": ValueError("mine"), "RuntimeError": RuntimeError("mine"), "interrupt": KeyboardInterrupt()},
    after=[0, 1, 2],
    closure={"shadow": False, "guarded": True},
)
def test_after_an_exception(pair: tuple[str, str], error: BaseException, after: int, closure: bool) -> None:
    arrives = KeyboardInterrupt if isinstance(error, KeyboardInterrupt) else ModelError
    model = mixed(Restless(Interruption(error, after), closure=closure))
    inputs = noise(2, 3, 17, 23).requires_grad_()
    before = state(model, inputs)
    with pytest.raises(arrives):
        ask_often(pair, model, inputs)
    assert same(before, state(model, inputs))
    vars(model)["fail"] = None
    before = state(model, inputs)
    ask(pair, model, inputs)
    assert same(before, state(model, inputs)), "the exception left something behind"


def test_the_model_may_write_into_what_it_gets(pair: tuple[str, str]) -> None:
    model, inputs = Clumsy(), noise(2, 3, 17, 23)
    before = state(model, inputs)
    ask(pair, model, inputs)
    assert same(before, state(model, inputs))


@pytest.fixture(params=["no_grad", "inference_mode", "autocast", "frozen", "channels_last", "train", "strided"])
def condition(request: pytest.FixtureRequest) -> Iterator[str]:
    name = str(request.param)
    modes: dict[str, Any] = {
        "no_grad": torch.no_grad,
        "inference_mode": torch.inference_mode,
        "autocast": lambda: torch.autocast("cpu", torch.bfloat16),
    }
    if name in modes:
        with modes[name]():
            yield name
    else:
        yield name


def test_the_callers_conditions_do_not_matter(pair: tuple[str, str], condition: str) -> None:
    with torch.inference_mode(False), torch.autocast("cpu", enabled=False):
        model = Wrapped()
        expected = ask(pair, model, noise(2, 3, 17, 23))
    inputs = noise(2, 3, 17, 23)
    assert inputs.is_inference() == (condition == "inference_mode")
    if condition == "frozen":
        model.requires_grad_(False)
    if condition == "train":
        model.train()
    if condition == "channels_last":
        inputs = inputs.contiguous(memory_format=torch.channels_last)
    if condition == "strided":
        inputs = inputs.transpose(2, 3).contiguous().transpose(2, 3)
    before = state(model, inputs)
    found = ask(pair, model, inputs)
    assert same(before, state(model, inputs))
    exact = condition not in ("channels_last", "strided")
    for layer, map_ in expected.raw.items():
        if layer == "net.body" and pair[0] == "filter_visualization":
            continue
        limit = 0.0 if exact else 1e-5 * max(map_.abs().max().item(), 1.0)
        assert (found.raw[layer] - map_).abs().max() <= limit
        assert not found.raw[layer].is_inference()


class Wrapped(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net = build("residual")

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)  # type: ignore[no-any-return]


def test_threads_do_not_see_each_other(pair: tuple[str, str]) -> None:
    model, found = Wrapped(), {}
    inputs = [noise(1, 3, 17, 23, seed=seed) for seed in range(3)]
    expected = [ask(pair, model, x) for x in inputs]

    def work(index: int) -> None:
        found[index] = [ask(pair, model, inputs[index]) for _ in range(3)]

    threads = [threading.Thread(target=work, args=(index,)) for index in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for index, results in found.items():
        for result in results:
            for layer, map_ in expected[index].maps.items():
                assert torch.allclose(result.maps[layer], map_, atol=1e-6)
    assert len(found) == 3

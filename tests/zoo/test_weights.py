import os
import pickle
import warnings
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from attribution import zoo
from attribution.errors import ModelError
from attribution.zoo.weights import fill, read_state

Differing = Callable[[dict[str, Tensor], dict[str, Tensor]], list[str]]


def net(seed: int = 0) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Sequential(OrderedDict(conv=nn.Conv2d(3, 4, 3), norm=nn.BatchNorm2d(4), head=nn.Linear(4, 5)))


def written(path: Path, content: Any) -> Path:
    torch.save(content, path)
    return path


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: state,
        lambda state: {"epoch": 3, "state_dict": state},
        lambda state: {"model": state, "optimizer": {"lr": 0.1}},
        lambda state: OrderedDict((f"module.{name}", value) for name, value in state.items()),
        lambda state: {"state_dict": {f"_orig_mod.module.{name}": value for name, value in state.items()}},
        lambda state: {f"module._orig_mod.{name}": value for name, value in state.items()},
    ],
    ids=["plain", "state_dict", "model", "parallel", "compiled_parallel", "parallel_compiled"],
)
def test_every_layout_of_a_checkpoint(tmp_path: Path, differing: Differing, wrap: Callable[[Any], Any]) -> None:
    saved, model = net(1), net(2)
    assert "conv.weight" in differing(saved.state_dict(), model.state_dict())
    path = written(tmp_path / "a.pth", wrap(saved.state_dict()))
    fill(model, read_state(path), str(path))
    assert differing(saved.state_dict(), model.state_dict()) == []


def test_safetensors_and_the_old_format(tmp_path: Path, differing: Differing) -> None:
    saved = net(1)
    save_file(saved.state_dict(), tmp_path / "a.safetensors")
    torch.save(saved.state_dict(), tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    for name in ("a.safetensors", "old.pt"):
        model = net(2)
        fill(model, read_state(tmp_path / name), name)
        assert differing(saved.state_dict(), model.state_dict()) == []


def test_a_wrapped_model_keeps_its_prefix(differing: Differing) -> None:
    saved, model = nn.Sequential(OrderedDict(module=net(1))), nn.Sequential(OrderedDict(module=net(2)))
    fill(model, OrderedDict(saved.state_dict()), "a.pth")
    assert differing(saved.state_dict(), model.state_dict()) == []


def test_a_prefix_that_all_names_share_is_taken_off(differing: Differing) -> None:
    expected = net().state_dict()
    model = net()
    fill(model, OrderedDict((f"net.{name}", value) for name, value in expected.items()), "epoch=3.ckpt")
    assert differing(expected, model.state_dict()) == []
    some = OrderedDict((f"net.{name}", value) for name, value in expected.items())
    some["loss.weight"] = torch.zeros(3)
    with pytest.raises(ModelError, match="unknown to the model"):
        fill(net(), some, "epoch=3.ckpt")


def test_old_files_lack_the_counters_of_batch_norm(differing: Differing) -> None:
    saved, model = net(1), net(2)
    state = OrderedDict((name, v) for name, v in saved.state_dict().items() if "num_batches" not in name)
    fill(model, state, "a.pth")
    assert differing(saved.state_dict(), model.state_dict()) == []


class Versioned(nn.Linear):
    """Remembers of which version the weights were that it was given, as MNASNet must know."""

    _version = 3
    given: int | None = None

    def _load_from_state_dict(self, state: dict[str, Any], prefix: str, metadata: dict[str, Any], *rest: Any) -> None:
        self.given = metadata.get("version")
        super()._load_from_state_dict(state, prefix, metadata, *rest)


def test_the_version_of_a_layer_is_kept(tmp_path: Path) -> None:
    state = Versioned(2, 2).state_dict()
    state._metadata[""]["version"] = 2  # type: ignore[attr-defined]
    written(tmp_path / "a.pth", state)
    save_file(state, tmp_path / "a.safetensors")
    # safetensors keep no version; then it is taken to be today's.
    for name, version in (("a.pth", 2), ("a.safetensors", 3)):
        model = Versioned(2, 2)
        fill(model, read_state(tmp_path / name), name)
        assert model.given == version


def test_the_first_densenets_names() -> None:
    layer = nn.Module()
    layer.norm1, layer.conv2 = nn.BatchNorm2d(2), nn.Conv2d(2, 2, 1)
    model = nn.Sequential(OrderedDict(denselayer7=layer))
    state = OrderedDict((name, torch.full_like(v, 3)) for name, v in model.state_dict().items())
    old = OrderedDict((name.replace("norm1", "norm.1").replace("conv2", "conv.2"), v) for name, v in state.items())
    assert "denselayer7.norm.1.weight" in old
    fill(model, old, "a.pth")
    assert all((value == 3).all() for value in model.state_dict().values())


def test_what_does_not_fit_is_named_in_one_error() -> None:
    state = OrderedDict(net().state_dict())
    state["head.weight"] = torch.zeros(7, 4)
    del state["conv.bias"]
    for extra in "abcde":
        state[extra] = torch.zeros(1)
    with pytest.raises(ModelError) as caught:
        fill(net(), state, "mine.pth")
    assert str(caught.value) == (
        "the weights mine.pth do not fit the model: 1 missing (conv.bias); "
        "5 unknown to the model (a, b, c, and 2 more); 1 of another shape (head.weight is (7, 4), expected (5, 4))"
    )
    state["head.weight"] = torch.zeros(5, 4)
    with pytest.raises(ModelError, match=r"1 missing \(conv.bias\); 5 unknown to the model \(a, b, c, and 2 more\)$"):
        fill(net(), state, "mine.pth")


def test_a_head_of_another_size_is_told_how_to_be_made() -> None:
    state = OrderedDict(net().state_dict())
    state["head.weight"], state["head.bias"] = torch.zeros(7, 4), torch.zeros(7)
    with pytest.raises(ModelError) as caught:
        fill(net(), state, "mine.pth")
    assert str(caught.value).endswith(
        "; the file is of a model with 7 classes and this one has 5: write a function that makes yours, with "
        "num_classes=7, and give --model FILE.py:FUNCTION"
    )
    state["head.bias"] = torch.zeros(6)  # no head of any size
    with pytest.raises(ModelError, match=r"expected \(5,\)\)$"):
        fill(net(), state, "mine.pth")


@pytest.mark.parametrize("key", ["state_dict", "model_state_dict", "model"])
def test_checkpoints_hold_weights_under_the_usual_keys(key: str, tmp_path: Path) -> None:
    state = net().state_dict()
    found = read_state(written(tmp_path / "a.pth", {key: state, "epoch": 3}))
    assert {name: value.tolist() for name, value in found.items()} == {k: v.tolist() for k, v in state.items()}


def refused(path: Path) -> str:
    with pytest.raises(ModelError) as caught:
        read_state(path)
    assert "\n" not in str(caught.value)
    return str(caught.value)


class Malicious:
    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return os.mkdir, (str(self.folder),)


def test_pickled_code_is_refused_and_does_not_run(tmp_path: Path) -> None:
    path = written(tmp_path / "a.pth", {"conv.weight": Malicious(tmp_path / "made")})
    assert "save model.state_dict() instead" in refused(path)
    assert not (tmp_path / "made").exists()
    torch.load(path, weights_only=False)
    assert (tmp_path / "made").exists()
    assert "save model.state_dict() instead" in refused(written(tmp_path / "b.pt", net()))
    (tmp_path / "c.pt").write_bytes(pickle.dumps(net()))
    assert "save model.state_dict() instead" in refused(tmp_path / "c.pt")


def test_programs_are_refused(tmp_path: Path) -> None:
    layer, example = nn.Linear(2, 2), torch.zeros(1, 2)
    torch.export.save(torch.export.export(layer, (example,)), tmp_path / "a.pt2")
    with warnings.catch_warnings(action="ignore"):
        torch.jit.save(torch.jit.trace(layer, example), tmp_path / "a.pt")
    for name in ("a.pt2", "a.pt"):
        assert "archive with a program" in refused(tmp_path / name)


def test_what_holds_no_state_dict(tmp_path: Path) -> None:
    assert "does not exist" in refused(tmp_path / "a.pth")
    assert "is no regular file" in refused(tmp_path)
    for name in ("a.pth", "a.safetensors"):
        (tmp_path / name).write_bytes(b"not weights at all")
        assert str(tmp_path / name) in refused(tmp_path / name)
    whole = written(tmp_path / "whole.pth", net().state_dict()).read_bytes()
    (tmp_path / "cut.pth").write_bytes(whole[: len(whole) // 2])
    assert "holds no plain tensors" in refused(tmp_path / "cut.pth")
    assert "holds Tensor; expected a state dict" in refused(written(tmp_path / "b.pth", torch.zeros(3)))
    assert "holds dict; expected a state dict" in refused(written(tmp_path / "c.pth", {}))
    assert "epoch, lr no tensor" in refused(written(tmp_path / "d.pth", {"epoch": 1, "lr": 2.0}))


def test_a_spec_with_weights_from_a_file(tmp_path: Path, no_network: list[str]) -> None:
    from torchvision.models import SqueezeNet1_1_Weights, squeezenet1_1

    saved = squeezenet1_1()
    path = written(tmp_path / "mine.pth", {"state_dict": saved.state_dict()})
    loaded = zoo.load("torchvision:squeezenet1_1", weights=path)
    assert torch.equal(loaded.model.get_parameter("classifier.1.weight"), saved.get_parameter("classifier.1.weight"))
    assert loaded.labels == tuple(SqueezeNet1_1_Weights.DEFAULT.meta["categories"])
    assert loaded.mean == (0.485, 0.456, 0.406)
    assert not loaded.model.training
    assert no_network == []
    state = saved.state_dict()
    del state["classifier.1.bias"]
    written(path, state)
    with pytest.raises(ModelError, match=r"1 missing \(classifier\.1\.bias\)$"):
        zoo.load("torchvision:squeezenet1_1", weights=path)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_values_that_would_become_zero(dtype: torch.dtype) -> None:
    state = OrderedDict(nn.Linear(5, 3).double().state_dict())
    tiny = {torch.float16: 1e-9, torch.bfloat16: 1e-60, torch.float32: 1e-60}[dtype]
    state["bias"] = torch.tensor([tiny, 1.0, 0.0], dtype=torch.float64)
    fill(nn.Linear(5, 3, dtype=dtype), OrderedDict(state), "a.pth")  # half of its values arrive
    state["bias"] = torch.tensor([tiny, -tiny, 1.0], dtype=torch.float64)
    with pytest.raises(ModelError, match=r"bias is torch\.float64, .* too small for it and become 0; use model\.to\("):
        fill(nn.Linear(5, 3, dtype=dtype), state, "a.pth")


@pytest.mark.parametrize("name", ["a.pth", "a.SAFETENSORS", "weights", "a.pt"])
def test_safetensors_are_known_by_their_content(tmp_path: Path, differing: Differing, name: str) -> None:
    saved, model = net(1), net(2)
    save_file(saved.state_dict(), tmp_path / name)
    fill(model, read_state(tmp_path / name), name)
    assert differing(saved.state_dict(), model.state_dict()) == []


def test_no_advice_to_run_the_code_of_a_file(tmp_path: Path) -> None:
    paths = [written(tmp_path / "a.pth", {"a": Malicious(tmp_path / "made")}), written(tmp_path / "b.pt", net())]
    (tmp_path / "c.pt").write_bytes(b"{not weights")
    (tmp_path / "d.pth").write_bytes(b"\x09\0\0\0\0\0\0\0{not weights")
    for path in (*paths, tmp_path / "c.pt", tmp_path / "d.pth"):
        assert "weights_only" not in refused(path)


def test_what_torch_says_of_a_misfit_is_told(tmp_path: Path) -> None:
    class Own(nn.Linear):
        def load_state_dict(self, *args: Any, **options: Any) -> Any:
            raise RuntimeError("Error(s) in loading state_dict for Own:\n\tsize mismatch for own: 3 and 5.")

    with pytest.raises(
        ModelError, match=r"^the weights a\.pth do not fit the model: size mismatch for own: 3 and 5\.$"
    ):
        fill(Own(3, 5), OrderedDict(nn.Linear(3, 5).state_dict()), "a.pth")


def test_weights_may_be_text_and_nothing_else_than_a_path(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("from torch import nn\ndef make():\n    return nn.Linear(3, 5)\n")
    saved = nn.Linear(3, 5)
    path = written(tmp_path / "a.pth", saved.state_dict())
    loaded = zoo.load(f"{tmp_path / 'mine.py'}:make", weights=str(path))
    assert torch.equal(loaded.model.get_parameter("weight"), saved.weight)
    with pytest.raises(ModelError, match=r"^weights is OrderedDict; give the path of"):
        zoo.load(f"{tmp_path / 'mine.py'}:make", weights=saved.state_dict())  # type: ignore[arg-type]

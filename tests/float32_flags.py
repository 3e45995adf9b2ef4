"""What is read of torch's float32 flags after a user set them: a script, since no flag can be put back as it was.

Each setting acts in a fork of a fresh process of its own. Prints JSON, see `SETTINGS`.
"""

import json
import os
import sys
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import torch

from attribution import Attribution, explain
from attribution.running import precision
from attribution.techniques import GradCAM
from tests.conftest import build, noise

backends: Any = torch.backends


def _set(holder: Any, value: str) -> Callable[[], None]:
    return lambda: setattr(holder, "fp32_precision", value)


def _old(*, cudnn: bool, matmul: bool) -> None:
    backends.cudnn.allow_tf32, backends.cuda.matmul.allow_tf32 = cudnn, matmul


def _mixed() -> None:
    backends.cudnn.allow_tf32 = False
    backends.cuda.matmul.fp32_precision = "tf32"


SETTINGS: dict[str, tuple[Callable[[], object], bool | None, bool]] = {
    "nothing": (lambda: None, True, False),
    "all ieee": (_set(backends, "ieee"), None, False),
    "all tf32": (_set(backends, "tf32"), True, True),
    "convolutions ieee": (_set(backends.cudnn.conv, "ieee"), False, False),
    "cudnn ieee": (_set(backends.cudnn, "ieee"), None, False),
    "recurrent ieee": (_set(backends.cudnn.rnn, "ieee"), True, False),
    "matrices tf32": (_set(backends.cuda.matmul, "tf32"), True, True),
    "matrices tf32, cudnn off by the older interface": (_mixed, False, True),
    "off by the older interface": (lambda: _old(cudnn=False, matmul=False), False, False),
    "on by the older interface": (lambda: _old(cudnn=True, matmul=True), True, True),
    "matmul precision high": (lambda: torch.set_float32_matmul_precision("high"), True, True),
}
"""What a user may set → whether convolutions and matrices may be multiplied in TF32 on CUDA then.

``None``: older torch goes by its own default for convolutions, unless that is set itself.
"""


def _asked() -> Attribution:
    return explain(build("cnn"), noise(1, 3, 17, 23), GradCAM(layers=("body",)), target=3)


def _read(act: Callable[[], object]) -> dict[str, object]:
    """What the library makes of it for inputs that go by the flags of CUDA."""
    cuda: Any = SimpleNamespace(dtype=torch.float32, device=torch.device("cuda"))
    act()
    found: dict[str, object] = {
        "convolution": str(precision.tf32(cuda, "convolution")),
        "matmul": str(precision.tf32(cuda, "matmul")),
        "either": str(precision.tf32(cuda)),
        "told": precision.told(cuda.device),
    }
    precision.follows_flags = lambda device: True
    answer = _asked()
    return {**found, "computes_in": str(answer.computes_in), "record": answer.provenance.get("float32 products")}


def _forked(act: Callable[[], object]) -> object:
    read, write = os.pipe()
    child = os.fork()
    if not child:
        try:
            found: object = _read(act)
        except BaseException as error:
            found = f"{type(error).__name__}: {error}"
        os.write(write, json.dumps(found).encode())
        os._exit(0)
    os.close(write)
    with os.fdopen(read) as answer:
        text = answer.read()
    os.waitpid(child, 0)
    return json.loads(text)


if __name__ == "__main__":
    torch.set_num_threads(1)
    _asked()  # whatever is imported on first use is shared by the forks
    json.dump({name: _forked(act) for name, (act, _, _) in SETTINGS.items()}, sys.stdout)

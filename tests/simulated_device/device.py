"""Two simulated accelerators, ``sim:0`` and ``sim:1``: torch takes them for devices, and they compute on the host."""

import ctypes
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

SOURCES = [Path(__file__).with_name(name) for name in ("device.cpp", "hardware.h")]
COUNT = 2


class NoCompiler(RuntimeError):
    """The simulated device cannot be built here."""


def load() -> ctypes.CDLL:
    """Build the device if need be and make it known to torch as ``sim``; once per process."""
    if hasattr(torch, "sim"):
        return torch.sim.library  # type: ignore[no-any-return]
    library = ctypes.CDLL(str(built()))
    library.sim_used.restype = library.sim_peak.restype = ctypes.c_int64
    library.sim_limit.argtypes = [ctypes.c_int64]
    library.sim_seed.argtypes = [ctypes.c_int, ctypes.c_uint64]
    library.sim_tf32.argtypes = [ctypes.c_bool, ctypes.c_bool]
    library.sim_random_state.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_bool]
    library.sim_load()
    torch.utils.rename_privateuse1_backend("sim")
    torch._register_device_module("sim", _module(library))
    torch.utils.generate_methods_for_privateuse1_backend()
    return library


def built() -> Path:
    """The compiled device for this torch and this source; builds at the same time do not meet.

    Raises:
        NoCompiler: There is none.
    """
    compiler = shutil.which(os.environ.get("CXX", "g++"))
    if compiler is None:
        raise NoCompiler("no C++ compiler: the simulated device needs g++, or what CXX names")
    torch_ = Path(torch.__file__).parent
    where = [f"-I{torch_ / 'include'}", f"-I{torch_ / 'include/torch/csrc/api/include'}", f"-L{torch_ / 'lib'}"]
    options = ["-O1", "-std=c++20", "-fPIC", "-shared"]
    command = [compiler, *options, str(SOURCES[0]), *where, "-ltorch", "-ltorch_cpu", "-lc10"]
    known = hashlib.sha256(f"{torch.__version__} {sys.platform} {options}".encode())
    for source in SOURCES:
        known.update(source.read_bytes())
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "torch-attribution-tests"
    if not os.access(next(parent for parent in (folder, *folder.parents) if parent.exists()), os.W_OK):
        folder = Path(tempfile.mkdtemp())
    target = folder / f"sim-{torch.__version__}-{known.hexdigest()[:16]}.so"
    if not target.exists():
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder) as own:
            made = Path(own) / target.name
            done = subprocess.run([*command, "-o", str(made)], capture_output=True, text=True)
            if done.returncode:
                raise RuntimeError(
                    f"the simulated device does not compile against torch {torch.__version__}:\n{done.stderr}"
                )
            made.replace(target)
    return target


def _module(library: ctypes.CDLL) -> ModuleType:
    """``torch.sim``: what torch and its users ask of ``torch.cuda``."""
    module: Any = ModuleType("torch.sim")

    def index(device: Any = None) -> int:
        if isinstance(device, int):
            return device
        named = None if device is None else torch.device(device).index
        return int(library.sim_current()) if named is None else named

    def state(device: Any = "sim") -> torch.Tensor:
        kept = torch.get_rng_state()  # of the same size
        library.sim_random_state(index(device), kept.data_ptr(), False)
        return kept

    def put_state(state: torch.Tensor, device: Any = "sim") -> None:
        kept = state.cpu().contiguous()
        library.sim_random_state(index(device), kept.data_ptr(), True)

    def seed_all(seed: int) -> None:
        for each in range(COUNT):
            library.sim_seed(each, seed % 2**64)

    class Device:
        def __init__(self, device: Any) -> None:
            self.index = index(device)

        def __enter__(self) -> None:
            self.before = library.sim_current()
            library.sim_set_current(self.index)

        def __exit__(self, *_: object) -> None:
            library.sim_set_current(self.before)

    class Stream(torch.Stream):
        def __new__(cls, device: Any = None) -> "Stream":
            return super().__new__(cls, device=torch.device("sim", index(device)))

    class Event(torch.Event):
        def __new__(cls) -> "Event":
            return super().__new__(cls, "sim")

    module.library = library
    module.is_available = module.is_initialized = lambda: True
    module.init = module._lazy_init = module.empty_cache = lambda: None
    module._is_in_bad_fork = lambda: False
    module.device_count = lambda: COUNT
    module.current_device = library.sim_current
    module.set_device = lambda device: library.sim_set_current(index(device))
    module.device = Device
    module.get_device_name = lambda device=None: "simulated"
    module.get_amp_supported_dtype = lambda: [torch.bfloat16, torch.float16]
    module.get_rng_state, module.set_rng_state = state, put_state
    module.get_rng_state_all = lambda: [state(each) for each in range(COUNT)]
    module.manual_seed = lambda seed: library.sim_seed(index(), seed % 2**64)
    module.manual_seed_all = seed_all
    module.Stream, module.Event = Stream, Event
    module.stream = lambda stream: stream or nullcontext()
    module.current_stream = lambda device=None: torch.accelerator.current_stream(torch.device("sim", index(device)))
    module.synchronize = lambda device=None: module.current_stream(device).synchronize()
    module.memory_allocated = lambda device=None: library.sim_used(index(device))
    module.max_memory_allocated = lambda device=None: library.sim_peak(index(device))
    module.reset_peak_memory_stats = lambda device=None: library.sim_reset_peak(index(device))
    return module  # type: ignore[no-any-return]


@contextmanager
def memory_limit(size: int) -> Iterator[None]:
    """Each device holds ``size`` bytes beside what it holds now; beyond is torch's ``OutOfMemoryError``."""
    library = load()
    library.sim_limit(max(library.sim_used(each) for each in range(COUNT)) + size)
    try:
        yield
    finally:
        library.sim_limit(-1)


@contextmanager
def tf32(*, convolution: bool = True, product: bool = True) -> Iterator[None]:
    """Convolutions and matrix products round their float32 factors to ten bits, as TF32 does."""
    load().sim_tf32(convolution, product)
    try:
        yield
    finally:
        load().sim_tf32(False, False)

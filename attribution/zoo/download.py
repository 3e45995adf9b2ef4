"""Published weights in torch's cache, fetched once; without network the answer comes at once."""

import http.client
import re
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path

import torch

from attribution import paths
from attribution.errors import ModelError
from attribution.running.execution import first_line
from attribution.zoo import bundled

_PATIENCE = 10.0  # seconds until a server that does not answer counts as unreachable


def cached_path(url: str) -> Path:
    """Where torch keeps the file of a URL: ``$TORCH_HOME/hub/checkpoints/NAME``."""
    return Path(torch.hub.get_dir(), "checkpoints", Path(urllib.parse.urlparse(url).path).name)


def fetch(url: str, name: str) -> Path:
    """The cached file of a URL, downloaded first if it is not there yet.

    The download is checked against the digits of its SHA-256 in the file's name, as torch does.

    Args:
        url: of the weights.
        name: the spec of the model, for messages.

    Raises:
        ModelError: the file cannot be downloaded; names ``--weights`` and the bundled models.
    """
    path = cached_path(url)
    if (fault := paths.fault(path)) is None:
        return path
    if fault != paths.MISSING:
        raise ModelError(f"the cached weights {paths.named(path)}: the path {fault}; move it away, or set TORCH_HOME")
    probe(url, name)
    digits = re.search(r"-([0-9a-f]{8,})\.", path.name)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.hub.download_url_to_file(url, str(path), digits.group(1) if digits else None)
    except (OSError, RuntimeError, http.client.HTTPException) as error:
        raise unreachable(name, url, error) from error
    return path


def probe(url: str, name: str) -> None:
    """Ask once whether a URL can be had; torch's own download waits without limit.

    Raises:
        ModelError: it cannot.
    """
    request = urllib.request.Request(url, method="HEAD", headers={"User-Agent": "torch.hub"})
    try:
        urllib.request.urlopen(request, timeout=_PATIENCE).close()
    except (OSError, http.client.HTTPException) as error:
        raise unreachable(name, url, error) from error


def unreachable(name: str, source: str, error: BaseException) -> ModelError:
    """The error that says how to go on without network."""
    reason = error.reason if type(error) is urllib.error.URLError else error
    said = first_line(reason) if isinstance(reason, BaseException) else reason
    return ModelError(
        f"the weights of {name} cannot be downloaded from {source} ({said}); pass a file with "
        f"--weights, or use a bundled model: {bundled.specs()}"
    )

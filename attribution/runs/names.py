"""Names of files that are made of whatever an input is called."""

import re
import unicodedata

from attribution.paths import short

_UNSAFE = re.compile(r"[^A-Za-z0-9._-]+")
_MOST = 80


def safe(number: int, name: str) -> str:
    """A name for an item's files: its number, then what of its own name every file system takes.

    The number alone tells two items apart, so that ``a.png``, ``A.png`` and ``b/a.png`` do not meet.
    """
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "replace").decode()
    kept = _UNSAFE.sub("_", plain.replace("?", "_")).strip("._-")
    return f"{number:08d}-{short(kept, _MOST).rstrip('.')}" if kept else f"{number:08d}"

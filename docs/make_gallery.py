"""Runs the gallery and keeps its pages: ``uv run --group docs --group weights python docs/make_gallery.py [NAME …]``.

Every example in ``docs/gallery`` becomes a page in ``docs/auto_gallery``, with its pictures; a build of the site takes
them as they are. A name such as ``plot_04`` runs that example alone; without one, those that have changed are run.
"""

import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from sphinx.application import Sphinx

HERE = Path(__file__).parent
PAGES = HERE / "auto_gallery"


def main() -> int:
    """Run what is asked for, and then build the site once into a folder that is thrown away."""
    for name in sys.argv[1:]:
        for path in PAGES.glob(f"{name}*.md5"):
            path.unlink()
    settings = {"plot_gallery": True, "abort_on_example_error": True}
    with TemporaryDirectory() as folder:
        site = Sphinx(HERE, HERE, folder, folder, "html", confoverrides=settings, status=None)
        site.build()
    return site.statuscode


if __name__ == "__main__":
    sys.exit(main())

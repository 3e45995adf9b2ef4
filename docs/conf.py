"""The documentation site: ``uv run --group docs sphinx-build -W docs site``."""

import re
from importlib.metadata import version as version_of
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from sphinx_gallery.scrapers import figure_rst

project = "torch-attribution"
author = "The torch-attribution developers"
project_copyright = author
release = version = version_of("torch-attribution")

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "sphinx_gallery.gen_gallery",
]
exclude_patterns = ["examples/**", "gallery/**"]
source_suffix = {".md": "markdown", ".rst": "restructuredtext"}

# Docstrings name objects in single backticks, some of them private or of another module: what is found becomes a link.
default_role = "py:obj"
autosummary_generate = True
autosummary_ignore_module_all = False
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_class_signature = "separated"
autodoc_default_options = {"members": True, "show-inheritance": True, "exclude-members": "__init__, __new__"}
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True
napoleon_use_rtype = False
python_use_unqualified_type_names = True
maximum_signature_line_length = 88

myst_heading_anchors = 4
myst_enable_extensions = ["dollarmath"]
suppress_warnings = ["myst.xref_missing", "myst.header"]  # links to files of the repository, which are no pages


def _figures(block: Any, variables: dict[str, Any], settings: dict[str, Any]) -> str:
    """Keep the figure that a block of an example made, and show it below the block."""
    figure = variables["example_globals"].pop("figure", None)
    if not isinstance(figure, Figure):
        return ""
    path = Path(next(variables["image_path_iterator"])).with_suffix(".jpg")
    quality = {"quality": 88, "subsampling": 0, "optimize": True}
    figure.savefig(path, dpi=90, bbox_inches="tight", pil_kwargs=quality)
    return figure_rst([str(path)], settings["src_dir"], figure.get_suptitle())


# Examples are run by docs/make_gallery.py. Otherwise their pages and pictures stay as they are kept in auto_gallery.
sphinx_gallery_conf = {
    "examples_dirs": "gallery",
    "gallery_dirs": "auto_gallery",
    "plot_gallery": False,
    "image_scrapers": (_figures,),
    "capture_repr": (),
    "reset_modules": (),
    "within_subsection_order": "FileNameSortKey",
    "download_all_examples": False,
    "show_memory": False,
    "show_signature": False,
    "min_reported_time": 1e9,
    "write_computation_times": False,
    "remove_config_comments": True,
}
suppress_warnings += ["config.cache"]  # a function in the settings

html_theme = "pydata_sphinx_theme"
html_title = "torch-attribution"
html_theme_options = {
    "show_toc_level": 2,
    "navigation_with_keys": True,
    "secondary_sidebar_items": ["page-toc"],
    "footer_start": ["copyright"],
    "footer_end": [],
}
html_show_sourcelink = False

_LITERAL = re.compile(r"(``.+?``|`[^`]+`)", re.DOTALL)


def _plain(text: str) -> str:
    """Formulas as they are written: |x| is no substitution, (N, D, *p) no emphasis."""
    text = re.sub(r"(?<!\\)\|", r"\\|", text)
    return re.sub(r"(?<!\*)\*(?=\w+[),])", r"\\*", text)


def _escaped(app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    parts = _LITERAL.split("\n".join(lines))
    lines[:] = "".join(part if place % 2 else _plain(part) for place, part in enumerate(parts)).split("\n")


def setup(app: Any) -> None:
    """Called by Sphinx."""
    app.connect("autodoc-process-docstring", _escaped)

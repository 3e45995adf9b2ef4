"""The documentation site: ``uv run --group docs sphinx-build -W docs site``."""

import re
from importlib.metadata import version as version_of
from typing import Any

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
]
exclude_patterns = ["examples/**"]
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

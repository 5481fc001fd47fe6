"""Settings of the documentation; `make docs` builds it."""

from __future__ import annotations

from importlib.metadata import version as installed_version

project = "moefps"
author = "the moefps authors"
copyright = author
release = installed_version("moefps")
version = ".".join(release.split(".")[:2])

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx_click",
]
exclude_patterns = ["_build"]
language = "en"
nitpicky = False

myst_enable_extensions = ["deflist", "dollarmath"]
myst_heading_anchors = 3

autodoc_member_order = "bysource"
# Signatures and docstrings are read without gigabytes of torch.
autodoc_mock_imports = ["torch", "transformers"]
# The docstrings say what a parameter takes, in words.
autodoc_typehints = "none"
napoleon_google_docstring = False
napoleon_use_rtype = False
# `Attributes` of a dataclass are listed once, not a second time by autodoc.
napoleon_use_ivar = True
default_role = "code"
# Two hyphens are an option, not a dash.
smartquotes = False

html_theme = "furo"
html_title = f"moefps {release}"
html_show_sphinx = False
html_show_copyright = False
html_copy_source = False

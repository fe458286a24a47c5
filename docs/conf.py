"""Sphinx site; `make docs` builds it, warnings are errors and nothing is fetched."""

import os
import re
import sys
import warnings
from pathlib import Path
from typing import get_origin

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

import numpy as np
from _made_pages import copy_results, copy_tutorials, write_command_line

import countsdiff

os.environ.setdefault("OMP_WAIT_POLICY", "passive")
warnings.filterwarnings("ignore", module="sphinx_autodoc_typehints")  # what it calls in Sphinx is not ours to change

project = "countsdiff"
author = "The countsdiff developers"
copyright = author
version = release = countsdiff.__version__

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.napoleon",
    "sphinx_autodoc_typehints",
    "sphinx_copybutton",
    "sphinx_design",
]
exclude_patterns = ["_build"]
templates_path = ["_templates"]

myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 3
suppress_warnings = [
    "config.cache",  # a formatter is a function
    "myst.header",  # results written by a program begin where they like
]

nb_execution_mode = "off"  # tutorials hold their outputs; `make tutorials` executes them

autosummary_generate = True
autodoc_member_order = "bysource"
typehints_defaults = "comma"
typehints_document_rtype = False
napoleon_google_docstring = False
napoleon_use_rtype = False
napoleon_use_ivar = True

html_theme = "sphinx_book_theme"
html_title = "countsdiff"
html_logo = "_static/logo.svg"
html_favicon = "_static/logo.svg"
html_static_path = ["_static"]
html_css_files = ["countsdiff.css"]
html_show_sphinx = False
html_show_copyright = False
html_copy_source = False
html_theme_options = {
    "logo": {"text": "countsdiff"},
    "navbar_persistent": [],  # the sidebar has the search
    "home_page_in_toc": False,
    "show_navbar_depth": 1,
    "show_toc_level": 2,
    "use_download_button": False,
    "pygments_light_style": "tango",
}
copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True


def typehints_formatter(annotation, config):
    """Arrays by their name: shapes and dtypes are in the text."""
    return ":class:`~numpy.ndarray`" if get_origin(annotation) is np.ndarray else None


def _links_into_the_repository(app, docname, source):
    """Pages are read in the repository, too: there results lie beside `docs`, and programs can be linked to."""
    depth = docname.count("/")
    docs, root = "../" * depth, r"\.\./" * (depth + 1)
    results = rf"\]\({root}benchmarks/results"
    text = re.sub(rf"{results}(/[\w/]+\.md(?:#[\w-]+)?)\)", rf"]({docs}benchmarks/results\1)", source[0])
    text = re.sub(rf"{results}(?:/\w+)*/?\)", f"]({docs}benchmarks/index.md)", text)
    text = re.sub(rf"\]\({root}(tutorials/\w+\.ipynb)\)", rf"]({docs}\1)", text)
    source[0] = re.sub(rf"\[([^\]]+)\]\({root}[^)]*\)", r"\1", text)


def setup(app):
    """Make the pages that are written by programs, before Sphinx looks for pages."""
    copy_results(HERE.parent / "benchmarks" / "results", HERE / "benchmarks" / "results")
    copy_tutorials(HERE.parent / "tutorials", HERE / "tutorials")
    write_command_line(HERE / "api" / "generated" / "command_line.md")
    app.connect("source-read", _links_into_the_repository)

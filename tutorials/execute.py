"""Executes tutorials and writes their outputs back: ``make tutorials``, or ``python tutorials/execute.py NAME …``.

The outputs on file of `cite_seq` and `spatial` need the data that these notebooks name, in ``$COUNTSDIFF_DATA``.
"""

import os
import sys
import tempfile
from base64 import b64decode, b64encode
from io import BytesIO
from pathlib import Path

import nbformat
from jupyter_client import KernelManager
from nbclient import NotebookClient
from nbformat import NotebookNode
from PIL import Image

FOLDER = Path(__file__).parent
QUIET = "import logging, scvi; scvi.settings.verbosity = logging.WARNING"  # it reports on standard output
_SECONDS = 1800  # that a cell may take


def run(notebook: NotebookNode, prelude: str = QUIET, kernel: KernelManager | None = None) -> None:
    """Execute all cells in an empty folder; raises what a cell raises.

    Parameters
    ----------
    notebook
        Gets the outputs.
    prelude
        Code that is executed before the first cell, and is no part of the notebook.
    kernel
        A kernel that may have been started already, and stays in its folder. Default: a fresh one.
    """
    whole = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(prelude), *notebook.cells])
    with tempfile.TemporaryDirectory() as folder:
        resources = {"metadata": {"path": folder}}
        NotebookClient(whole, kernel, timeout=_SECONDS, kernel_name="python3", resources=resources).execute()


def tidy(notebook: NotebookNode) -> str:
    """Leave what a reader sees, pictures made small; return what went to standard error: progress, warnings."""
    notebook.metadata = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    notices = []
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    for number, cell in enumerate(code, start=1):
        cell.metadata, cell.execution_count = {}, number
        notices += [output.text for output in cell.outputs if output.get("name") == "stderr"]
        # progress bars go back to the beginning of their line
        cell.outputs = [o for o in cell.outputs if o.get("name") != "stderr" and "\r" not in o.get("text", "")]
        for output in cell.outputs:
            if "execution_count" in output:
                output.execution_count = number
            if "data" in output:
                output.metadata = {}
            if "image/png" in output.get("data", {}):
                output.data["image/png"] = _with_few_colours(output.data["image/png"])
    return "".join(notices)


def _with_few_colours(png: str) -> str:
    """The same picture in 256 colours, at about a quarter of the size."""
    picture = Image.open(BytesIO(b64decode(png)))
    if picture.mode == "P":
        return png  # it has few colours already
    file = BytesIO()
    picture.convert("RGB").quantize(256, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE).save(
        file, format="PNG", optimize=True
    )
    return b64encode(file.getvalue()).decode()


def main(names: list[str]) -> None:
    """Execute the tutorials of these names, or all."""
    os.environ["TQDM_DISABLE"] = "1"
    for path in sorted(FOLDER.glob("*.ipynb")):
        if not names or path.stem in names:
            print(f"{path.name} …", flush=True)
            notebook = nbformat.read(path, as_version=4)
            run(notebook)
            print(tidy(notebook), file=sys.stderr)
            nbformat.write(notebook, path)


if __name__ == "__main__":
    main(sys.argv[1:])

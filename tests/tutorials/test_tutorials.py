"""Tutorials run from the first cell to the last, and hold the outputs of such a run."""

import re
from importlib import util
from pathlib import Path

import nbformat
import pytest
from jupyter_client import AsyncKernelManager
from jupyter_core.utils import run_sync

HERE = Path(__file__).parent
FOLDER = HERE.parents[1] / "tutorials"
TUTORIALS = sorted(FOLDER.glob("*.ipynb"))
IN_SMALL = f"import sys; sys.path.append({str(HERE)!r}); import in_small"
LARGEST, LARGEST_TOGETHER = 600_000, 3_000_000  # bytes
PATH = re.compile(r"(?<![\w:/.])(/[\w.+-]+){2,}|[A-Z]:\\\\|~/|site-packages|0x[0-9a-f]{6,}")


def load_execute():
    spec = util.spec_from_file_location("execute", FOLDER / "execute.py")
    module = util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


execute = load_execute()


def read(path):
    return nbformat.read(path, as_version=4)


def code_cells(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def texts(output):
    """Everything in an output that is not a picture."""
    if output.output_type == "stream":
        return [output.text]
    return [text for kind, text in output.data.items() if not kind.startswith("image/")]


@pytest.fixture(params=TUTORIALS, ids=lambda path: path.stem)
def path(request):
    return request.param


@pytest.fixture(scope="module")
def kernel():
    """A kernel for all tutorials: it takes as long to import the libraries as it does to execute one in small."""
    manager = AsyncKernelManager(kernel_name="python3")
    execute.run(nbformat.v4.new_notebook(), IN_SMALL, manager)
    yield manager
    run_sync(manager.shutdown_kernel)(now=True)


def test_runs_on_what_is_in_the_package(path, kernel, tmp_path):
    notebook = read(path)
    # raises what a cell raises; it finds neither names nor files of another
    execute.run(notebook, f"import os; os.chdir({str(tmp_path)!r})\n%reset -f", kernel)
    # what is shown in small is shown in full: as many pictures and tables, cell by cell
    on_file = read(path)
    execute.tidy(notebook)
    for cell, shown in zip(code_cells(notebook), code_cells(on_file), strict=True):
        kinds, shown_kinds = ([o.output_type for o in c.outputs] for c in (cell, shown))
        assert kinds == shown_kinds, f"cell {cell.execution_count} gives other outputs than on file: make tutorials"


def test_holds_the_outputs_of_one_run_in_order(path):
    notebook = read(path)
    nbformat.validate(notebook)
    cells = code_cells(notebook)
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    outputs = [output for cell in cells for output in cell.outputs]
    assert any("image/png" in output.get("data", {}) for output in outputs)
    assert any("text/html" in output.get("data", {}) for output in outputs)
    assert not [output for output in outputs if output.output_type == "error" or output.get("name") == "stderr"]


def test_says_nothing_of_the_machine_it_ran_on(path):
    notebook = read(path)
    assert set(notebook.metadata) == {"kernelspec"}
    for cell in code_cells(notebook):
        assert cell.metadata == {}
        for output in cell.outputs:
            for text in texts(output):
                assert not PATH.search(text), PATH.search(text)
                assert "\x1b" not in text, "escape codes of a terminal"


def test_is_small(path):
    assert path.stat().st_size < LARGEST


def test_all_are_small_together():
    assert len(TUTORIALS) == 7
    assert sum(path.stat().st_size for path in TUTORIALS) < LARGEST_TOGETHER


def test_tidying_keeps_what_a_reader_sees():
    output, code = nbformat.v4.new_output, nbformat.v4.new_code_cell
    cell = code("1", execution_count=7, metadata={"execution": {"started": "now"}})
    cell.outputs = [
        output("stream", name="stderr", text="a notice\n"),
        output("stream", name="stdout", text="a line\n"),
        output("execute_result", {"text/plain": "1"}, execution_count=7, metadata={"transient": 1}),
    ]
    notebook = nbformat.v4.new_notebook(cells=[cell], metadata={"language_info": {"name": "python"}})
    assert execute.tidy(notebook) == "a notice\n"
    assert [texts(o) for o in cell.outputs] == [["a line\n"], ["1"]]
    assert cell.execution_count == cell.outputs[1].execution_count == 1
    assert cell.metadata == cell.outputs[1].metadata == {}
    assert set(notebook.metadata) == {"kernelspec"}

"""The command line: ``countsdiff``. Handlers import what is heavy, so that ``--help`` answers at once."""

import atexit
import gc
import os
import sys
import warnings
from collections.abc import Sequence
from typing import Annotated, Any

import typer

import countsdiff
from countsdiff.cli._benchmark import benchmark
from countsdiff.cli._demo import demo
from countsdiff.cli._evaluate import evaluate
from countsdiff.cli._image import image
from countsdiff.cli._impute import impute
from countsdiff.cli._io import InputError, is_no_room, no_room

__all__ = ["app", "main"]

app = typer.Typer(name="countsdiff", add_completion=False, pretty_exceptions_enable=False)
for command in (impute, evaluate, benchmark, demo):
    app.command()(command)
app.add_typer(image)

_UsageError: Any = typer.BadParameter.__base__  # typer gives it no public name


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"countsdiff {countsdiff.__version__}")
        raise typer.Exit


@app.callback()
def _countsdiff(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Impute single-cell counts with a diffusion model on the natural numbers."""


def main(args: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status.

    Parameters
    ----------
    args
        Arguments without the name of the program. Default: those of the process.

    Returns
    -------
    int
        0 on success; 2 if the input is bad, after one sentence on standard error. Anything unforeseen propagates.
    """
    # threads that wait for each other asleep: busy waiting makes training several times slower beside other work
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    if args is None:
        atexit.register(gc.freeze)  # or an ending process searches half a million objects of its imports, for seconds
    arguments = list(sys.argv[1:] if args is None else args) or ["--help"]
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".* names are not unique")  # an error in a moment, or no matter
            status = app(arguments, standalone_mode=False)
    except (InputError, _UsageError) as error:
        message = error.format_message() if isinstance(error, _UsageError) else str(error)
        print(f"countsdiff: error: {message}", file=sys.stderr)
        return 2
    except OSError as error:
        if not is_no_room(error):
            raise
        print(f"countsdiff: error: {no_room(error)}", file=sys.stderr)
        return 2
    return status if isinstance(status, int) else 0

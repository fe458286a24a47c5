"""Pages that nobody writes in `docs`: results of the benchmarks, tutorials, options of the command line."""

import inspect
import re
import shutil
from collections.abc import Iterator
from enum import EnumMeta
from pathlib import Path
from typing import Any, get_args


def copy_results(source: Path, target: Path) -> None:
    """Copy tables and their pictures, to be pages of the site; reports all have one title, and get another."""
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(source, target, ignore=shutil.ignore_patterns("*.csv", "*.json", "*.html"))
    for report in target.rglob("report.md"):
        report.write_text(re.sub(r"\A# .*", f"# All methods: {report.parent.name}", report.read_text()))


def copy_tutorials(source: Path, target: Path) -> None:
    """Copy notebooks, to be pages of the site; their links to other pages start from the folder they are written in."""
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir()
    for notebook in source.glob("*.ipynb"):
        (target / notebook.name).write_text(notebook.read_text().replace("](../docs/", "](../"))


def write_command_line(target: Path) -> None:
    """Write the options of every command, as the program itself declares them."""
    from countsdiff.cli import app

    commands: list[tuple[str, Any]] = [("countsdiff", command.callback) for command in app.registered_commands]
    for group in app.registered_groups:
        several: Any = group.typer_instance
        name = f"countsdiff {several.info.name}"
        commands += [(name, command.callback) for command in several.registered_commands]
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text("\n".join(line for program, command in commands for line in _describe(program, command)))


def _describe(program: str, command: Any) -> Iterator[str]:
    yield f"## {program} {command.__name__}\n\n{command.__doc__}\n"
    yield "| | | default |\n|---|---|---|"
    for name, parameter in inspect.signature(command).parameters.items():
        annotated = parameter.annotation
        info = annotated.__metadata__[0]
        kinds = get_args(annotated.__origin__) or (annotated.__origin__,)
        choices = next(([str(value) for value in kind] for kind in kinds if isinstance(kind, EnumMeta)), [])
        if type(info).__name__ == "ArgumentInfo":
            usage = f"`{info.metavar}`"
        else:
            # typer takes the first flag that is written out for a default
            flags = [flag for flag in (info.default, *(info.param_decls or ())) if str(flag).startswith("-")]
            usage = ", ".join(f"`{flag}`" for flag in flags or [f"--{name.replace('_', '-')}"])
            usage += f" `{info.metavar}`" if info.metavar else ""
            usage += " " + " ".join(f"`{choice}`" for choice in choices)
        text = re.sub(r"--[\w-]+", r"`\g<0>`", info.help)  # or two hyphens become a dash
        yield f"| {usage} | {text} | {_default(info, parameter.default)} |"
    yield ""


def _default(info: Any, default: Any) -> str:
    if isinstance(info.show_default, str):
        return info.show_default
    if default is inspect.Parameter.empty:
        return "required"
    return "" if default is None or default is False else f"`{default}`"

"""The core stays light: what may import what (docs/architecture.md)."""

import ast
import subprocess
import sys
from importlib.util import resolve_name
from pathlib import Path

import pytest

import countsdiff

ROOT = Path(countsdiff.__file__).parent
HEAVY = {"anndata", "lightning", "mudata", "scanpy", "scvi"}


def imported_by(file: Path) -> set[str]:
    """Absolute names of everything a file imports, at its top or inside a function."""
    package = ".".join(("countsdiff", *file.relative_to(ROOT).parent.parts))
    names = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = resolve_name("." * node.level + (node.module or ""), package)
            names |= {f"{base}.{alias.name}" for alias in node.names}
    return names


@pytest.mark.parametrize(
    ("statement", "absent"),
    [
        ("import countsdiff", HEAVY | {"torch"}),
        ("import countsdiff.core, countsdiff.nn.gene_mlp, countsdiff.metrics", HEAVY),
        # what the process of a method in a benchmark needs
        ("import countsdiff.benchmark._methods, countsdiff.baselines._means", HEAVY | {"torch", "sklearn"}),
        # what is no file of cells is said so at once
        (f"from countsdiff.cli import main; main(['impute', {__file__!r}, '-o', 'out.h5ad'])", {"lightning", "scvi"}),
    ],
)
def test_importing_loads_nothing_heavy(statement, absent):
    report = f"{statement}; import sys; print(*(set({sorted(absent)!r}) & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", report], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


@pytest.mark.parametrize(
    ("package", "allowed"),
    [
        ("core", {"arguments", "core"}),
        ("nn", {"core", "nn"}),
        ("metrics", {"core", "matrix", "metrics"}),
        ("model_files", {"files", "model_files"}),
        (
            "image",
            {"arguments", "checkpoint", "core", "download", "files", "image", "matrix", "metrics", "nn", "model_files"},
        ),
    ],
)
def test_packages_keep_to_their_layer(package, allowed):
    heavy = HEAVY - {"lightning"} if package == "image" else HEAVY
    files = sorted((ROOT / package).rglob("*.py"))
    assert files
    for file in files:
        for name in imported_by(file):
            parts = name.split(".")
            assert parts[0] not in heavy, f"{file.name} imports {name}"
            assert parts[0] != "countsdiff" or parts[1] in allowed, f"{file.name} imports {name}"


def test_modules_with_an_underscore_are_used_by_their_own_package_only():
    for file in sorted(ROOT.rglob("*.py")):
        own = "countsdiff." + file.relative_to(ROOT).parts[0]
        for name in imported_by(file):
            package, _, hidden = name.partition("._")
            if package.startswith("countsdiff.") and hidden:
                assert f"{package}.".startswith(f"{own}."), f"{file.relative_to(ROOT)} imports {name}"


def test_every_public_name_exists():
    from countsdiff import baselines, benchmark, core, image, metrics

    for module in (baselines, benchmark, core, image, metrics):
        assert sorted(module.__all__) == sorted(set(module.__all__))
        assert all(hasattr(module, name) for name in module.__all__)
        assert set(module.__all__) <= set(dir(module))  # which notebooks complete by
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        countsdiff.nonsense  # noqa: B018

"""What the pages tell the reader to run, runs, block by block, as it stands; their links lead somewhere."""

import re
from importlib import import_module
from pathlib import Path

import pytest

from countsdiff import CountsDiffImputer

ROOT = Path(__file__).parents[2]
GENERATED = [ROOT / "docs" / name for name in ("_build", "api/generated", "benchmarks/results", "tutorials")]
WRITTEN = [
    page
    for page in [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
    if not any(page.is_relative_to(folder) for folder in GENERATED)
]
PACKAGES = ["", *"baselines benchmark core datasets distributed image metrics nn pl pp store".split()]
PAGES = [page for page in WRITTEN if "```python" in page.read_text()]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
@pytest.mark.filterwarnings("ignore")  # ten steps of training on a hundred cells are nothing to trust
def test_examples_of_a_page(page, in_small):
    names = {"__name__": "example"}
    for block in re.finditer(r"^```python\n(.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE):
        line = page.read_text()[: block.start(1)].count("\n")
        exec(compile("\n" * line + block[1], str(page), "exec"), names)


@pytest.mark.parametrize(
    "page", [*WRITTEN, *sorted((ROOT / "tutorials").glob("*.ipynb"))], ids=lambda page: str(page.relative_to(ROOT))
)
def test_links_lead_somewhere_in_the_repository(page):
    for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        path, _, heading = link.partition("#")
        if ":" in path:
            continue
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), link
        assert not any(target.is_relative_to(folder) for folder in GENERATED), f"{link} is there once the site is built"
        assert not heading or heading in anchors(target), link


def anchors(page: Path) -> set[str]:
    """Names of the headings of a page, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("package", PACKAGES)
def test_everything_public_has_its_place_in_the_api(package):
    module = import_module(f"countsdiff.{package}".rstrip("."))
    page = (ROOT / "docs" / "api" / f"{package or 'model'}.md").read_text()
    placed = re.findall(rf"^   (?:{package}\.)?(\w+)$", page, re.MULTILINE)
    documentable = {name for name in module.__all__ if callable(getattr(module, name))}
    documentable -= {"BackboneName"}  # a type of arguments
    assert sorted(placed) == sorted(documentable)


def test_every_verb_of_the_model_has_its_place_in_the_api():
    page = (ROOT / "docs" / "api" / "model.md").read_text()
    placed = re.findall(r"^   CountsDiffImputer\.(\w+)$", page, re.MULTILINE)
    own = [base for base in CountsDiffImputer.__mro__ if base.__module__.startswith("countsdiff")]
    names = {name for base in own for name in vars(base) if name[0] != "_"}
    verbs = [name for name in names if callable(getattr(CountsDiffImputer, name))]
    assert sorted(placed) == sorted(verbs)

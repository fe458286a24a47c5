"""Damaged .h5ad files and odd options: the command line ends with 0, or with 2 and one sentence, and loses nothing.

python benchmarks/reliability/fuzz_inputs.py --n 20000 --seed 0

Runs `countsdiff impute` with a trained model, in forks of this process: what the HDF5 library does to itself with a
damaged file kills a fork only. A traceback, another exit status, no or several sentences, a changed input, files left
behind by a run that failed, or more than ten seconds (of computing; a hundred of waiting) is a defect; it is listed
with the number that repeats it. Ctrl-C ends the run with a report of what was done.
"""

import argparse
import contextlib
import faulthandler
import hashlib
import io
import os
import pickle
import re
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import anndata as ad
import h5py
import numpy as np
import pandas as pd
import torch
from scipy import sparse

sys.path.append(str(Path(__file__).parents[1]))

from _damage import BYTES
from _markdown import markdown, write_page

from countsdiff import CountsDiffImputer
from countsdiff.cli import main as command_line

BATCH, SECONDS, MEMORY = 25, 10, 8 * 2**30
RESULTS = Path(__file__).parents[1] / "results" / "reliability"


def make(folder: Path) -> None:
    """A few cells, and a model of them."""
    rng = np.random.default_rng(0)
    adata = ad.AnnData(sparse.csr_matrix(rng.poisson(1.0, (40, 12)).astype(np.float32)))
    adata.obs["batch"] = pd.Categorical(np.repeat(["x", "y"], 20))
    adata.layers["counts"] = adata.X.toarray()
    adata.layers["hidden"] = sparse.csr_matrix(rng.random((40, 12)) < 0.2)
    adata.write_h5ad(folder / "in.h5ad")
    CountsDiffImputer.setup_anndata(adata, missing_layer="hidden", batch_key="batch")
    model = CountsDiffImputer(adata, width=16)
    model.train(2, enable_progress_bar=False)
    model.save(str(folder / "model"))


def _datasets(file: h5py.File) -> list[str]:
    names: list[str] = []
    file.visititems(lambda name, item: names.append(name) if isinstance(item, h5py.Dataset) else None)
    return sorted(names)


def _value(file: h5py.File, rng: np.random.Generator) -> None:
    """One number of one matrix is none that a count can be, or extreme."""
    data = file[str(rng.choice(["X/data", "layers/counts", "layers/hidden/data"]))]
    values = data[()]
    if values.dtype == bool:
        values = values.astype(np.float32)
    junk = [-1.0, 0.5, np.nan, np.inf, -np.inf, 1e6, 1e30, -0.0]
    values.flat[rng.integers(values.size)] = rng.choice(junk)
    _replace(file, data.name, values)


def _index(file: h5py.File, rng: np.random.Generator) -> None:
    """One number of a sparse matrix's structure, or of a column's codes, is another."""
    names = [n for n in _datasets(file) if n.endswith(("indices", "indptr", "codes"))]
    data = file[str(rng.choice(names))]
    values = data[()].astype(np.int64)
    values.flat[rng.integers(values.size)] = rng.choice([-1, 0, 1, 11, 12, 40, 10**6, 2**31, 2**62])
    _replace(file, data.name, values)


def _type(file: h5py.File, rng: np.random.Generator) -> None:
    """A data set of another type."""
    data = file[str(rng.choice(_datasets(file)))]
    values = data[()]
    kind = rng.choice(["float64", "int8", "uint16", "bool", "S3", "complex64", "float16"])
    try:
        values = np.asarray(values).astype(kind)
    except (TypeError, ValueError):
        values = np.zeros(np.shape(values), kind)
    _replace(file, data.name, values)


def _shape(file: h5py.File, rng: np.random.Generator) -> None:
    """A data set that is longer, shorter, empty, or of other dimensions."""
    data = file[str(rng.choice(_datasets(file)))]
    values = np.atleast_1d(data[()])
    what = rng.integers(5)
    values = [values[:-1], values[:0], np.concatenate([values, values]), values[None], values[0]][what]
    _replace(file, data.name, values)


def _attribute(file: h5py.File, rng: np.random.Generator) -> None:
    """An attribute is gone, or says something else: also matrices of absurd sizes."""
    names = ["/", *(n for n in _all(file) if len(file[n].attrs))]
    item = file[str(rng.choice(names))]
    key = str(rng.choice(sorted(item.attrs)))
    if rng.random() < 0.3:
        del item.attrs[key]
        return
    junk = ["csr_matrix", "csc_matrix", "array", "dataframe", "nothing", "", "0.0.0", 3, -1, [0, 0], [10**12, 10**12]]
    junk += [[40, 10**12], [10**9, 12], [12, 40], [40], "_index", "batch"]
    item.attrs[key] = junk[rng.integers(len(junk))]


def _all(file: h5py.File) -> list[str]:
    names: list[str] = []
    file.visit(names.append)
    return sorted(names)


def _remove(file: h5py.File, rng: np.random.Generator) -> None:
    """Something is gone, has another name, or something else is in its place."""
    name = str(rng.choice(_all(file)))
    what = rng.integers(3)
    if what == 1:
        file.copy(name, f"{name}s")
    del file[name]
    if what == 2:
        file[name] = rng.choice(["text", 1.5])


def _names(file: h5py.File, rng: np.random.Generator) -> None:
    """Names of cells or genes repeat, are empty, in another order, or other names."""
    axis = str(rng.choice(["obs", "var"]))
    data = file[f"{axis}/_index"]
    values = data[()].astype(object)
    what = rng.integers(4)
    if what == 0:
        values[rng.integers(len(values))] = values[0]
    elif what == 1:
        values[rng.integers(len(values))] = b"" if rng.random() < 0.5 else "\N{GREEK SMALL LETTER ALPHA}".encode()
    elif what == 2:
        values = rng.permutation(values)
    else:
        values[:] = [b"other%d" % i for i in range(len(values))]
    attributes = dict(data.attrs)
    del file[f"{axis}/_index"]
    file.create_dataset(f"{axis}/_index", data=values, dtype=h5py.string_dtype())
    file[f"{axis}/_index"].attrs.update(attributes)


def _replace(file: h5py.File, name: str, values: np.ndarray) -> None:
    attributes = dict(file[name].attrs)
    del file[name]
    file[name] = values
    file[name].attrs.update(attributes)


def _structure(edit: Callable[[h5py.File, np.random.Generator], None]) -> Callable[[Path, np.random.Generator], None]:
    def damage(path: Path, rng: np.random.Generator) -> None:
        with h5py.File(path, "r+") as file:
            for _ in range(int(rng.integers(1, 3))):
                try:
                    edit(file, rng)
                except (KeyError, TypeError, ValueError, IndexError, AttributeError):
                    return  # what the first edit left cannot be edited in this way

    return damage


def _bytes(how: Callable[[bytes, np.random.Generator], bytes]) -> Callable[[Path, np.random.Generator], None]:
    def damage(path: Path, rng: np.random.Generator) -> None:
        path.write_bytes(how(path.read_bytes(), rng))

    return damage


DAMAGES: dict[str, Callable[[Path, np.random.Generator], None]] = {
    "nothing": lambda path, rng: None,
    **{name: _bytes(how) for name, how in BYTES.items() if "header" not in name},
    "values": _structure(_value),
    "indices, pointers, codes": _structure(_index),
    "types": _structure(_type),
    "shapes": _structure(_shape),
    "attributes": _structure(_attribute),
    "parts removed, renamed, exchanged": _structure(_remove),
    "names of cells and genes": _structure(_names),
}
OPTIONS = [
    *([f"--layer={name}"] for name in ("counts", "hidden", "nix", "")),
    *([f"--missing-layer={name}"] for name in ("hidden", "counts", "nix")),
    *([f"--output={name}"] for name in ("mean", "median", "log_mean", "sample", "nix")),
    *([f"--n-samples={n}"] for n in (1, 2, 0, -1, "two")),
    *([f"--seed={n}"] for n in (0, -1, 2**40, "x")),
    *([f"--workers={n}"] for n in (1, 0, "x")),
    *([f"--key-added={name}"] for name in ("imputed", "counts", "a/b", "")),
    ["--genes=5"],
    ["--steps=0"],
    ["--batch-key=batch"],
    ["--nix"],
    ["more.h5ad"],
]


def attempt(seed: int, folder: Path) -> tuple[str, str]:
    """Damage a copy of the data, run the command on it; return how, and what came of it."""
    rng = np.random.default_rng(seed)
    damage = str(rng.choice(list(DAMAGES)))
    work = folder / f"work{os.getpid()}"
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir()
    source, out = work / "in.h5ad", work / "out.h5ad"
    shutil.copyfile(folder / "in.h5ad", source)
    DAMAGES[damage](source, rng)
    n_options = int(rng.choice([0, 1, 2]))
    options = [option for i in rng.integers(len(OPTIONS), size=n_options) for option in OPTIONS[i]]
    before = hashlib.sha256(source.read_bytes()).digest()
    said, complained = io.StringIO(), io.StringIO()
    try:
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(complained):
            status = command_line(
                ["impute", str(source), "-o", str(out), "--model", str(folder / "model"), "-q", *options]
            )
    except BaseException as error:  # noqa: BLE001  # what is looked for
        where = traceback.extract_tb(error.__traceback__)[-1]
        return (
            damage,
            f"{options} {type(error).__name__}: {str(error)[:200]} ({Path(where.filename).name}:{where.lineno})",
        )
    sentences = complained.getvalue().strip().splitlines()
    left = sorted(p.name for p in work.iterdir())
    if hashlib.sha256(source.read_bytes()).digest() != before:
        return damage, f"{options} the input changed"
    if status == 0 and left == ["in.h5ad", "out.h5ad"]:
        return damage, "imputed"
    if status == 2 and left == ["in.h5ad"] and len(sentences) == 1 and len(sentences[0]) < 1_000:
        return damage, "refused"
    return damage, f"{options} exit {status}, files {left}, said {complained.getvalue()[:300]!r}"


def _attempt_all(seeds: list[int], folder: Path, write: int) -> None:
    with os.fdopen(write, "wb") as pipe:
        for seed in seeds:
            signal.setitimer(signal.ITIMER_PROF, SECONDS)
            signal.alarm(10 * SECONDS)
            pickle.dump((seed, *attempt(seed, folder)), pipe)
            pipe.flush()


def run_batch(seeds: list[int], folder: Path) -> list[tuple[int, str, str]]:
    """Attempts in a fork; those after one that killed it are done in another."""
    results: list[tuple[int, str, str]] = []
    while seeds:
        read, write = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(read)
            resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
            with (folder / "killed").open("w") as where:  # stays open as long as the fork lives
                faulthandler.enable(where, all_threads=False)
                for too_long in (signal.SIGPROF, signal.SIGALRM):
                    faulthandler.register(too_long, where, all_threads=False, chain=True)
                _attempt_all(seeds, folder, write)
            os._exit(0)
        os.close(write)
        with os.fdopen(read, "rb") as pipe:
            with contextlib.suppress(EOFError):
                while True:
                    results.append(pickle.load(pipe))  # from a fork of this process
        _, status = os.waitpid(child, 0)
        shutil.rmtree(folder / f"work{child}", ignore_errors=True)
        seeds = [seed for seed in seeds if seed not in {r[0] for r in results}]
        if seeds and os.WIFSIGNALED(status):
            at = re.search(r'File "(.+?)", line (\d+)', (folder / "killed").read_text())
            place = "/".join([*Path(at[1]).parts[-3:]]) + f":{at[2]}" if at else "nobody knows where"
            results.append((seeds.pop(0), "unknown", f"killed by signal {os.WTERMSIG(status)} in {place}"))
    return results


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", type=int, default=20_000, help="number of damaged files (default: 20000)")
    parser.add_argument("--seed", type=int, default=0, help="of the first; the others follow (default: 0)")
    parser.add_argument("--write", action="store_true", help="write the report to benchmarks/results/reliability")
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)  # a fork has none of its parent's threads
    counts: Counter[tuple[str, str]] = Counter()
    defects, start = [], time.perf_counter()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make(folder)
        with contextlib.suppress(KeyboardInterrupt):
            for first in range(args.seed, args.seed + args.n, BATCH):
                last = min(first + BATCH, args.seed + args.n)
                for seed, damage, outcome in run_batch(list(range(first, last)), folder):
                    if outcome not in ("imputed", "refused"):
                        defects.append(f"seed {seed}, {damage}: {outcome}")
                        print(defects[-1], flush=True)
                        outcome = "defect"
                    counts[damage, outcome] += 1
    kinds = [*DAMAGES, *(["unknown"] if counts["unknown", "defect"] else [])]
    table = pd.DataFrame([{"damage": d, **{o: counts[d, o] for o in ("imputed", "refused", "defect")}} for d in kinds])
    table.loc[len(table)] = {"damage": "all", **table.drop(columns="damage").sum()}
    text = "\n".join([markdown(table), "", f"Defects: {len(defects)}.", *(f"- {defect}" for defect in defects)])
    print(text, f"{time.perf_counter() - start:.0f} s", sep="\n")
    if args.write:
        about = f"{__doc__}\nRun with --seed {args.seed}."
        write_page(RESULTS / "fuzz_inputs.md", "# Damaged input", about, text)
    return 1 if defects else 0


if __name__ == "__main__":
    sys.exit(main())

"""Data whose matrices stay on disk."""

import anndata as ad
import h5py
import numpy as np
import pandas as pd
import pytest
import torch
import zarr
from scipy import sparse

from countsdiff import CountsDiffImputer
from countsdiff.counts import CellReader, check_boolean, is_on_disk, read_rows
from countsdiff.model import _loading
from countsdiff.model._loading import _BLOCK, BlockLoader, CellsInOrder
from countsdiff.store import open_store

N_OBS = 700  # of which two minibatches are for validation


@pytest.fixture(scope="module")
def stores(tmp_path_factory, make_adata):
    """The same data in every kind of store, opened, and in memory."""
    folder = tmp_path_factory.mktemp("stores")
    adata = make_adata(n_obs=N_OBS)
    adata.layers["counts"] = adata.X.copy()
    adata.layers["dense"] = adata.X.toarray()
    adata.layers["hidden"] = sparse.csr_matrix(np.random.default_rng(0).random(adata.shape) < 0.1)
    adata.layers["dense hidden"] = adata.layers["hidden"].toarray()
    adata.write_h5ad(folder / "a.h5ad", compression="gzip")
    adata.write_zarr(folder / "a.zarr")
    return {"memory": adata, "h5ad": open_store(folder / "a.h5ad"), "zarr": open_store(folder / "a.zarr")}


@pytest.mark.parametrize("kind", ["h5ad", "zarr"])
@pytest.mark.parametrize("layer", ["counts", "dense", "hidden"])
def test_rows_in_any_order(stores, kind, layer):
    matrix, known = stores[kind].layers[layer], stores["memory"].layers[layer]
    known = known.toarray() if sparse.issparse(known) else known
    assert is_on_disk(matrix)
    for rows in ([3, 4, 5, 9, 699], [7], list(range(100)), []):
        block = read_rows(matrix, np.array(rows, dtype=np.intp))
        np.testing.assert_array_equal(block.toarray() if sparse.issparse(block) else block, known[rows])
    for rows in ([9, 3, 3, 699, 4], [5, 4, 3]):
        np.testing.assert_array_equal(CellReader(matrix)(np.array(rows))[0], known[rows].astype(np.float32))


def test_other_matrices_are_in_memory(stores):
    assert not any(is_on_disk(stores["memory"].layers[layer]) for layer in ("counts", "dense"))


@pytest.fixture(params=[20, 128], ids=["pools", "one pool"])
def loader(stores, request, monkeypatch):
    monkeypatch.setattr(_loading, "_POOL", request.param)
    adata = stores["h5ad"]
    CountsDiffImputer.setup_anndata(adata, layer="counts", missing_layer="hidden", labels_key="kind")
    manager = CountsDiffImputer(adata).adata_manager
    return BlockLoader(manager, np.arange(0, N_OBS, 2), 32)


def test_an_epoch_has_every_cell_once_with_all_that_belongs_to_it(stores, loader):
    known = {tuple(row): i for i, row in enumerate(stores["memory"].X.toarray())}
    batches = list(loader)
    assert [len(b["X"]) for b in batches] == [32] * 10 + [30]
    assert len(loader) == len(batches)
    cells = [known[tuple(row)] for b in batches for row in b["X"].numpy()]
    assert sorted(cells) == list(range(0, N_OBS, 2))
    assert cells != sorted(cells)
    labels = np.concatenate([b["labels"].numpy().ravel() for b in batches])
    np.testing.assert_array_equal(np.array(["a", "b"])[labels], stores["memory"].obs["kind"].to_numpy()[cells])
    missing = np.concatenate([b["missing"].numpy() for b in batches])
    np.testing.assert_array_equal(missing, stores["memory"].layers["hidden"].toarray()[cells])


def test_minibatches_are_not_of_neighbours(stores, loader):
    known = {tuple(row): i for i, row in enumerate(stores["memory"].X.toarray())}
    for batch in list(loader)[:-1]:
        blocks = {known[tuple(row)] // (2 * _BLOCK) for row in batch["X"].numpy()}
        assert len(blocks) > 8  # of sixteen


def test_minibatches_larger_than_the_data(stores):
    manager = CountsDiffImputer(stores["zarr"]).adata_manager
    assert [len(b["X"]) for b in BlockLoader(manager, np.arange(N_OBS), 10_000)] == [N_OBS]


@pytest.mark.parametrize("pool", [4, 128])
def test_training_does_not_depend_on_the_kind_of_store(stores, train, pool, monkeypatch):
    monkeypatch.setattr(_loading, "_POOL", pool)
    kinds = [("h5ad", "counts", "hidden"), ("zarr", "dense", "dense hidden")]
    if pool == 128:  # has room for all cells, which then come in the order that they have in memory
        kinds.append(("memory", "counts", "hidden"))
    results = []
    for kind, layer, missing in kinds:
        model = train(stores[kind], max_steps=110, layer=layer, missing_layer=missing, labels_key="kind")
        results.append((model.impute(inplace=False), model.history["validation_loss"].to_numpy()))
    for first, *others in zip(*results, strict=True):
        for other in others:
            np.testing.assert_array_equal(first, other)


def test_cells_are_read_in_the_order_asked_for(stores):
    for kind in ("h5ad", "zarr"):
        adata = stores[kind]
        CountsDiffImputer.setup_anndata(adata, layer="dense", missing_layer="dense hidden", batch_key="batch")
        rows = np.array([5, 3, 699, 4, 4])
        first, second = CellsInOrder(CountsDiffImputer(adata).adata_manager, rows, 3)
        x, missing = (torch.cat([first[key], second[key]]).numpy() for key in ("X", "missing"))
        np.testing.assert_array_equal(x, stores["memory"].layers["dense"][rows])
        np.testing.assert_array_equal(missing, stores["memory"].layers["dense hidden"][rows])
        batches = torch.cat([first["batch"], second["batch"]]).numpy().ravel()
        assert [*np.array(["x", "y", "z"])[batches]] == [*stores["memory"].obs["batch"].iloc[rows]]


def test_imputes_as_in_memory(stores, train):
    model = train(stores["memory"], max_steps=5, layer="counts", missing_layer="hidden")
    expected = model.impute(inplace=False, output="sample")
    for kind in ("h5ad", "zarr"):
        np.testing.assert_array_equal(model.impute(stores[kind], inplace=False, output="sample"), expected)


def test_queries_of_other_genes_as_in_memory(stores, make_adata, train):
    reference = train(make_adata(seed=3), max_steps=5)
    names = ["new gene", *stores["memory"].var_names[:0:-1]]  # one that the reference lacks, and the others backwards
    answers = {}
    for kind, adata in stores.items():
        matrix = adata.layers["counts"] if kind != "memory" else adata.layers["counts"].copy()
        query = ad.AnnData(matrix, obs=adata.obs[["kind"]], var=pd.DataFrame(index=names))
        with pytest.warns(UserWarning, match="1 of the 30 genes are unknown"):
            model = CountsDiffImputer.load_query_data(query, reference, adapt_means=False)
        answers[kind] = model.impute(inplace=False)
    for kind in ("h5ad", "zarr"):
        np.testing.assert_array_equal(answers[kind], answers["memory"])


@pytest.mark.parametrize("kind", ["memory", "h5ad", "zarr"])
@pytest.mark.parametrize("as_sparse", [False, True])
def test_marks_may_be_whole_numbers(stores, kind, as_sparse, tmp_path):
    marks = np.asarray(stores["memory"].layers["hidden"].toarray(), dtype=np.int8)
    adata = ad.AnnData(
        stores["memory"].layers["counts"], layers={"marks": sparse.csr_matrix(marks) if as_sparse else marks}
    )
    if kind != "memory":
        getattr(adata, f"write_{kind}")(tmp_path / f"a.{kind}")
        adata = open_store(tmp_path / f"a.{kind}")
    check_boolean(adata.layers["marks"])
    marks[600, 3] = 2
    adata.layers["marks"] = sparse.csr_matrix(marks) if as_sparse else marks
    with pytest.raises(ValueError, match="holds .*2.*; it must be boolean"):
        check_boolean(adata.layers["marks"])


@pytest.mark.parametrize("n", [20, 100, 999])
def test_cells_that_stand_for_all_come_from_everywhere(n):
    reader = CellReader(np.zeros((1_000, 2), dtype=np.float32))
    rows = reader.spread(n)
    assert n <= len(rows) < n + 16
    assert (np.diff(rows) > 0).all()
    assert (rows[0], rows[-1]) == (0, 999)
    assert np.diff(rows).max() <= 1 + 1_000 // (n // 16)
    assert reader.spread(1_000).tolist() == reader.spread(5_000).tolist() == list(range(1_000))


def test_columns_first_are_read_into_memory(tmp_path, make_adata, train):
    adata = make_adata()
    model = train(adata, max_steps=5)
    expected = model.impute(inplace=False)
    columns_first = ad.AnnData(adata.X.tocsc(), obs=adata.obs, var=adata.var)
    columns_first.write_h5ad(tmp_path / "a.h5ad")
    np.testing.assert_array_equal(model.impute(open_store(tmp_path / "a.h5ad"), inplace=False), expected)


def test_what_is_no_store_is_said_so(tmp_path):
    (tmp_path / "text.h5ad").write_text("no store")
    (tmp_path / "empty.zarr").mkdir()
    with h5py.File(tmp_path / "other.h5ad", "w") as file:
        file["numbers"] = [1, 2]
    zarr.open_group(tmp_path / "other.zarr", mode="w")
    for name in ("absent.h5ad", "text.h5ad", "empty.zarr", "other.h5ad", "other.zarr"):
        with pytest.raises(ValueError, match=name):
            open_store(tmp_path / name)


def test_a_refused_store_can_be_written_again(tmp_path, make_adata):
    adata, file = make_adata(), tmp_path / "a.h5ad"
    adata.write_h5ad(file)
    with h5py.File(file, "a") as content:
        del content["obs"]
    with pytest.raises(ValueError, match="write it again") as error:
        open_store(file)
    adata.write_h5ad(file)  # while the error, and so what led to it, is still looked at
    assert open_store(file).shape == adata.shape, error


def test_a_part_of_data_on_disk_is_refused(tmp_path, make_adata, train):
    make_adata(40, 12).write_h5ad(tmp_path / "cells.h5ad")
    part, model = ad.read_h5ad(tmp_path / "cells.h5ad", backed="r")[:10], train(make_adata(40, 12))
    for use in (CountsDiffImputer.setup_anndata, model.impute):
        with pytest.raises(ValueError, match=r"read it first: adata = adata.to_memory\(\)"):
            use(part)


def test_data_on_disk_stay_where_they_are_when_saved_with_a_model(tmp_path, make_adata, train):
    make_adata().write_h5ad(tmp_path / "cells.h5ad")
    adata = ad.read_h5ad(tmp_path / "cells.h5ad", backed="r")
    model = train(adata)
    counts = adata.X[:]
    model.save(tmp_path / "model", save_anndata=True)
    assert adata.filename == tmp_path / "cells.h5ad"
    saved = ad.read_h5ad(tmp_path / "model" / "adata.h5ad")
    for matrix in (adata.X[:], saved.X):
        np.testing.assert_array_equal(matrix.toarray(), counts.toarray())


def test_lazy_sparse_matrices_are_to_be_read_first(make_adata):
    dask = pytest.importorskip("dask.array")
    adata = make_adata()
    adata.X = dask.from_array(adata.X.toarray(), chunks=(50, -1)).map_blocks(sparse.csr_matrix)
    with pytest.raises(ValueError, match="adata.to_memory"):
        CountsDiffImputer.setup_anndata(adata)

"""Chunks give what the whole gives, whoever works on them and however often everything is killed."""

import filecmp
import gc
import os
import re
import shutil
import signal
from collections import namedtuple
from contextlib import nullcontext
from types import SimpleNamespace

import anndata as ad
import filelock
import h5py
import numpy as np
import pytest
import torch
from scipy import sparse

from countsdiff import CountsDiffImputer, distributed
from countsdiff.cli import main
from countsdiff.counts import as_row_access
from countsdiff.distributed._chunk import answer, saved_model
from countsdiff.distributed._impute import _working
from countsdiff.distributed._plan import Plan
from countsdiff.files import unfinished


@pytest.fixture(scope="module")
def folder(tmp_path_factory, make_adata, hidden):
    """A saved model, and its data as .h5ad and zarr."""
    folder = tmp_path_factory.mktemp("chunks")
    adata = make_adata()
    adata.layers["hidden"] = sparse.csr_matrix(hidden)
    adata.layers["none"] = sparse.csr_matrix(adata.shape, dtype=bool)
    CountsDiffImputer.setup_anndata(adata, missing_layer="hidden", labels_key="kind")
    model = CountsDiffImputer(adata, width=32)
    model.train(20, batch_size=32, enable_progress_bar=False)
    model.save(str(folder / "model"))
    model.impute(interval=0.9)
    model.impute(output="sample", n_samples=2, key_added="draw")
    adata.write_h5ad(folder / "expected.h5ad")
    for name in ("imputed", "imputed_lower", "imputed_upper", "draw_0", "draw_1"):
        del adata.layers[name]
    del adata.uns["countsdiff"]
    adata.write_h5ad(folder / "data.h5ad")
    adata.write_zarr(folder / "data.zarr")
    return folder


@pytest.fixture(scope="module")
def client():
    """A cluster of two workers, whose processes take longer to start than to do what is asked of them here."""
    pytest.importorskip("distributed", reason="countsdiff[distributed] is not installed")
    with distributed.local_client(2) as client:
        yield client


@pytest.fixture
def run_in_memory():
    """The command line, which has all cells in memory where it has no workers."""

    def run(source, model, missing):
        out = source.with_name("in_memory.h5ad")
        marks = [] if missing is None else ["--missing-layer", missing]
        assert main(["impute", str(source), "--out", str(out), "--model", str(model), "--quiet", *marks]) == 0
        return out

    return run


@pytest.fixture(scope="module")
def expected(folder):
    return ad.read_h5ad(folder / "expected.h5ad")


def dense(matrix):
    return matrix.toarray() if sparse.issparse(matrix) else np.asarray(matrix)


def read(path):
    return ad.read_zarr(path) if path.suffix == ".zarr" else ad.read_h5ad(path)


@pytest.mark.parametrize("kind", ["h5ad", "zarr"])
@pytest.mark.parametrize("chunk_size", [7, 1000])
def test_same_as_the_whole(folder, expected, tmp_path, kind, chunk_size):
    before = (folder / "data.h5ad").read_bytes()
    out = distributed.impute(
        folder / f"data.{kind}", folder / "model", out=tmp_path / f"a.{kind}", chunk_size=chunk_size, interval=0.9
    )
    result = read(out)
    for name in ("imputed", "imputed_lower", "imputed_upper"):
        np.testing.assert_array_equal(dense(result.layers[name]), dense(expected.layers[name]))
    for name, value in expected.uns["countsdiff"]["imputed"].items():
        np.testing.assert_array_equal(result.uns["countsdiff"]["imputed"][name], value, err_msg=name)
    np.testing.assert_array_equal(result.X.toarray(), expected.X.toarray())
    assert list(result.obs_names) == list(expected.obs_names)
    assert (folder / "data.h5ad").read_bytes() == before
    assert sorted(p.name for p in tmp_path.iterdir()) == [f"a.{kind}"]


def test_samples_do_not_depend_on_chunks(folder, expected, tmp_path):
    options = {"output": "sample", "n_samples": 2, "key_added": "draw", "chunk_size": 13}
    result = read(distributed.impute(folder / "data.h5ad", folder / "model", out=tmp_path / "a.h5ad", **options))
    for name in ("draw_0", "draw_1"):
        np.testing.assert_array_equal(dense(result.layers[name]), dense(expected.layers[name]))


def test_chunks_are_not_kept(folder, tmp_path):
    """Memory is bounded by the chunk: scvi-tools holds on to all data that a model has seen, unless told otherwise."""
    counts = []

    def count(done, total):
        gc.collect()
        counts.append(sum(isinstance(thing, ad.AnnData) for thing in gc.get_objects()))

    distributed.impute(folder / "data.h5ad", folder / "model", out=tmp_path / "a.h5ad", chunk_size=23, callback=count)
    assert counts[-1] <= counts[1]


def test_what_was_written_anew_is_read_anew(folder, tmp_path):
    """A process keeps store and model open between chunks, but not beyond them."""
    store, model_dir = tmp_path / "data.h5ad", tmp_path / "model"
    shutil.copy(folder / "data.h5ad", store)
    shutil.copytree(folder / "model", model_dir)
    distributed.impute(store, model_dir, out=tmp_path / "a.h5ad")
    adata = ad.read_h5ad(store)
    adata.X = adata.X * 2
    adata.write_h5ad(store)
    model = CountsDiffImputer.load(model_dir, adata=False)
    with torch.no_grad():
        model.module.averaged.module.calibration.level.fill_(0.5)
    model.save(model_dir, overwrite=True)
    imputed = read(distributed.impute(store, model_dir, out=tmp_path / "b.h5ad")).layers["imputed"]
    np.testing.assert_array_equal(dense(imputed), model.impute(adata, inplace=False))


def test_default_output_is_beside_the_input(folder, tmp_path):
    shutil.copy(folder / "data.h5ad", tmp_path / "data.h5ad")
    assert distributed.impute(tmp_path / "data.h5ad", folder / "model") == tmp_path / "data.imputed.h5ad"


def test_sparse_counts_stay_sparse_with_64_bit_pointers(tmp_path, make_adata, train):
    adata = make_adata()
    adata.X = adata.X.multiply(np.random.default_rng(0).random(adata.shape) < 0.1).tocsr()
    adata.layers["hidden"] = sparse.csr_matrix(np.random.default_rng(1).random(adata.shape) < 0.05)
    train(adata, max_steps=5, missing_layer="hidden").save(str(tmp_path / "model"))
    adata.write_h5ad(tmp_path / "data.h5ad")
    imputed = read(distributed.impute(tmp_path / "data.h5ad", tmp_path / "model", chunk_size=11)).layers["imputed"]
    assert sparse.issparse(imputed)
    with h5py.File(tmp_path / "data.imputed.h5ad") as file:
        assert file["layers/imputed/indptr"].dtype == np.int64


def test_what_is_missing_is_decided_by_all_chunks(tmp_path, make_adata, train):
    """Cells without missing entries keep their zeros where other cells have some."""
    adata = make_adata()
    x = adata.X.toarray()
    x[:5, :5] = np.nan
    adata.X = x
    train(adata, max_steps=5).save(str(tmp_path / "model"))
    adata.write_h5ad(tmp_path / "data.h5ad")
    imputed = read(distributed.impute(tmp_path / "data.h5ad", tmp_path / "model", chunk_size=10)).layers["imputed"]
    np.testing.assert_array_equal(imputed[10:], x[10:])
    assert np.isfinite(imputed).all()


def test_genes_the_model_does_not_know_keep_their_counts(folder, expected, tmp_path, make_adata):
    adata = ad.read_h5ad(folder / "data.h5ad")
    others = adata[:, :4].copy()
    others.var_names = [f"unknown{i}" for i in range(4)]
    wider = ad.concat([others, adata[:, ::-1]], axis=1, merge="first")
    wider.write_h5ad(tmp_path / "wider.h5ad")
    result = read(distributed.impute(tmp_path / "wider.h5ad", folder / "model", chunk_size=17))
    imputed = dense(result[:, expected.var_names].layers["imputed"])
    np.testing.assert_array_equal(imputed, dense(expected.layers["imputed"]))
    seen = ~dense(others.layers["hidden"])
    np.testing.assert_array_equal(dense(result.layers["imputed"])[:, :4][seen], others.X.toarray()[seen])


@pytest.mark.parametrize("named", [None, "marks"])
def test_what_is_missing_of_other_genes(folder, tmp_path, run_in_memory, named):
    """They decide nothing, and come back as NaN, as in memory."""
    adata = ad.read_h5ad(folder / "data.h5ad")
    del adata.layers["hidden"], adata.layers["none"]
    others = adata[:, :4].copy()
    others.var_names = [f"unknown{i}" for i in range(4)]
    others.X = np.where(np.random.default_rng(0).random(others.shape) < 0.3, np.nan, others.X.toarray())
    wider = ad.concat([others, ad.AnnData(adata.X.toarray(), adata.obs, adata.var)], axis=1, merge="first")
    if named is not None:
        wider.layers[named] = np.isnan(wider.X)
        wider.X = np.nan_to_num(wider.X)
    wider.write_h5ad(tmp_path / "wider.h5ad")
    done = [
        distributed.impute(tmp_path / "wider.h5ad", folder / "model", missing=named, chunk_size=17),
        run_in_memory(tmp_path / "wider.h5ad", folder / "model", missing=named),
    ]
    chunked, whole = map(read, done)
    np.testing.assert_array_equal(dense(chunked.layers["imputed"]), dense(whole.layers["imputed"]))
    assert np.isnan(dense(chunked.layers["imputed"])[:, :4]).sum() == np.isnan(others.X).sum()
    records = [adata.uns["countsdiff"]["imputed"] for adata in (chunked, whole)]
    assert records[0]["n_imputed"] == records[1]["n_imputed"]
    assert records[0]["rewrite"] == records[1]["rewrite"] == ("zeros" if named is None else "missing")


class Killed(BaseException):
    """What no handler for errors catches."""


@pytest.mark.parametrize("chunk_size", [40, 1000])
def test_nothing_of_the_input_changes(tmp_path, make_adata, train, chunk_size):
    # dense layers, which scvi-tools puts in another order in memory, of more genes than the model knows
    adata = make_adata()
    adata.layers["counts"] = adata.X.toarray().astype(np.int32)
    adata.layers["hidden"] = np.random.default_rng(0).random(adata.shape) < 0.1
    known = adata[:, :20].copy()
    train(known, max_steps=5, layer="counts", missing_layer="hidden").save(str(tmp_path / "model"))
    adata.write_h5ad(tmp_path / "a.h5ad")
    out = distributed.impute(tmp_path / "a.h5ad", tmp_path / "model", chunk_size=chunk_size, interval=0.9)
    result = ad.read_h5ad(out)
    assert {*result.layers} - {None} == {"counts", "hidden", "imputed", "imputed_lower", "imputed_upper"}
    for name in ("counts", "hidden"):
        assert result.layers[name].dtype == adata.layers[name].dtype
        np.testing.assert_array_equal(result.layers[name], adata.layers[name])
    # a second result by that name without intervals leaves none of the first behind
    again = ad.read_h5ad(distributed.impute(out, tmp_path / "model", out=tmp_path / "again.h5ad"))
    assert {*again.layers} - {None} == {"counts", "hidden", "imputed"}


def interrupt_after(n):
    def callback(done, total):
        if done == n:
            raise Killed

    return callback


@pytest.mark.parametrize("kind", ["h5ad", "zarr"])
def test_resumes_and_writes_the_same_bytes(folder, tmp_path, kind):
    arguments = {"store": folder / f"data.{kind}", "model_dir": folder / "model", "chunk_size": 10}
    whole = distributed.impute(**arguments, out=tmp_path / f"whole.{kind}")
    out = tmp_path / f"out.{kind}"
    with pytest.raises(Killed):
        distributed.impute(**arguments, out=out, callback=interrupt_after(4))
    assert not out.exists()
    # a file that was cut short by a crash is no answer
    cut = sorted((tmp_path / f"out.{kind}.parts").rglob("rows-*.safetensors"))[1]
    cut.write_bytes(cut.read_bytes()[:-3])
    done = []
    distributed.impute(**arguments, out=out, callback=lambda *progress: done.append(progress))
    assert done == [(4, 9), (5, 9), (6, 9), (7, 9), (8, 9), (9, 9)]
    if kind == "h5ad":
        assert filecmp.cmp(whole, out, shallow=False)
    else:
        files = [p.relative_to(whole) for p in whole.rglob("*") if p.is_file()]
        assert filecmp.cmpfiles(whole, out, files, shallow=False)[0] == files


def test_unfinished_work_of_other_settings_is_not_mixed_in(folder, tmp_path):
    arguments = {"store": folder / "data.h5ad", "model_dir": folder / "model", "out": tmp_path / "a.h5ad"}
    with pytest.raises(Killed):
        distributed.impute(**arguments, chunk_size=10, callback=interrupt_after(1))
    with pytest.raises(ValueError, match=r"a\.h5ad\.parts: .*chunk_size"):
        distributed.impute(**arguments, chunk_size=11)


def test_workers_of_an_earlier_run_come_too_late(folder, tmp_path):
    arguments = {"store": folder / "data.h5ad", "model_dir": folder / "model", "chunk_size": 40}
    draws = {"output": "sample", "seed": 1}
    out, parts = tmp_path / "out.h5ad", tmp_path / "out.h5ad.parts"
    earlier = Plan.make(folder / "data.h5ad", folder / "model", None, None, "imputed", 40, "cpu", draws)

    def late(done, total):
        with pytest.raises(OSError, match="No such file"):
            answer(parts / earlier.name, earlier.rows, 80, 90)

    with pytest.raises(Killed):
        distributed.impute(**arguments, **draws, out=out, callback=interrupt_after(1), accelerator="cpu")
    assert [path.name for path in parts.iterdir() if path.is_dir()] == [earlier.name]
    shutil.rmtree(parts)  # as the message of the test above has it
    draws = draws | {"seed": 2}
    distributed.impute(**arguments, **draws, out=out, callback=late)
    undisturbed = distributed.impute(**arguments, **draws, out=tmp_path / "undisturbed.h5ad")
    assert filecmp.cmp(out, undisturbed, shallow=False)


@pytest.mark.parametrize("changed", ["data.h5ad", "data.zarr", "model"])
def test_what_changes_meanwhile_is_not_mixed_in(folder, tmp_path, changed):
    kind = "zarr" if changed == "data.zarr" else "h5ad"
    for name in (f"data.{kind}", "model"):
        copy = shutil.copytree if (folder / name).is_dir() else shutil.copy
        copy(folder / name, tmp_path / name)

    def change(done, total):
        if done == 2:
            files = (tmp_path / changed).rglob("[md]*") if (tmp_path / changed).is_dir() else [tmp_path / changed]
            for file in files:
                os.utime(file, (1, 1))
            saved_model.cache_clear()  # as of a worker that takes over from another

    with pytest.raises(ValueError, match=f"{changed}: this was changed while it was in use"):
        distributed.impute(
            tmp_path / f"data.{kind}", tmp_path / "model", out=tmp_path / f"out.{kind}", chunk_size=20, callback=change
        )
    assert not (tmp_path / f"out.{kind}").exists()


def test_a_model_is_told_by_its_own_files(folder, tmp_path):
    """A job may keep its log in the folder."""
    shutil.copytree(folder / "model", tmp_path / "model")
    arguments = {"store": folder / "data.h5ad", "model_dir": tmp_path / "model", "out": tmp_path / "out.h5ad"}
    with pytest.raises(Killed):
        distributed.impute(**arguments, chunk_size=40, callback=interrupt_after(1))
    (tmp_path / "model" / "job.log").write_text("cut short")
    done = []
    distributed.impute(**arguments, chunk_size=40, callback=lambda *progress: done.append(progress))
    assert done == [(2, 3), (3, 3)]


def test_workers_get_paths_as_they_were_given(folder, tmp_path):
    """A link may lead elsewhere on the machine of a worker."""
    (tmp_path / "data").symlink_to(folder)
    plan = Plan.make(tmp_path / "data" / "data.h5ad", tmp_path / "data" / "model", None, None, "imputed", 40, "cpu", {})
    assert plan.rows.store.path == str(tmp_path / "data" / "data.h5ad")
    assert plan.rows.model.path == str(tmp_path / "data" / "model")
    assert unfinished(tmp_path / "data" / "out.h5ad") == tmp_path / "data" / "out.h5ad.parts"


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="the system does not list the files that are open")
def test_nothing_is_removed_while_it_is_open(folder, tmp_path, monkeypatch):
    """NFS keeps the file of a lock in its folder as long as it is open, and the folder could not be removed."""
    remove, removed = shutil.rmtree, []

    def watch(path, **kwargs):
        opened = [os.path.realpath(f"/proc/self/fd/{fd}") for fd in os.listdir("/proc/self/fd")]
        assert not [file for file in opened if file.startswith(str(path))]
        removed.append(path)
        remove(path, **kwargs)

    monkeypatch.setattr(shutil, "rmtree", watch)
    out = distributed.impute(folder / "data.h5ad", folder / "model", out=tmp_path / "out.h5ad")
    assert len(removed) == 1
    assert list(tmp_path.iterdir()) == [out]


def test_a_folder_is_a_zarr_store_whatever_its_name(folder, expected, tmp_path):
    shutil.copytree(folder / "data.zarr", tmp_path / "atlas")
    out = distributed.impute(tmp_path / "atlas", folder / "model")
    assert out == tmp_path / "atlas.imputed.zarr"
    np.testing.assert_array_equal(dense(ad.read_zarr(out).layers["imputed"]), dense(expected.layers["imputed"]))
    shutil.copy(folder / "data.h5ad", tmp_path / "atlas.h5")
    assert distributed.impute(tmp_path / "atlas.h5", folder / "model").name == "atlas.imputed.h5ad"


def test_a_matrix_by_columns_is_read_once(folder, expected, tmp_path, monkeypatch):
    adata = ad.read_h5ad(folder / "data.h5ad")
    adata.X = adata.X.tocsc()
    adata.write_h5ad(tmp_path / "in.h5ad")
    read_whole = []
    monkeypatch.setattr(
        "countsdiff.distributed._chunk.as_row_access", lambda matrix: read_whole.append(1) or as_row_access(matrix)
    )
    out = distributed.impute(tmp_path / "in.h5ad", folder / "model", chunk_size=10)
    assert len(read_whole) == 2  # counts, and marks of missing entries; of nine chunks
    np.testing.assert_array_equal(dense(ad.read_h5ad(out).layers["imputed"]), dense(expected.layers["imputed"]))


@pytest.mark.parametrize("strange", [10**6, -5])
def test_a_damaged_matrix_by_columns_is_told(folder, tmp_path, strange):
    adata = ad.read_h5ad(folder / "data.h5ad")
    adata.X = adata.X.tocsc()
    adata.X.indices[7] = strange
    adata.write_h5ad(tmp_path / "in.h5ad")
    with pytest.raises(ValueError, match=r"adata\.X is damaged: indices"):
        distributed.impute(tmp_path / "in.h5ad", folder / "model")


@pytest.mark.parametrize(
    ("error", "arguments", "says"),
    [
        ("KilledWorker", ("work", None, 3), "Workers died of the rows 8,192 to 16,384"),
        ("CancelledError", ("connection lost",), "cluster is gone. Start again"),
    ],
)
def test_a_cluster_that_fails(monkeypatch, error, arguments, says):
    dask = pytest.importorskip("distributed", reason="countsdiff[distributed] is not installed")

    class Future:
        def result(self):
            raise getattr(dask, error)(*arguments)

    monkeypatch.setattr(dask, "as_completed", iter)
    cancelled = []
    cluster = SimpleNamespace(
        submit=lambda *args, **kwargs: Future(), cancel=lambda futures: cancelled.append(len(futures))
    )
    with (
        pytest.raises(OSError, match=re.escape(says)),
        _working(cluster, lambda start, stop: start, [(8192, 16384)]) as working,
    ):
        list(working)
    assert cancelled == [1]


def test_two_processes_on_one_output(folder, tmp_path):
    (tmp_path / "a.h5ad.parts").mkdir()
    with filelock.FileLock(tmp_path / "a.h5ad.parts" / "lock"), pytest.raises(ValueError, match="another process"):
        distributed.impute(folder / "data.h5ad", folder / "model", out=tmp_path / "a.h5ad")


def test_says_what_does_not_fit_on_the_disk(folder, tmp_path, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10**6, 10**6 - 1000, 1000))
    with pytest.raises(OSError, match=r"GB are free"):
        distributed.impute(folder / "data.h5ad", folder / "model", out=tmp_path / "a.h5ad")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"chunk_size": 0}, "chunk_size"),
        ({"output": "medium"}, "medium"),
        ({"missing": "nix"}, "nix"),
        ({"missing": "label_zeros"}, "chunks see a part"),
        ({"key_added": "a/b"}, "a/b"),
        ({"layer": "nix"}, "nix"),
        ({"out": "data.h5ad"}, "overwrite the input"),
        ({"out": "imputed.zarr"}, "let its name end in .h5ad"),
        ({"indices": [0]}, "no argument 'indices'"),
        ({"client": "tcp://node:8786"}, "got 'tcp://node:8786'"),
    ],
)
def test_bad_arguments_leave_nothing_behind(folder, monkeypatch, arguments, message):
    monkeypatch.chdir(folder)
    before = sorted(os.listdir())
    with pytest.raises((ValueError, KeyError, TypeError), match=message):
        distributed.impute("data.h5ad", "model", **arguments)
    assert sorted(os.listdir()) == before


def test_duplicate_cells_are_refused(folder, tmp_path):
    adata = ad.read_h5ad(folder / "data.h5ad")
    adata.obs_names = ["same", "same", *adata.obs_names[2:]]
    adata.write_h5ad(tmp_path / "a.h5ad")
    with pytest.raises(ValueError, match="'same' stands more than once"):
        distributed.impute(tmp_path / "a.h5ad", folder / "model")


@pytest.mark.parametrize("value", [-1.0, 0.5, np.nan])
def test_marks_that_are_none_are_found_before_any_work(folder, tmp_path, value):
    adata = ad.read_h5ad(folder / "data.h5ad")
    marks = np.zeros(adata.shape, np.float32)
    marks[-1, 3] = value  # of the last chunk
    adata.layers["marks"] = sparse.csr_matrix(marks)
    adata.write_h5ad(tmp_path / "a.h5ad")
    with pytest.raises(ValueError, match="it must be boolean"):
        distributed.impute(tmp_path / "a.h5ad", folder / "model", missing="marks", chunk_size=10)
    assert [path.name for path in tmp_path.iterdir()] == ["a.h5ad"]


def test_cluster_loses_nothing_when_a_worker_is_killed(folder, tmp_path, client):
    arguments = {"store": folder / "data.h5ad", "model_dir": folder / "model", "chunk_size": 5}
    whole = distributed.impute(**arguments, out=tmp_path / "whole.h5ad")
    processes = list(client.run(os.getpid).values())

    def kill_one(done, total):
        if done == 3:
            os.kill(processes[0], signal.SIGKILL)

    out = distributed.impute(**arguments, out=tmp_path / "out.h5ad", client=client, callback=kill_one)
    assert set(client.run(os.getpid).values()) != set(processes)
    assert filecmp.cmp(whole, out, shallow=False)


def test_workers_let_go_of_the_input(folder, tmp_path, client):
    store = tmp_path / "data.h5ad"
    store.write_bytes((folder / "data.h5ad").read_bytes())
    distributed.impute(store, folder / "model", out=tmp_path / "out.h5ad", client=client)
    with h5py.File(store, "r+") as file:  # which HDF5 refuses while another process reads
        assert "X" in file


def test_local_workers_keep_freed_memory(client):
    environments = client.run(lambda: dict(os.environ)).values()
    assert {int(environment["MALLOC_TRIM_THRESHOLD_"]) for environment in environments} == {2**30}
    assert {environment["OMP_NUM_THREADS"] for environment in environments} == {"1"}


class TestTargets:
    """What is in the place of the output, or around it, is not lost."""

    def refused(self, store, model, out, message):
        before = {path: path.read_bytes() for path in store.parent.rglob("*") if path.is_file()}
        with pytest.raises(ValueError, match=message):
            distributed.impute(store, model, out=out)
        assert {path: path.read_bytes() for path in store.parent.rglob("*") if path.is_file()} == before

    @pytest.fixture
    def store(self, folder, tmp_path):
        shutil.copytree(folder / "data.zarr", tmp_path / "outer.zarr" / "in.zarr")
        return tmp_path / "outer.zarr" / "in.zarr"

    def test_around_or_in_the_input(self, folder, store):
        self.refused(store, folder / "model", store.parent, "in.zarr lies in it, and would be lost")
        self.refused(store, folder / "model", store / "sub.zarr", "this lies in the input")

    def test_around_the_model(self, folder, store, tmp_path):
        shutil.copytree(folder / "model", tmp_path / "out.zarr" / "model")
        self.refused(store, tmp_path / "out.zarr" / "model", tmp_path / "out.zarr", "model lies in it")

    def test_folders_and_files_of_others(self, folder, store, tmp_path):
        (tmp_path / "notes.zarr").mkdir()
        (tmp_path / "notes.zarr" / "thesis.txt").write_text("mine")
        (tmp_path / "file.zarr").write_text("mine")
        for name in ("notes.zarr", "file.zarr"):
            self.refused(store, folder / "model", tmp_path / name, "this is no AnnData store, and would be lost")
        (tmp_path / "folder.h5ad").mkdir()
        self.refused(folder / "data.h5ad", folder / "model", tmp_path / "folder.h5ad", "this is a folder")

    @pytest.mark.parametrize("kind", ["h5ad", "zarr"])
    def test_links_are_written_through(self, folder, expected, tmp_path, kind):
        (tmp_path / "far").mkdir()
        (tmp_path / f"near.{kind}").symlink_to(tmp_path / "far" / f"out.{kind}")
        for _ in range(2):  # where nothing is, and where there is an older result
            distributed.impute(folder / f"data.{kind}", folder / "model", out=tmp_path / f"near.{kind}")
            assert (tmp_path / f"near.{kind}").is_symlink()
            result = read(tmp_path / "far" / f"out.{kind}").layers["imputed"]
            np.testing.assert_array_equal(dense(result), dense(expected.layers["imputed"]))


def test_unknown_categories_are_found_before_any_work(folder, tmp_path):
    adata = ad.read_h5ad(folder / "data.h5ad")
    adata.obs["kind"] = adata.obs["kind"].astype(str)
    adata.obs.iloc[-1, adata.obs.columns.get_loc("kind")] = "c"
    adata.write_h5ad(tmp_path / "in.h5ad")
    with pytest.raises(ValueError, match="has 'c', which the model was not trained on"):
        distributed.impute(tmp_path / "in.h5ad", folder / "model", chunk_size=10)
    assert [path.name for path in tmp_path.iterdir()] == ["in.h5ad"]


def test_a_run_that_goes_on_needs_less_of_the_disk(folder, tmp_path, monkeypatch):
    def interrupt(done, total):
        if done == total:
            raise InterruptedError

    out = tmp_path / "out.h5ad"
    with pytest.raises(InterruptedError):
        distributed.impute(folder / "data.h5ad", folder / "model", out=out, chunk_size=20, callback=interrupt)
    plan = Plan.make(folder / "data.h5ad", folder / "model", None, None, "imputed", 20, "auto", {})
    needed = 2 * plan.n_bytes + (folder / "data.h5ad").stat().st_size
    there = sum(path.stat().st_size for path in (tmp_path / "out.h5ad.parts").rglob("*") if path.is_file())
    usage = namedtuple("usage", ["total", "used", "free"])
    for free, fits in ((needed - there - 1, False), (needed - there, True)):
        monkeypatch.setattr(shutil, "disk_usage", lambda path, free=free: usage(free, 0, free))
        with nullcontext() if fits else pytest.raises(OSError, match="of disk"):
            distributed.impute(folder / "data.h5ad", folder / "model", out=out, chunk_size=20)
    assert out.is_file()

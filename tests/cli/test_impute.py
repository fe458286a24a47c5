import hashlib

import anndata as ad
import numpy as np
import pytest
from scipy import sparse

from countsdiff import pp
from countsdiff.checkpoint import SafeCheckpoints
from countsdiff.layers import named_layers

FAST = ("--steps", "20", "--accelerator", "cpu")


def digest(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


class TestImpute:
    def test_writes_the_input_and_one_layer_and_leaves_the_input_alone(self, run, save, adata, tmp_path):
        source, out = save(adata), tmp_path / "out.h5ad"
        before = digest(source)
        status, text, _ = run("impute", source, "-o", out, *FAST)
        assert status == 0
        assert digest(source) == before
        assert sorted(p.name for p in tmp_path.iterdir()) == ["in.h5ad", "out.h5ad"]
        result = ad.read_h5ad(out)
        assert set(named_layers(result)) == {"hidden", "imputed"}
        assert list(result.obs) == ["kind"]  # nothing of scvi-tools' book-keeping
        assert set(result.uns) == {"countsdiff"}
        assert (result.X != adata.X).nnz == 0
        n_zeros = adata.X.shape[0] * adata.X.shape[1] - adata.X.nnz
        assert f"Imputed {n_zeros:,} zeros of 60 cells × 12 genes (mean)" in text
        assert str(out) in text

    def test_missing_entries_alone_change_and_are_not_looked_at(self, save, adata, tmp_path, imputed):
        hidden = adata.layers["hidden"].toarray()
        result = imputed(save(adata), tmp_path / "a.h5ad", "--missing-layer", "hidden")
        assert (result[~hidden] == adata.X.toarray()[~hidden]).all()
        assert (result[hidden] > 0).all()
        spoilt = adata.copy()
        spoilt.X = np.where(hidden, np.float32(1000), adata.X.toarray())
        again = imputed(save(spoilt, "spoilt.h5ad"), tmp_path / "b.h5ad", "--missing-layer", "hidden")
        np.testing.assert_array_equal(again, result)

    def test_prefers_the_layer_counts_to_x(self, save, adata, tmp_path, imputed):
        expected = imputed(save(adata), tmp_path / "a.h5ad")
        adata.layers["counts"] = adata.X.copy()
        adata.X = adata.X / 7
        np.testing.assert_array_equal(imputed(save(adata), tmp_path / "b.h5ad"), expected)

    def test_tasks_that_slurm_would_start_are_not_asked_for(self, run, save, adata, tmp_path, monkeypatch):
        job = {"JOB_ID": "7", "JOB_NAME": "train", "NTASKS": "4", "PROCID": "0", "LOCALID": "0", "NODEID": "0"}
        for name, value in job.items():
            monkeypatch.setenv(f"SLURM_{name}", value)
        out, model = tmp_path / "out.h5ad", tmp_path / "model"
        assert run("impute", save(adata), "-o", out, "--save-model", model, *FAST)[0] == 0
        assert run("impute", tmp_path / "in.h5ad", "-o", out, "--model", model)[0] == 0

    def test_same_seed_same_samples(self, save, adata, tmp_path, imputed):
        source = save(adata)
        options = ("--output", "sample", "--missing-layer", "hidden")
        first, second, other = (
            imputed(source, tmp_path / f"{i}.h5ad", *options, "--seed", seed) for i, seed in enumerate((1, 1, 2))
        )
        np.testing.assert_array_equal(first, second)
        assert (first != other).any()
        assert (first == np.round(first)).all()

    def test_goes_on_with_a_training(self, run, save, adata, tmp_path, imputed):
        source, checkpoint = save(adata), tmp_path / "training.ckpt"
        expected = imputed(source, tmp_path / "a.h5ad")
        for name in ("b.h5ad", "c.h5ad"):
            np.testing.assert_array_equal(imputed(source, tmp_path / name, "--resume", checkpoint), expected)
        status, _, err = run("impute", source, "-o", tmp_path / "d.h5ad", *FAST, "--resume", checkpoint, "--seed", 1)
        assert status == 2
        assert "training.ckpt: the training in there has seed 0, not 1" in " ".join(err.split())

    def test_writes_every_draw(self, run, save, adata, tmp_path):
        status, text, _ = run(
            "impute", save(adata), "-o", tmp_path / "out.h5ad", *FAST, "--output", "sample", "--n-samples", 2
        )
        assert status == 0
        assert "layers imputed_0 to imputed_1" in text
        assert {"imputed_0", "imputed_1"} <= set(ad.read_h5ad(tmp_path / "out.h5ad").layers)

    def test_writes_how_certain_it_is(self, run, save, adata, tmp_path, dense):
        options = ("--return-std", "--interval", 0.8, "--genes", 5, "--missing-layer", "hidden")
        status, text, _ = run("impute", save(adata), "-o", tmp_path / "out.h5ad", *FAST, *options)
        assert status == 0
        assert "layers imputed, imputed_std, imputed_lower, imputed_upper." in text
        out, hidden = ad.read_h5ad(tmp_path / "out.h5ad"), adata.layers["hidden"].toarray()
        mean, std, lower, upper = (dense(out.layers[f"imputed{end}"]) for end in ("", "_std", "_lower", "_upper"))
        known, chosen = ~np.isnan(mean), hidden & pp.highly_variable(adata, 5)
        assert (std[chosen & known] > 0).all()
        assert (upper[chosen & known] > lower[chosen & known]).any()
        assert (std[~hidden] == 0).all()
        np.testing.assert_array_equal(lower[~hidden], mean[~hidden])
        status, _, err = run("impute", save(adata), "-o", tmp_path / "o.h5ad", *FAST, "--interval", 1)
        assert (status, "--interval 1: a coverage lies between 0 and 1" in err) == (2, True)

    def test_x_may_be_named(self, save, adata, tmp_path, imputed):
        source = save(adata)
        expected = imputed(source, tmp_path / "a.h5ad")
        adata.layers["counts"] = adata.X * 2
        source = save(adata)
        np.testing.assert_array_equal(imputed(source, tmp_path / "b.h5ad", "--layer", "X"), expected)
        assert (imputed(source, tmp_path / "c.h5ad") != expected).any()
        assert ad.read_h5ad(tmp_path / "b.h5ad").uns["countsdiff"]["imputed"]["layer"] == "X"

    def test_quiet_says_nothing(self, run, save, adata, tmp_path):
        assert run("impute", save(adata), "-o", tmp_path / "out.h5ad", *FAST, "--quiet") == (0, "", "")

    def test_overwrites_an_older_output(self, save, adata, tmp_path, imputed):
        source = save(adata)
        (tmp_path / "out.h5ad").write_text("old")
        expected = imputed(source, tmp_path / "fresh.h5ad")
        np.testing.assert_array_equal(imputed(source, tmp_path / "out.h5ad"), expected)


class TestGenes:
    def test_other_genes_keep_their_counts(self, run, save, adata, tmp_path, dense):
        source, out = save(adata), tmp_path / "out.h5ad"
        status, text, _ = run("impute", source, "-o", out, *FAST, "--genes", 5)
        assert status == 0
        chosen = pp.highly_variable(adata, 5)
        assert f"60 cells × {chosen.sum()} genes" in text
        assert f"The other {(~chosen).sum()} genes keep their counts." in text
        result, counts = dense(ad.read_h5ad(out).layers["imputed"]), adata.X.toarray()
        assert result.shape == adata.shape
        np.testing.assert_array_equal((result != counts).any(axis=0), chosen)
        assert (result[counts > 0] == counts[counts > 0]).all()

    def test_missing_entries_of_other_genes_stay_missing(self, save, adata, tmp_path, imputed):
        options = ("--genes", "5", "--missing-layer", "hidden")
        hidden, counts = adata.layers["hidden"].toarray(), adata.X.toarray()
        as_sparse = imputed(save(adata), tmp_path / "a.h5ad", *options)
        adata.X = counts
        as_dense = imputed(save(adata), tmp_path / "b.h5ad", *options)
        np.testing.assert_array_equal(as_sparse, as_dense)
        left_out = ~pp.highly_variable(ad.AnnData(np.where(hidden, np.float32(0), counts)), 5)
        assert left_out.any()
        np.testing.assert_array_equal(np.isnan(as_sparse), hidden & left_out)
        np.testing.assert_array_equal(as_sparse[~hidden], counts[~hidden])

    def test_stays_sparse_where_most_is_zero(self, run, save, tmp_path):
        counts = np.random.default_rng(0).poisson(0.05, (60, 200)).astype(np.float32)
        adata = ad.AnnData(sparse.csr_matrix(counts))
        assert run("impute", save(adata), "-o", tmp_path / "out.h5ad", *FAST, "--genes", 3)[0] == 0
        layer = ad.read_h5ad(tmp_path / "out.h5ad").layers["imputed"]
        assert sparse.issparse(layer)
        assert (layer.toarray()[counts > 0] == counts[counts > 0]).all()


def test_zarr_and_workers_give_what_memory_gives(run, save, tmp_path, adata, dense):
    source = save(adata)
    adata.write_zarr(tmp_path / "in.zarr")
    options = ("--missing-layer", "hidden", "--output", "sample")
    status, out, _ = run(
        "impute", tmp_path / "in.zarr", "-o", tmp_path / "a.zarr", *options, "--save-model", tmp_path / "m", *FAST, "-q"
    )
    assert (status, out) == (0, "")
    assert run("impute", source, "-o", tmp_path / "b.h5ad", *options, "--model", tmp_path / "m")[0] == 0
    status, out, _ = run(
        "impute", source, "-o", tmp_path / "c.h5ad", *options, "--model", tmp_path / "m", "--workers", 1
    )
    assert status == 0
    assert "missing entries of 60 cells × 12 genes (sample)" in out
    results = [ad.read_zarr(tmp_path / "a.zarr"), *(ad.read_h5ad(tmp_path / f"{name}.h5ad") for name in "bc")]
    for result in results[1:]:
        np.testing.assert_array_equal(dense(result.layers["imputed"]), dense(results[0].layers["imputed"]))
        assert result.uns["countsdiff"]["imputed"] == results[0].uns["countsdiff"]["imputed"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--workers", 1), "--save-model"),
        (("--key-added", "a/b"), "without slashes"),
        (("--workers", 1, "--save-model", "m", "--genes", 5), "--genes needs all data in memory"),
        (("--workers", 1, "--report", "r.html"), "--report needs all data in memory"),
        (("--workers", 1, "--model", "nix"), "nix: there is no saved model"),
    ],
)
def test_what_data_on_disk_do_not_go_with(run, save, tmp_path, adata, monkeypatch, options, message):
    monkeypatch.chdir(tmp_path)
    save(adata)
    status, out, error = run("impute", "in.h5ad", "-o", "out.h5ad", *options)
    assert (status, out) == (2, "")
    assert message in error
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in.h5ad"]


@pytest.mark.parametrize(("name", "options"), [("none.h5ad", ("--workers", 1)), ("none.zarr", ())])
def test_data_that_are_not_there(run, tmp_path, name, options):
    status, _, err = run("impute", tmp_path / name, "-o", tmp_path / f"out{name[4:]}", "--save-model", "m", *options)
    assert (status, f"{name}: there is no such file." in err) == (2, True)


def test_the_output_has_the_format_of_the_input(run, save, tmp_path, adata):
    status, _, error = run("impute", save(adata), "-o", tmp_path / "out.zarr")
    assert status == 2
    assert ".h5ad" in error


def test_a_training_on_disk_is_resumed(run, save, tmp_path, adata, dense):
    source, file, storage = save(adata), tmp_path / "checkpoint", SafeCheckpoints()

    def imputed(name):
        places = "-o", tmp_path / f"{name}.h5ad", "--save-model", tmp_path / f"model_{name}", "--resume", file
        status, _, error = run("impute", source, *places, "--workers", 1, *FAST, "-q")
        assert (status, error) == (0, "")
        return dense(ad.read_h5ad(tmp_path / f"{name}.h5ad").layers["imputed"])

    first = imputed("first")
    np.testing.assert_array_equal(imputed("again"), first)
    # with other weights in the checkpoint: they are what the training goes on from
    checkpoint = storage.load_checkpoint(file)
    for weights in (checkpoint["state_dict"], checkpoint["callbacks"]["KeepBest"]["weights"]):
        for name, value in weights.items():
            if "log_mean.bias" in name:
                value += 1.0
    storage.save_checkpoint(checkpoint, file)
    assert (imputed("changed") != first).any()


class TestWhatIsRead:
    """Nothing that is read is written over, under whatever name, and before any work."""

    def test_draws_do_not_take_the_place_of_the_counts(self, run, save, tmp_path, adata):
        adata.layers["imputed_1"], adata.X = adata.X.copy(), adata.X.log1p()
        source, model = save(adata), tmp_path / "model"
        draws = ("--layer", "imputed_1", "--output", "sample", "--n-samples", 2)
        out = ("-o", tmp_path / "out.h5ad")
        assert run("impute", source, *out, "--layer", "imputed_1", "--save-model", model, *FAST)[0] == 0
        (tmp_path / "out.h5ad").unlink()
        for how in (
            FAST,
            ("--model", model),
            ("--model", model, "--workers", 1),
            ("--save-model", tmp_path / "other", "--workers", 1),
        ):
            status, _, err = run("impute", source, *out, *draws, *how)
            assert (status, "would overwrite layers['imputed_1']" in err) == (2, True)
            assert not (tmp_path / "out.h5ad").exists()
            assert not (tmp_path / "other").exists()

    @pytest.mark.parametrize("key", [".", ".."])
    def test_names_that_are_no_layers(self, run, save, tmp_path, adata, key):
        status, _, err = run("impute", save(adata), "-o", tmp_path / "out.h5ad", "--key-added", key)
        assert (status, "key_added names a layer" in err) == (2, True)

    def test_a_store_is_not_written_into(self, run, tmp_path, adata):
        source = tmp_path / "in.zarr"
        adata.write_zarr(source)
        (tmp_path / "mine.zarr").write_text("mine")
        names = sorted(path.name for path in source.iterdir())
        for options in (
            ("-o", source / "sub.zarr", "--save-model", tmp_path / "model"),
            ("-o", tmp_path / "out.zarr", "--save-model", source / "model"),
            ("-o", tmp_path / "mine.zarr", "--save-model", tmp_path / "model"),
        ):
            status, _, err = run("impute", source, *options, *FAST)
            assert (status, len(err.splitlines())) == (2, 1)
            assert sorted(path.name for path in source.iterdir()) == names
            assert not (tmp_path / "model").exists()
        assert (tmp_path / "mine.zarr").read_text() == "mine"


def test_infinite_half_precision_counts_are_refused(run, save, tmp_path, adata):
    counts = adata.X.toarray().astype(np.float16)
    counts[3, 4] = np.inf
    adata.X = counts
    status, _, err = run("impute", save(adata), "-o", tmp_path / "out.h5ad", *FAST)
    assert status == 2
    assert "cell 'cell3', gene 'gene4' holds inf, which is infinite" in err

import hashlib
import os
import signal

import h5py
import mudata
import numpy as np
import pytest

from countsdiff.cli._probe import probe

FAST = ("--steps", "20", "--accelerator", "cpu")


def digest(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


class TestBadInput:
    """Exit status 2, one sentence on standard error, nothing written, the input as it was."""

    @pytest.fixture
    def refuse(self, run, save, tmp_path):
        def refuse(adata, *options, says):
            source, out = save(adata), tmp_path / "out.h5ad"
            before = digest(source)
            status, text, err = run("impute", source, "-o", out, *FAST, *options)
            assert (status, text) == (2, "")
            assert err.startswith("countsdiff: error: ")
            assert err.count("\n") == 1
            for word in says:
                assert word in err
            assert digest(source) == before
            assert [p.name for p in tmp_path.iterdir()] == [source.name]

        return refuse

    def test_negative_count(self, refuse, adata):
        adata.X[7, 3] = -2
        refuse(adata, says=["in.h5ad", "adata.X", "'cell7'", "'gene3'", "negative"])
        refuse(adata, "--genes", 5, says=["in.h5ad", "adata.X", "'cell7'", "'gene3'", "negative"])

    def test_names_of_genes_that_repeat(self, refuse, adata):
        adata.var_names = ["gene0", *adata.var_names[:-1]]
        refuse(adata, says=["in.h5ad", "The gene name 'gene0' stands more than once"])

    def test_normalised_matrix(self, refuse, adata):
        adata.X = np.log1p(adata.X.toarray() / 3)
        refuse(adata, says=["in.h5ad", "normalised"])

    def test_no_such_layer(self, refuse, adata):
        refuse(adata, "--layer", "cuonts", says=["in.h5ad", "'cuonts'", "'hidden'"])

    def test_no_such_missing_layer(self, refuse, adata):
        refuse(adata, "--missing-layer", "hiden", says=["in.h5ad", "'hiden'", "'hidden'"])
        refuse(adata, "--missing-layer", "hiden", "--genes", 5, says=["in.h5ad", "'hiden'", "'hidden'"])

    def test_no_such_column(self, refuse, adata):
        refuse(adata, "--batch-key", "bach", says=["in.h5ad", "'bach'", "'kind'"])

    def test_result_in_place_of_what_it_is_made_from(self, refuse, adata):
        adata.layers["counts"] = adata.X.copy()
        for key in ("counts", "hidden"):
            options = ("--missing-layer", "hidden", "--key-added", key)
            refuse(adata, *options, says=[f"would overwrite layers['{key}']"])

    def test_no_cells(self, refuse, adata):
        refuse(adata[:0].copy(), says=["in.h5ad", "empty"])

    def test_unknown_option(self, refuse, adata):
        refuse(adata, "--laier", "x", says=["--laier"])

    def test_unknown_output(self, refuse, adata):
        refuse(adata, "--output", "mode", says=["mode", "median"])

    def test_several_samples_of_a_mean(self, refuse, adata):
        refuse(adata, "--n-samples", 3, says=["--n-samples 3", "--output sample"])

    @pytest.mark.parametrize(
        "options",
        [
            ("--save-model", "out.h5ad"),
            ("--report", "out.h5ad"),
            ("--resume", "out.h5ad"),
            ("--report", "page.html", "--resume", "page.html"),
            ("--save-model", "model", "--report", "model"),
        ],
    )
    def test_two_results_in_one_place(self, run, save, adata, tmp_path, monkeypatch, options):
        monkeypatch.chdir(tmp_path)
        status, _, err = run("impute", save(adata), "-o", "out.h5ad", *FAST, *options)
        assert (status, "name the same" in err) == (2, True)
        assert [p.name for p in tmp_path.iterdir()] == ["in.h5ad"]

    @pytest.mark.parametrize("name", ["out.csv", "out.zarr", "out"])
    def test_a_name_of_another_format(self, run, save, adata, tmp_path, name):
        status, _, err = run("impute", save(adata), "-o", tmp_path / name, *FAST)
        assert (status, f"{name}: the output has the format of the input; let its name end in .h5ad" in err) == (
            2,
            True,
        )

    @pytest.mark.parametrize("option", ["--resume", "--report"])
    def test_a_folder_in_place_of_a_file(self, run, save, adata, tmp_path, option):
        status, _, err = run("impute", save(adata), "-o", tmp_path / "out.h5ad", *FAST, option, tmp_path)
        assert (status, f"{tmp_path}: this is a folder" in err) == (2, True)

    def test_an_address_that_is_none(self, run, save, adata, tmp_path):
        options = ("--scheduler", "foo", "--save-model", tmp_path / "model")
        status, _, err = run("impute", save(adata), "-o", tmp_path / "out.h5ad", *FAST, *options)
        assert (status, "error: --scheduler foo" in err or "--scheduler foo: no Dask" in err) == (2, True)

    def test_no_folder_to_write_to(self, run, save, adata, tmp_path):
        status, _, err = run("impute", save(adata), "-o", tmp_path / "no" / "out.h5ad")
        assert (status, "there is no folder" in err) == (2, True)

    def test_folder_as_output(self, run, save, adata, tmp_path):
        status, _, err = run("impute", save(adata), "-o", tmp_path)
        assert (status, "is a folder" in err) == (2, True)

    def test_a_device_as_output(self, run, save, adata, tmp_path):
        os.mkfifo(tmp_path / "pipe")
        status, _, err = run("impute", save(adata), "-o", tmp_path / "pipe")
        assert (status, "is a device" in err) == (2, True)
        assert (tmp_path / "pipe").is_fifo()

    @pytest.mark.parametrize("link", [None, "symlink_to", "hardlink_to"])
    def test_output_onto_input(self, run, save, adata, tmp_path, link):
        source = save(adata)
        before, out = digest(source), source
        if link is not None:
            out = tmp_path / "link.h5ad"
            getattr(out, link)(source)
        status, _, err = run("impute", source, "-o", out, *FAST)
        assert (status, "would overwrite the input" in err) == (2, True)
        assert digest(source) == before

    def test_no_such_file(self, run, tmp_path):
        status, _, err = run("impute", tmp_path / "none.h5ad", "-o", tmp_path / "out.h5ad")
        assert (status, "none.h5ad: there is no such file" in err) == (2, True)

    def test_not_an_h5ad_file(self, run, tmp_path):
        source = tmp_path / "in.h5ad"
        source.write_text("gene,count\n")
        status, _, err = run("impute", source, "-o", tmp_path / "out.h5ad")
        assert (status, "not an .h5ad file" in err) == (2, True)

    def test_several_modalities(self, run, adata, tmp_path):
        source = tmp_path / "in.h5mu"
        mudata.MuData({"rna": adata}).write(source)
        status, _, err = run("impute", source, "-o", tmp_path / "out.h5ad")
        assert (status, "this file holds MuData" in err) == (2, True)

    def test_truncated_file(self, run, save, adata, tmp_path):
        source = save(adata)
        source.write_bytes(source.read_bytes()[:-2000])
        status, _, err = run("impute", source, "-o", tmp_path / "out.h5ad")
        assert (status, "truncated" in err, err.count("\n")) == (2, True, 1)

    @pytest.mark.parametrize("options", [(), ("--workers", 1)])
    def test_strings_without_end(self, run, save, adata, tmp_path, options, monkeypatch):
        monkeypatch.setattr("countsdiff.cli._probe._SECONDS", 2)
        source = save(adata)
        data = bytearray(source.read_bytes())
        at = data.index(b"GCOL")  # a heap of strings: 16 bytes, then objects of 16 bytes and their padded content
        end = at + int.from_bytes(data[at + 8 : at + 16], "little")
        at += 16
        while at < end and data[at : at + 2] != b"\0\0":
            at += 16 + -(-int.from_bytes(data[at + 8 : at + 16], "little") // 8) * 8
        data[at + 8 : at + 16] = bytes(8)  # free space of no size, from which HDF5 2.0 gets no further
        source.write_bytes(data)
        status, _, err = run("impute", source, "-o", tmp_path / "out.h5ad", "--save-model", tmp_path / "m", *options)
        assert (status, "HDF5 never comes to its end" in err, err.count("\n")) == (2, True, 1)

    def test_with_thousands_of_small_things_is_none(self, save, adata):
        source = save(adata)
        with h5py.File(source, "r+") as file:
            for i in range(5_000):
                file["uns"].attrs[f"a{i % 50}"] = i
                file["uns"][f"number{i}"] = i
        probe(source)  # which says nothing

    def test_that_crashes_hdf5(self, run, save, adata, tmp_path, monkeypatch):
        monkeypatch.setattr(
            "countsdiff.cli._probe._read_strings", lambda path, limit: os.kill(os.getpid(), signal.SIGSEGV)
        )
        status, _, err = run("impute", save(adata), "-o", tmp_path / "out.h5ad")
        assert (status, "HDF5 crashes on it" in err, err.count("\n")) == (2, True, 1)

    @pytest.mark.parametrize("name", ["X", "layers/hidden"])
    def test_sparse_matrix_with_more_indices_than_values(self, run, save, adata, tmp_path, name):
        source = save(adata)
        with h5py.File(source, "r+") as file:
            del file[name]["indices"]
            file[name].create_dataset("indices", shape=(2**50,), dtype=np.int32, chunks=(100,))
        status, _, err = run("impute", source, "-o", tmp_path / "out.h5ad")
        assert (status, f"{2**50} indices" in err, err.count("\n")) == (2, True, 1)

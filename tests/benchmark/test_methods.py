import numpy as np
import pytest
from scipy import sparse

from countsdiff import datasets, pp
from countsdiff.baselines import BASELINES
from countsdiff.benchmark import CountsDiff, Imputation, MolecularCV, Null, choose, prepare
from countsdiff.benchmark._methods import denoisers

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(scope="module")
def small():
    return prepare(datasets.pbmc3k()[:200, :300].copy(), "small", n_genes=100, labels_key="cell_type")


class TestPrepare:
    def test_keeps_the_most_variable_of_the_genes_seen_in_ten_cells(self, small):
        adata = datasets.pbmc3k()[:200, :300].copy()
        seen = adata[:, adata.X.getnnz(axis=0) >= 10].copy()
        expected = seen[:, pp.highly_variable(seen, 100)]
        assert list(small.genes) == list(expected.var_names)
        np.testing.assert_array_equal(small.counts, expected.X.toarray())
        np.testing.assert_array_equal(small.labels, adata.obs["cell_type"].astype(str))
        np.testing.assert_allclose(small.left_out + small.counts.sum(axis=1), adata.X.sum(axis=1).A1)
        assert (small.left_out > 0).all()

    def test_digest_tells_data_apart(self, small):
        assert (
            small.digest
            == prepare(datasets.pbmc3k()[:200, :300].copy(), "other name", n_genes=100, labels_key="cell_type").digest
        )
        assert small.digest != prepare(datasets.pbmc3k()[:200, :300].copy(), "small", n_genes=100).digest

    def test_a_stored_zero_is_no_detection(self):
        adata = datasets.pbmc3k()[:200, :300].copy()
        stored = adata.copy()
        counts = stored.X.tocsr()
        counts.data[counts.data == 1] = 0
        stored.X = counts
        adata.X = sparse.csr_matrix(counts.toarray())
        genes = [list(prepare(data, "x", n_genes=1000).genes) for data in (stored, adata)]
        assert genes[0] == genes[1]

    def test_says_what_is_wrong(self):
        adata = datasets.pbmc3k()[:20, :10].copy()
        with pytest.raises(KeyError, match="celltype"):
            prepare(adata, "x", labels_key="celltype")
        with pytest.raises(ValueError, match="no gene is seen in 10 of the 5 cells"):
            prepare(adata[:5].copy(), "x")
        adata.layers["counts"] = adata.X.toarray()
        adata.layers["counts"][2, 3] = np.nan
        with pytest.raises(ValueError, match="NaN"):
            prepare(adata, "x")
        adata.layers["counts"][2, 3] = 0.5
        with pytest.raises(ValueError, match=r"0\.5"):
            prepare(adata, "x")


class TestChoose:
    def test_by_default_all_that_need_no_label(self):
        names = [method.name for method in choose(Imputation(None), None, with_labels=False)]
        assert names == ["countsdiff", *(name for name in BASELINES if name != "label_mean")]
        names = [method.name for method in choose(Imputation(None), None, with_labels=True)]
        assert names == ["countsdiff", "countsdiff+labels", *BASELINES]

    @pytest.mark.parametrize("task", [MolecularCV(), Null()])
    def test_denoising_is_always_compared_with_doing_nothing(self, task):
        names = [method.name for method in choose(task, ["knn", "countsdiff mean"], with_labels=False)]
        assert names == ["none", "countsdiff mean", "knn"]

    def test_says_what_there_is(self):
        with pytest.raises(ValueError, match="no method 'countsdiff' for the task null; choose among none, countsdiff"):
            choose(Null(), ["countsdiff"], with_labels=True)
        with pytest.raises(ValueError, match="label_mean needs labels"):
            choose(Null(), ["label_mean"], with_labels=False)


class TestCountsDiff:
    @pytest.fixture(scope="class")
    def fitted(self, small):
        method = CountsDiff("countsdiff+labels", with_labels=True, max_steps=20)
        return method.fit(small.counts[:150], None, labels=small.labels[:150], seed=1)

    def test_imputes_new_cells_without_looking_at_what_is_hidden(self, small, fitted):
        counts, labels = small.counts[150:], small.labels[150:]
        missing = pp.mcar(counts.shape, 0.5)
        result = fitted.impute(np.where(missing, np.float32(0), counts), missing, labels=labels)
        np.testing.assert_array_equal(result, fitted.impute(np.where(missing, 99, counts), missing, labels=labels))
        assert result.shape == counts.shape
        assert (result[missing] > 0).all()
        np.testing.assert_array_equal(result[~missing], counts[~missing])

    def test_whole_counts_have_the_smaller_absolute_error(self, small, fitted):
        counts, labels = small.counts[150:], small.labels[150:]
        missing = pp.mcar(counts.shape, 0.5)
        whole, mean = (f(counts, missing, labels=labels) for f in (fitted.impute_whole, fitted.impute))
        np.testing.assert_array_equal(whole, np.round(whole))
        assert np.abs(whole - counts)[missing].mean() < np.abs(mean - counts)[missing].mean()

    def test_samples_whole_numbers(self, small, fitted):
        counts, labels = small.counts[150:], small.labels[150:]
        missing = pp.mcar(counts.shape, 0.5)
        for n in (1, 3):
            draws = fitted.sample(counts, missing, n, labels=labels, seed=2)
            assert draws.shape == (n, *counts.shape)
            np.testing.assert_array_equal(draws, np.round(draws))
        np.testing.assert_array_equal(draws, fitted.sample(counts, missing, 3, labels=labels, seed=2))
        assert (draws[0] != draws[1]).any()

    def test_denoises_where_nothing_is_missing(self, small):
        methods = denoisers(0.5)
        mean, log_mean = (
            CountsDiff(name, output=methods[name].output, depth=methods[name].depth, max_steps=20)
            .fit(small.counts, None, seed=0)
            .impute(small.counts, None)
            for name in ("countsdiff mean", "countsdiff log_mean")
        )
        # at the cell's own depth, though the estimate is one for half of it
        assert mean.sum() == pytest.approx(small.counts.sum(), rel=0.2)
        assert log_mean.sum() == pytest.approx(small.counts.sum(), rel=0.5)
        assert not np.allclose(mean, log_mean, rtol=1e-3)

    def test_cells_of_a_label_that_was_not_fitted_are_cells_of_unknown_label(self, small, fitted):
        counts, labels = small.counts[150:], np.array(small.labels[150:], dtype=object)
        missing = pp.mcar(counts.shape, 0.5)
        usual = fitted.impute(counts, missing, labels=labels)
        labels[:3] = "rare"
        result = fitted.impute(counts, missing, labels=labels)
        np.testing.assert_array_equal(result[3:], usual[3:])
        assert (result[:3] != usual[:3]).any()
        assert np.isfinite(result).all()
        assert fitted.sample(counts, missing, 2, labels=labels).shape == (2, *counts.shape)

    def test_labels_are_asked_for(self, small):
        with pytest.raises(ValueError, match="needs labels, one for each of the 200 cells"):
            CountsDiff("countsdiff+labels", with_labels=True).fit(small.counts, None)

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from scipy import sparse, stats

from countsdiff.pp import hide_entries, mar, mar_block, mcar, mnar


@pytest.fixture
def counts():
    return np.random.default_rng(0).poisson(0.7, (20, 15)).astype(np.float32)


def test_mcar_is_the_published_protocol():
    observed = np.random.default_rng(1).random((50, 30)) > 0.5
    np.testing.assert_array_equal(mcar((50, 30), 0.5, seed=1), ~observed)


def test_mcar_share_and_seed():
    assert mcar((300, 300), 0.2).mean() == pytest.approx(0.2, abs=0.01)
    assert mcar((9, 9), 1.0).all()
    assert not mcar((9, 9), 0.0).any()
    assert (mcar((9, 9), 0.5, seed=1) != mcar((9, 9), 0.5, seed=2)).any()


def test_mcar_with_more_hidden_keeps_what_was_hidden():
    assert (mcar((50, 30), 0.8) >= mcar((50, 30), 0.3)).all()


@pytest.mark.parametrize("share", [-0.1, 1.5, np.nan])
def test_mcar_refuses_what_is_no_probability(share):
    with pytest.raises(ValueError, match=str(share)):
        mcar((2, 2), share)


def draws_pvalue(times, n_draws, n_chosen):
    """Chi-square p-value of how often items were chosen, each draw taking `n_chosen` different ones evenly."""
    p = n_chosen / len(times)
    statistic = np.sum((times - n_draws * p) ** 2) / (n_draws * p * (1 - p)) * (len(times) - 1) / len(times)
    return stats.chi2.sf(statistic, len(times) - 1)


def test_mcar_among_hides_the_same_entries_but_others_never(counts):
    everywhere = mcar(counts.shape, 0.4, seed=3)
    for form in (np.asarray, sparse.csr_matrix, sparse.csc_array):
        hidden = mcar(counts.shape, 0.4, seed=3, among=form(counts > 0))
        np.testing.assert_array_equal(hidden, everywhere & (counts > 0))


@pytest.mark.parametrize("choose", [lambda c, a: mcar(c.shape, 0.1, among=a), lambda c, a: mnar(c, 0.1, among=a)])
def test_among_must_fit(counts, choose):
    with pytest.raises(ValueError, match=r"\(20, 14\).*\(20, 15\)"):
        choose(counts, (counts > 0)[:, 1:])
    with pytest.raises(ValueError, match="float32"):
        choose(counts, counts)


COVARIATES = {
    "continuous": np.random.default_rng(0).normal(size=1200),
    "four levels": np.random.default_rng(1).choice(4, 1200, p=[0.5, 0.3, 0.15, 0.05]),
    "constant": np.ones(1200),
}


@pytest.mark.parametrize("covariate", COVARIATES.values(), ids=COVARIATES)
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_mar_hides_the_share_of_every_gene(covariate, share):
    """Unequal probabilities make sums less variable than binomials, never more."""
    hidden = mar(covariate, 400, share, seed=2)
    assert hidden.shape == (1200, 400)
    z = (hidden.sum(axis=0) - 1200 * share) / np.sqrt(1200 * share * (1 - share))
    assert stats.chi2.sf(np.sum(z**2), 400) > 1e-3
    assert abs(z.sum() / np.sqrt(400)) < 4


def test_mar_probability_is_linear_in_the_rank_with_even_slopes():
    level = np.repeat(np.arange(4), 5000)  # z = -3/4, -1/4, 1/4, 3/4
    hidden = mar(np.exp(level), 300, 0.2, seed=3)  # ranks are all that counts
    rates = np.array([hidden[level == k].mean(axis=0) for k in range(4)])
    variances = rates * (1 - rates) / 5000
    for contrast in ([1, -1, -1, 1], [1, -3, 3, -1]):  # quadratic and cubic in z
        z = np.array(contrast) @ rates / np.sqrt(np.square(contrast) @ variances)
        assert stats.chi2.sf(np.sum(z**2), 300) > 1e-3
    slopes = np.array([-0.6, -0.2, 0.2, 0.6]) @ rates / 0.2  # least squares, in units of min(share, 1 - share)
    assert stats.kstest(slopes, "uniform", args=(-1, 2)).pvalue > 1e-3


def test_mar_of_two_cells():
    """Their z is -1/2 and 1/2, hence both are hidden with probability 1/4 + 1/4 E[slope²] (-1/2)(1/2) = 11/48."""
    hidden = mar([3, 5], 100_000, 0.5)
    assert stats.binomtest(int(hidden.all(axis=0).sum()), 100_000, 11 / 48).pvalue > 1e-3
    assert stats.binomtest(int(hidden[0].sum()), 100_000, 0.5).pvalue > 1e-3


def test_mar_depends_on_ranks_and_the_seed_alone():
    x = COVARIATES["continuous"]
    np.testing.assert_array_equal(mar(x, 30, 0.3, seed=4), mar(np.exp(x), 30, 0.3, seed=4))
    assert (mar(x, 30, 0.3, seed=4) != mar(x, 30, 0.3, seed=5)).any()
    assert mar(x, 30, 1.0).all()
    assert not mar(x, 30, 0.0).any()


def test_mar_by_categories():
    names = np.array(["b", "a", "c", "a"] * 25)
    expected = mar(np.array([1, 0, 2, 0] * 25), 7, 0.3, seed=1)
    for form in (names, names.astype(object), pd.Series(names), pd.Categorical(names), names.tolist()):
        np.testing.assert_array_equal(mar(form, 7, 0.3, seed=1), expected)
    with pytest.raises(ValueError, match="holds nan for cell 1"):
        mar(["a", None, "b"], 7, 0.3)
    ordered = pd.Categorical(names, categories=["c", "a", "b"], ordered=True)
    np.testing.assert_array_equal(mar(ordered, 7, 0.3, seed=1), mar(np.array([2, 1, 0, 1] * 25), 7, 0.3, seed=1))
    with pytest.raises(ValueError, match=r"\(2, 1\)"):
        mar([["a"], ["b"]], 3, 0.2)


def test_mar_is_independent_of_values_given_the_covariate_only():
    """Values follow the covariate. Within its levels, hidden entries hold high values as often as others do."""
    rng = np.random.default_rng(6)
    level = rng.integers(4, size=2000)
    values = rng.poisson(np.exp(level / 2)[:, None], (2000, 200))
    hidden = mar(level, 200, 0.3, seed=7)

    def pvalue(groups):
        statistic = 0.0
        for rows in groups:
            high = values[rows] > np.median(values[rows])
            n, n_high, n_hidden = len(rows), high.sum(axis=0), hidden[rows].sum(axis=0)
            law = stats.hypergeom(n, n_high, n_hidden)
            statistic += np.sum(((high & hidden[rows]).sum(axis=0) - law.mean()) ** 2 / law.var())
        return stats.chi2.sf(statistic, 200 * len(groups))

    assert pvalue([np.flatnonzero(level == k) for k in range(4)]) > 1e-3
    assert pvalue([np.arange(2000)]) < 1e-10  # not MCAR


def test_mar_refuses():
    with pytest.raises(ValueError, match=r"1\.2"):
        mar([1, 2], 3, 1.2)
    with pytest.raises(ValueError, match=r"\(2, 1\)"):
        mar([[1], [2]], 3, 0.2)
    with pytest.raises(ValueError, match="nan for cell 1"):
        mar([1, np.nan], 3, 0.2)


@pytest.mark.parametrize(
    ("share", "blocks"),
    [(0.1, {16: 10, 10: 40, 4: 60, 0: 90}), (0.25, {24: 10, 20: 20, 16: 40, 12: 60, 0: 70})],
)
def test_mar_block_has_the_sizes_of_the_paper(share, blocks):
    hidden = mar_block((200, 40), share)
    assert hidden.mean() == share  # no row is lost between blocks
    assert (np.diff(hidden.astype(int), axis=1) <= 0).all()  # the first genes
    widths, cells = np.unique(hidden.sum(axis=1), return_counts=True)
    assert dict(zip(widths.tolist(), cells.tolist(), strict=True)) == blocks


def test_mar_block_hides_in_random_cells():
    hidden = np.array([mar_block((40, 10), 0.1, seed=seed) for seed in range(1000)])
    assert draws_pvalue(hidden[:, :, 0].sum(axis=0), 1000, 22) > 1e-3
    assert draws_pvalue(hidden[:, :, 3].sum(axis=0), 1000, 2) > 1e-3
    assert not hidden[:, :, 4:].any()


@pytest.mark.parametrize("share", [0.2, 10, np.nan])
def test_mar_block_knows_no_other_shares(share):
    with pytest.raises(ValueError, match=rf"share is {share}; .* 0\.1 and 0\.25"):
        mar_block((20, 20), share)


@pytest.mark.parametrize("n_obs", [40, 400])
def test_mnar_draws_evenly_from_the_extremes(n_obs):
    """Of 20 % and 15 % slack at either end, whatever the number of cells."""
    values = np.random.default_rng(8).permuted(np.tile(np.arange(n_obs), (3000, 1)), axis=1).T
    n_hidden, n_candidates = n_obs // 5, n_obs * 35 // 100
    for kind in ("high", "low"):
        hidden = mnar(values, 0.2, kind=kind, slack=0.15, seed=9)
        assert (hidden.sum(axis=0) == n_hidden).all()
        times = np.bincount(values[hidden], minlength=n_obs)
        times = times[::-1] if kind == "high" else times
        assert not times[n_candidates:].any()
        assert draws_pvalue(times[:n_candidates], 3000, n_hidden) > 1e-3


def test_mnar_without_slack_hides_the_extremes(counts):
    values = counts + np.random.default_rng(0).random(counts.shape)  # no ties
    rank = values.argsort(axis=0).argsort(axis=0)
    np.testing.assert_array_equal(mnar(values, 0.25, slack=0), rank >= 15)
    np.testing.assert_array_equal(mnar(values, 0.25, slack=0, kind="low"), rank < 5)
    np.testing.assert_array_equal(mnar(values, 0.25, seed=2), mnar(-values, 0.25, kind="low", seed=2))


@pytest.mark.parametrize("kind", ["high", "low"])
def test_mnar_breaks_ties_evenly(kind):
    hidden = mnar(np.zeros((20, 4000), dtype=np.uint8), 0.3, kind=kind, slack=0)
    assert draws_pvalue(hidden.sum(axis=1), 4000, 6) > 1e-3


def test_mnar_with_all_slack_is_completely_at_random():
    hidden = mnar(np.tile(np.arange(20), (4000, 1)).T, 0.3, slack=1)
    assert draws_pvalue(hidden.sum(axis=1), 4000, 6) > 1e-3


def test_mnar_among_counts_shares_of_what_may_be_hidden():
    """Genes with few entries to hide get their share, too, on average."""
    rng = np.random.default_rng(10)
    counts = rng.poisson(0.1, (60, 3000))
    hidden = mnar(counts, 0.3, among=counts > 0, seed=11)
    assert (counts[hidden] > 0).all()
    wanted = 0.3 * (counts > 0).sum(axis=0)
    n_hidden = hidden.sum(axis=0)
    assert ((np.floor(wanted) <= n_hidden) & (n_hidden <= np.ceil(wanted))).all()
    part = wanted % 1
    assert abs((n_hidden - wanted).sum()) < 4 * np.sqrt(np.sum(part * (1 - part)))
    masks = [mnar(counts, 0.3, among=form(counts > 0), seed=11) for form in (sparse.csr_matrix, sparse.csc_array)]
    assert all((mask == hidden).all() for mask in masks)


def test_mnar_sees_the_order_of_counts_only(counts):
    for kind in ("high", "low"):
        expected = mnar(counts, 0.3, kind=kind, seed=12)
        for same in (np.log1p(counts), counts.astype(np.uint8), sparse.csr_matrix(counts), sparse.csc_array(counts)):
            np.testing.assert_array_equal(mnar(same, 0.3, kind=kind, seed=12), expected)
        assert (mnar(counts, 0.3, kind=kind, seed=13) != expected).any()


def test_mnar_at_the_ends(counts):
    assert mnar(counts, 1.0).all()
    assert not mnar(counts, 0.0).any()
    assert not mnar(counts, 1.0, among=np.zeros(counts.shape, dtype=bool)).any()


def test_mnar_refuses(counts):
    with pytest.raises(ValueError, match=r"-0\.1"):
        mnar(counts, -0.1)
    with pytest.raises(ValueError, match="'top'"):
        mnar(counts, 0.1, kind="top")
    with pytest.raises(ValueError, match=r"a matrix.*\(20,\)"):
        mnar(counts[:, 0], 0.1)
    with pytest.raises(TypeError, match="give one of its matrices"):
        mnar(ad.AnnData(counts), 0.1)
    for slack in (-0.5, 5000, np.nan):
        with pytest.raises(ValueError, match=f"slack is {slack}"):
            mnar(counts, 0.1, slack=slack)
    counts[4, 2] = np.nan
    with pytest.raises(ValueError, match="cell 4 and gene 2"):
        mnar(counts, 0.1)
    assert not mnar(counts, 0.9, among=~np.isnan(counts))[4, 2]


@pytest.mark.parametrize("layer", [None, "counts"])
@pytest.mark.parametrize("form", [np.asarray, sparse.csr_matrix, sparse.csr_array, sparse.csc_matrix])
@pytest.mark.parametrize("hidden_form", [np.asarray, sparse.csr_matrix])
def test_hide_entries(counts, layer, form, hidden_form):
    hidden = mcar(counts.shape, 0.5)
    original = form(counts)
    adata = ad.AnnData(original, layers={"counts": original, "other": original})
    result = hide_entries(adata, hidden_form(hidden), layer=layer)

    changed = result.X if layer is None else result.layers[layer]
    assert type(changed) is type(original)
    assert changed.dtype == original.dtype
    dense = changed.toarray() if sparse.issparse(changed) else changed
    np.testing.assert_array_equal(dense, np.where(hidden, 0, counts))
    if sparse.issparse(changed):
        assert changed.nnz == np.count_nonzero(dense)
    marks = result.layers["hidden"]
    assert marks.format == "csr"
    assert marks.dtype == bool
    np.testing.assert_array_equal(marks.toarray(), hidden)

    for untouched in (result.layers["other"], adata.X, adata.layers["counts"]):
        np.testing.assert_array_equal(untouched.toarray() if sparse.issparse(untouched) else untouched, counts)
    assert "hidden" not in adata.layers


def test_hide_entries_hides_nan(counts):
    counts[0, 0] = np.nan
    for form in (np.asarray, sparse.csr_matrix):
        result = hide_entries(ad.AnnData(form(counts)), np.isnan(counts), key_added="gone")
        assert result.X[0, 0] == 0
        assert result.layers["gone"].sum() == 1


def test_hide_entries_refuses(counts):
    adata = ad.AnnData(counts)
    with pytest.raises(ValueError, match=r"\(3, 3\).*\(20, 15\)"):
        hide_entries(adata, np.zeros((3, 3), dtype=bool))
    with pytest.raises(ValueError, match="float32"):
        hide_entries(adata, counts)
    with pytest.raises(KeyError, match="nope"):
        hide_entries(adata, counts > 0, layer="nope")
    adata.layers["counts"] = counts
    with pytest.raises(ValueError, match=r"overwrite layers\['counts'\]"):
        hide_entries(adata, counts > 0, layer="counts", key_added="counts")
    with pytest.raises(ValueError, match="without slashes"):
        hide_entries(adata, counts > 0, key_added="a/b")


def test_mcar_takes_a_shape():
    with pytest.raises(TypeError, match="such as adata.shape; got ndarray"):
        mcar(np.zeros((3, 2)), 0.5)

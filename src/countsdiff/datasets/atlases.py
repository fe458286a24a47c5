from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from countsdiff.download import cache_dir, download
from countsdiff.files import digest

if TYPE_CHECKING:
    from anndata import AnnData


@dataclass(frozen=True)
class Atlas:
    """An .h5ad file of counts on a server.

    Parameters
    ----------
    name
        Name of the file in the cache.
    url
        Where it is.
    size
        What a person is told before the download.
    sha256
        Checksum of the file, None if it is not known; then `n_obs` is checked.
    n_obs
        Number of cells.
    """

    name: str
    url: str
    size: str
    sha256: str | None
    n_obs: int

    @property
    def path(self) -> Path:
        """The file in the cache, be it there or not."""
        return cache_dir() / f"{self.name}.h5ad"

    def sample(self, n_obs: int | None, seed: int) -> "AnnData":
        """Download the file if it is not in the cache, and read some of its cells.

        Only these cells are held in memory. Counts are those in ``raw`` if the file has both.

        Parameters
        ----------
        n_obs
            Number of cells, in the order of the file; None for all.
        seed
            Seed of the choice.
        """
        import h5py
        from anndata import AnnData
        from anndata.io import read_elem, sparse_dataset

        if not self.path.is_file():
            download(self.url, self.path, self.check)
        with h5py.File(self.path) as file:
            counts = file["raw"] if "raw" in file else file
            obs = read_elem(file["obs"])
            if n_obs is not None and not 0 < n_obs <= len(obs):
                raise ValueError(f"n_obs is {n_obs}; {self.name} has {len(obs):,} cells to choose from")
            rows = np.arange(len(obs))
            if n_obs is not None:
                rows = np.sort(np.random.default_rng(seed).choice(rows, n_obs, replace=False))
            matrix = sparse_dataset(counts["X"])[rows].astype(np.float32)
            return AnnData(matrix, obs=obs.iloc[rows], var=read_elem(counts["var"]))

    def check(self, path: Path) -> None:
        """Check a download.

        Raises
        ------
        ValueError
            If it has another checksum, or cannot be read, or has another number of cells.
        """
        import h5py

        if self.sha256 is not None:
            found = digest(path)
            if found != self.sha256:
                raise ValueError(
                    f"{self.url} has the SHA-256 checksum {found}, not {self.sha256}: the download was damaged, or the "
                    "file was changed; try again"
                )
            return
        try:
            with h5py.File(path) as file:
                obs = file["obs"]
                names = obs[obs.attrs["_index"]]  # with pandas 3 a group: text, and where there is none
                n_obs = len(names["values"] if isinstance(names, h5py.Group) else names)
        except (OSError, KeyError) as error:
            raise ValueError(f"{self.url} is no .h5ad file, or a damaged one; try again") from error
        if n_obs != self.n_obs:
            raise ValueError(f"{self.url} has {n_obs:,} cells, not {self.n_obs:,}: it is another file than expected")


ATLASES = {
    atlas.name: atlas
    for atlas in (
        Atlas(
            "fetal_atlas",
            # the dataset of CELLxGENE as frozen in the long-term release of its Census
            "https://cellxgene-census-public-us-west-2.s3.us-west-2.amazonaws.com/cell-census/2025-11-08/h5ads/"
            "f7c1c579-2dc0-47e2-ba19-8165c5a0e353.h5ad",
            size="20 GB",
            sha256=None,
            n_obs=4_062_980,
        ),
        Atlas(
            "heart_atlas",
            "https://cellgeni.cog.sanger.ac.uk/heartcellatlas/v2/Global_raw.h5ad",
            size="9 GB",
            sha256="2280a34361a67ac6b24a787ddc037d0f7f78d7db91f5dcfb8ee822d7e80c7ed2",
            n_obs=704_296,
        ),
    )
}


def fetal_atlas(n_obs: int | None = 50_000, *, seed: int = 0) -> "AnnData":
    """Counts of human fetal cells, of 15 organs: the paper's fetal atlas.

    The 4,062,980 cells of Cao et al. (2020), as CELLxGENE has them ("Survey of human embryonic development"). The first
    call downloads 20 GB to ``$COUNTSDIFF_CACHE`` or ``~/.cache/countsdiff``. This very release of the file is
    fixed by its address; its checksum was not published, so that what can be checked is its length, that it can
    be read, and the number of its cells.

    Parameters
    ----------
    n_obs
        Number of cells to draw at random, 50,000 as the paper scores; None for all, which takes some 60 GB of memory.
    seed
        Seed of the draw.

    Returns
    -------
    AnnData
        Raw counts, float32 CSR, in ``X``; genes by Ensembl identifier; ``obs["cell_type"]``, ``obs["sex"]`` and more.

    Raises
    ------
    ConnectionError
        If it cannot be downloaded.
    ValueError
        If the download is not the file expected, or there are fewer cells than asked for.

    References
    ----------
    Cao et al. (2020), A human cell atlas of fetal gene expression, Science 370, eaba7721.

    Notes
    -----
    Which release the authors of CountsDiff used is not known; their 1,000 genes are those of highest coefficient of
    variation among genes seen in 100,000 cells.
    """
    return ATLASES["fetal_atlas"].sample(n_obs, seed)


def heart_atlas(n_obs: int | None = 20_000, *, seed: int = 0) -> "AnnData":
    """Counts of cells and nuclei of the adult human heart: the paper's heart atlas.

    The 704,296 cells of the Heart Cell Atlas v2, from its own server. The first call downloads 9 GB to
    ``$COUNTSDIFF_CACHE`` or ``~/.cache/countsdiff``, and checks them against a SHA-256 that a user of the file
    published, not its makers.

    Parameters
    ----------
    n_obs
        Number of cells to draw at random, 20,000 as the paper scores; None for all, which takes some 30 GB of memory.
    seed
        Seed of the draw.

    Returns
    -------
    AnnData
        Raw counts, float32 CSR, in ``X``; ``obs["cell_type"]`` and more.

    Raises
    ------
    ConnectionError
        If it cannot be downloaded.
    ValueError
        If the download is not the file expected, or there are fewer cells than asked for.

    References
    ----------
    Kanemaru et al. (2023), Spatially resolved multiomics of human cardiac niches, Nature 619, 801-810.

    Notes
    -----
    That this is the paper's file follows from the name ``Global_raw.h5ad`` in its code, and from its 70,430 test cells,
    a tenth of these.
    """
    return ATLASES["heart_atlas"].sample(n_obs, seed)

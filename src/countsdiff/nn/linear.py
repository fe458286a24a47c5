"""A linear estimate of every variable from all that was seen: kriging, or a Wiener filter of images."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

_NUGGET = 0.005  # variance of a variable that no other tells of, in average variances: chance correlations are no law
_LEAST = 0.01  # smallest intensity, in means, as a linear estimate may fall below zero


class LinearEstimate(nn.Module):
    """Intensities of births by a linear estimate with small squared error, given means and covariances.

    Counts c seen at exposure e are c / e = x + noise, of variance m (1 − e) / e, where m is the mean over all
    variables: for those of equal means it is the best linear estimate. With Σ the covariance of the variables, D that
    of the noise, both of those that were seen, a = (Σ + D)⁻¹ (c / e − μ) and the estimate is μ + Σ a: for all entries
    noised alike the Wiener filter, for entries that are known or unknown simple kriging (Matheron 1963). Gaussian
    variables have no better one, and images are near enough to be a start.

    Where exposures differ within an observation it takes a system of equations of its own, n_vars³ / 3
    multiplications at most: for hundreds of variables.

    Parameters
    ----------
    mean
        Means, positive, shape ``(n_vars,)``.
    values, vectors
        Eigenvalues, positive, and eigenvectors of the covariance, shapes ``(n_vars,)`` and ``(n_vars, n_vars)``; see
        :meth:`fit`.
    """

    mean: Tensor
    values: Tensor
    vectors: Tensor

    def __init__(self, mean: Tensor, values: Tensor, vectors: Tensor):
        super().__init__()
        self.register_buffer("mean", mean)
        self.register_buffer("values", values)
        # eigenvectors come column by column, and products with them round differently from those loaded row by row
        self.register_buffer("vectors", vectors.contiguous())
        self._covariance: Tensor | None = None

    @classmethod
    def fit(cls, blocks: Iterable[Tensor]) -> "LinearEstimate":
        """Take means and covariances from observations, which come in blocks ``(n_obs, n_vars)``.

        Raises
        ------
        ValueError
            If there are none.
        """
        n_obs, total, squares = 0, torch.zeros(()), torch.zeros(())
        for block in blocks:
            block = block.to(torch.float64)
            n_obs, total, squares = n_obs + len(block), total + block.sum(0), squares + block.T @ block
        if n_obs == 0:
            raise ValueError("There are no observations to take means and covariances from.")
        mean = total / n_obs
        values, vectors = torch.linalg.eigh(squares / n_obs - torch.outer(mean, mean))
        values = values.clamp(min=0.0) + _NUGGET * values.mean().clamp(min=1e-6)
        return cls(mean.clamp(min=1e-3).float(), values.float(), vectors.float())

    @classmethod
    def unfitted(cls, n_vars: int) -> "LinearEstimate":
        """Independent variables of mean and variance 1, whose values are about to be loaded."""
        return cls(torch.ones(n_vars), torch.ones(n_vars), torch.eye(n_vars))

    @torch.no_grad()
    def forward(self, counts: Tensor, exposure: Tensor) -> Tensor:
        """Intensities, as :class:`~countsdiff.core.interfaces.Intensity` has them.

        Parameters
        ----------
        counts
            Counts seen, shape ``(n_obs, n_vars)``.
        exposure
            At what exposure, in [0, 1]; 0 where nothing was seen; same shape.
        """
        with torch.autocast(counts.device.type, enabled=False):
            level = self.mean.mean()
            noise = level * (1.0 - exposure) / exposure  # infinite where nothing was seen
            deviation = torch.where(exposure > 0.0, counts / exposure - self.mean, 0.0)
            # for all rows, whose number must not be what rounding depends on, and then for the others anew
            pull = (deviation @ self.vectors / (noise[:, :1] + self.values)) @ self.vectors.T
            for row in (exposure != exposure[:, :1]).any(1).nonzero().squeeze(1).tolist():
                pull[row] = self._solve(deviation[row], noise[row])
            # the same number twice: divided by what is small at one end of time, or at the other
            early = (self.mean + (pull @ self.vectors * self.values) @ self.vectors.T - counts) / (1.0 - exposure)
            late = (counts - level * pull) / exposure
            return torch.maximum(torch.where(exposure < 0.5, early, late), _LEAST * self.mean)

    def _solve(self, deviation: Tensor, noise: Tensor) -> Tensor:
        """Solve (Σ + D) a = `deviation` for what was seen of one observation; 0 elsewhere."""
        if self._covariance is None or self._covariance.device != self.values.device:
            self._covariance = (self.vectors * self.values) @ self.vectors.T
        seen = noise.isfinite().nonzero().squeeze(1)
        system = self._covariance[seen][:, seen]
        system.diagonal().add_(noise[seen])
        solution = torch.cholesky_solve(deviation[seen].unsqueeze(1), torch.linalg.cholesky(system)).squeeze(1)
        return torch.zeros_like(deviation).index_copy(0, seen, solution)

    def _load_from_state_dict(self, *args: object, **kwargs: object) -> None:
        super()._load_from_state_dict(*args, **kwargs)
        self._covariance = None  # which follows from what was loaded

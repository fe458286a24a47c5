"""Exact laws of counts: probabilities and quantiles of Poisson, binomial and negative-binomial variables.

torch samples these laws only from one global stream per call and offers no quantiles. Reproducible rows, intervals and
medians need quantiles, so they stand here. All three laws obey one recursion (Panjer 1981), pmf(k) = pmf(k−1) (a +
b/k), which walks from a starting point to the quantile: from 0 to small counts, to large ones from where a normal law
with the right skewness puts them. Bisection on the cumulative distribution finds what is too far away.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

_NEAR = 16  # mean up to which laws are walked from 0
_FIRST_STEPS = 8  # walked at a time, and twice as many each time after
_MOST_STEPS = 16  # on average over the entries worked on at once: more, and bisection takes over
_DEEP = 1e-4  # of a cumulative probability: so far below it nothing is found by subtraction
_TINY = 1e-300  # too small to matter beside any number but 0, which nothing can be divided by


def poisson_cdf(k: Tensor, mean: Tensor) -> Tensor:
    """P(X ≤ k) for X ~ Poisson(mean), k whole and not negative; float64."""
    probability: Tensor = torch.special.gammaincc(k + 1.0, mean)
    return probability


def poisson_log_pmf(k: Tensor, mean: Tensor) -> Tensor:
    """Log of P(X = k) for X ~ Poisson(mean); float64."""
    return torch.xlogy(k, mean) - mean - torch.lgamma(k + 1.0)


def negative_binomial_cdf(k: Tensor, shape: Tensor, mean: Tensor) -> Tensor:
    """P(X ≤ k) for X ~ NegBin(shape, mean), k whole and not negative; float64."""
    return regularised_beta(shape, k + 1.0, 1.0 - mean / (shape + mean))


def negative_binomial_log_pmf(k: Tensor, shape: Tensor, mean: Tensor) -> Tensor:
    """Log of P(X = k) for X ~ NegBin(shape, mean); float64."""
    ways = torch.lgamma(shape + k) - torch.lgamma(shape) - torch.lgamma(k + 1.0)
    return ways - shape * torch.log1p(mean / shape) + torch.xlogy(k, mean / (shape + mean))


def poisson_quantile(u: Tensor, mean: Tensor) -> Tensor:
    """Smallest k with P(X ≤ k) ≥ u for X ~ Poisson(mean).

    Parameters
    ----------
    u
        Probabilities in (0, 1).
    mean
        Means, not negative; broadcast against `u`.

    Returns
    -------
    Tensor
        Whole numbers, of the broadcast shape and the dtype and device of `u`.
    """
    like, (u, mean) = u, exact(u, mean)
    p0 = torch.exp(-mean)

    def law(at: Tensor) -> _Law:
        m = mean.flatten()[at]
        return _Law(
            torch.zeros_like(m),
            m,
            lambda k, some: poisson_cdf(k, m[some]),
            lambda k, some: poisson_log_pmf(k, m[some]),
            (m + 10.0 * (m + 1.0).sqrt()).ceil(),
        )

    return _quantiles(u, p0, law).to(like)


def negative_binomial_quantile(u: Tensor, shape: Tensor, mean: Tensor) -> Tensor:
    """Smallest k with P(X ≤ k) ≥ u for X ~ NegBin(shape, mean): a Poisson whose rate is Gamma(shape, mean / shape).

    Parameters
    ----------
    u
        Probabilities in (0, 1).
    shape
        Shapes r > 0; the variance is mean + mean² / shape. Broadcast against `u`.
    mean
        Means, not negative; broadcast against `u`.

    Returns
    -------
    Tensor
        Whole numbers, of the broadcast shape and the dtype and device of `u`.
    """
    like, (u, shape, mean) = u, exact(u, shape, mean)
    p0 = torch.exp(-shape * torch.log1p(mean / shape))

    def law(at: Tensor) -> _Law:
        r, m = shape.flatten()[at], mean.flatten()[at]
        odds = m / (r + m)
        spread = (m + m.square() / r).sqrt()
        return _Law(
            odds,
            (r - 1.0) * odds,
            lambda k, some: negative_binomial_cdf(k, r[some], m[some]),
            lambda k, some: negative_binomial_log_pmf(k, r[some], m[some]),
            (m + 10.0 * spread + 10.0).ceil(),
        )

    return _quantiles(u, p0, law).to(like)


def binomial_quantile(u: Tensor, trials: Tensor, probability: Tensor) -> Tensor:
    """Smallest k with P(X ≤ k) ≥ u for X ~ Bin(trials, probability).

    Parameters
    ----------
    u
        Probabilities in (0, 1).
    trials
        Whole numbers of trials; broadcast against `u`.
    probability
        Success probabilities in [0, 1]; broadcast against `u`.

    Returns
    -------
    Tensor
        Whole numbers, of the broadcast shape and the dtype and device of `u`.
    """
    like, (u, trials, probability) = u, exact(u, trials, probability)
    # count the rarer outcome, so that the recursion starts from a probability that does not underflow
    flip = probability > 0.5
    rare = torch.where(flip, 1.0 - probability, probability)
    u = torch.where(flip, 1.0 - u, u)
    p0 = torch.exp(trials * torch.log1p(-rare))

    def law(at: Tensor) -> _Law:
        n, q = trials.flatten()[at], rare.flatten()[at]
        odds = q / (1.0 - q)

        def cdf(k: Tensor, some: Tensor) -> Tensor:
            inside = regularised_beta((n[some] - k).clamp(min=0.5), k + 1.0, 1.0 - q[some])
            return torch.where(k >= n[some], 1.0, inside)

        def log_pmf(k: Tensor, some: Tensor) -> Tensor:
            ways = torch.lgamma(n[some] + 1.0) - torch.lgamma(k + 1.0) - torch.lgamma(n[some] - k + 1.0)
            return ways + torch.xlogy(k, q[some]) + torch.xlogy(n[some] - k, 1.0 - q[some])

        return _Law(-odds, (n + 1.0) * odds, cdf, log_pmf, n)

    # a u beyond the rounding of the sum asks for more than there are
    k = torch.minimum(_quantiles(u, p0, law), trials)
    return torch.where(flip, trials - k, k).to(like)


def regularised_beta(a: Tensor, b: Tensor, x: Tensor) -> Tensor:
    """Regularised incomplete beta function I_x(a, b), by Lentz's continued fraction (DLMF 8.17.22), float64.

    Parameters
    ----------
    a, b
        Positive parameters.
    x
        Points in [0, 1].
    """
    swap = x > (a + 1.0) / (a + b + 2.0)  # the fraction converges fast on one side of the mean; reflect the other
    a, b, x = torch.where(swap, b, a), torch.where(swap, a, b), torch.where(swap, 1.0 - x, x)
    log_front = (
        torch.lgamma(a + b) - torch.lgamma(a) - torch.lgamma(b) + torch.xlogy(a, x) + b * torch.log1p(-x)
    ) - torch.log(a)

    c = torch.ones_like(x)
    d = 1.0 / (1.0 - (a + b) * x / (a + 1.0) + _TINY)
    fraction = d
    for m in range(1, 10_000):
        even = m * (b - m) * x / ((a + 2 * m - 1.0) * (a + 2 * m))
        d = 1.0 / (1.0 + even * d + _TINY)
        c = 1.0 + even / c + _TINY
        fraction = fraction * d * c
        odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1.0))
        d = 1.0 / (1.0 + odd * d + _TINY)
        c = 1.0 + odd / c + _TINY
        change = d * c
        fraction = fraction * change
        # not less: where counts are millions rounding alone makes a few times 1e-13
        if bool(((change - 1.0).abs() < 1e-11).all()):
            break
    value = torch.exp(log_front) * fraction
    return torch.where(swap, 1.0 - value, value)


def exact(*tensors: Tensor) -> tuple[Tensor, ...]:
    """Broadcast copies in float64, on the CPU where the device has none (MPS)."""
    device = tensors[0].device if tensors[0].device.type != "mps" else torch.device("cpu")
    exact = [t.to(device, torch.float64) for t in tensors]
    shape = torch.broadcast_shapes(*(t.shape for t in exact))
    return tuple(t.expand(shape) for t in exact)


@dataclass(frozen=True)
class _Law:
    """Panjer laws, all tensors one-dimensional.

    `cdf` and `log_pmf` map candidates, and the positions they belong to, onto cumulative and log probabilities; `high`
    is the whole number where bisection starts to look from above.
    """

    a: Tensor
    b: Tensor
    cdf: Callable[[Tensor, Tensor], Tensor]
    log_pmf: Callable[[Tensor, Tensor], Tensor]
    high: Tensor

    def quantile(self, u: Tensor, p0: Tensor) -> Tensor:
        """Smallest k with cdf(k) ≥ u."""
        k, pmf, total = torch.zeros_like(u), p0.clone(), p0.clone()
        far = (self.a + self.b > _NEAR * (1.0 - self.a)).nonzero().squeeze(1)
        if far.numel() > 0:
            guess = _normal_quantile(u[far], self.a[far], self.b[far]).clamp(min=0.0)
            k[far] = torch.minimum(guess, self.high[far])
            total[far], pmf[far] = self.cdf(k[far], far), self.log_pmf(k[far], far).exp()
        short = (total < u).nonzero().squeeze(1)
        passed = far[total[far] - pmf[far] >= u[far]]
        for at, walk in ((short, self._up), (passed, self._down)):
            k[at] = walk(at, u[at], k[at], pmf[at], total[at])
        return k

    def _up(self, at: Tensor, u: Tensor, k: Tensor, pmf: Tensor, total: Tensor) -> Tensor:
        """Quantiles at positions `at`, from k, where u is not reached, onwards."""
        quantile, left, n_steps = k.clone(), torch.arange(len(at), device=at.device), _FIRST_STEPS
        while 0 < left.numel() <= _MOST_STEPS * _most_at_once(u.device) // n_steps:
            ks = k.unsqueeze(1) + torch.arange(1.0, n_steps + 1.0, dtype=u.dtype, device=u.device)
            ps = pmf.unsqueeze(1) * self._ratio(at[left], ks).cumprod(1)
            sums = total.unsqueeze(1) + ps.cumsum(1)
            n_short = (sums < u[left].unsqueeze(1)).sum(1)
            quantile[left] = k + n_short + 1.0
            more = (n_short == n_steps).nonzero().squeeze(1)
            left, k, pmf, total = left[more], ks[more, -1], ps[more, -1], sums[more, -1]
            n_steps *= 2
        if left.numel() > 0:
            quantile[left] = self._bisect(at[left], u[left], k, torch.maximum(self.high[at[left]], k + 1.0))
        return quantile

    def _down(self, at: Tensor, u: Tensor, k: Tensor, pmf: Tensor, total: Tensor) -> Tensor:
        """Quantiles at positions `at`, from k, below which u is reached, backwards."""
        quantile, n_steps = k.clone(), _FIRST_STEPS
        deep = u < _DEEP * total
        lost, left = deep.nonzero().squeeze(1), (~deep).nonzero().squeeze(1)
        if lost.numel() > 0:
            quantile[lost] = self._bisect(at[lost], u[lost], torch.full_like(k[lost], -1.0), k[lost])
        k, pmf, total = k[left], pmf[left], total[left]
        while 0 < left.numel() <= _MOST_STEPS * _most_at_once(u.device) // n_steps:
            ks = k.unsqueeze(1) - torch.arange(1.0, n_steps + 1.0, dtype=u.dtype, device=u.device)
            ps = pmf.unsqueeze(1) / self._ratio(at[left], ks + 1.0).cumprod(1)
            # what is left below every one of them
            sums = (total - pmf).unsqueeze(1) - ps.cumsum(1)
            enough = sums < u[left].unsqueeze(1)
            quantile[left] = k - enough.int().argmax(1) - 1.0  # the first; no sense below 0, but that comes after
            more = (~enough.any(1)).nonzero().squeeze(1)
            left, k, pmf, total = left[more], ks[more, -1], ps[more, -1], sums[more, -1] + ps[more, -1]
            n_steps *= 2
        if left.numel() > 0:
            quantile[left] = self._bisect(at[left], u[left], torch.full_like(k, -1.0), k)
        return quantile

    def _ratio(self, at: Tensor, ks: Tensor) -> Tensor:
        """pmf(k) / pmf(k − 1), for several k of each position."""
        return self.a[at].unsqueeze(1) + self.b[at].unsqueeze(1) / ks

    def _bisect(self, at: Tensor, u: Tensor, low: Tensor, high: Tensor) -> Tensor:
        """Smallest whole k above `low` with cdf(k) ≥ u."""
        while bool((short := self.cdf(high, at) < u).any()):
            low, high = torch.where(short, high, low), torch.where(short, 2.0 * high, high)
        while bool((high - low > 1.0).any()):
            middle = ((low + high) / 2.0).floor()
            enough = self.cdf(middle, at) >= u
            low, high = torch.where(enough, low, middle), torch.where(enough, middle, high)
        return high


def _quantiles(u: Tensor, p0: Tensor, law: Callable[[Tensor], _Law]) -> Tensor:
    """Quantiles of counts that are 0 with probability `p0`, as most are; `law` is that of some flat positions."""
    shape, u, p0 = u.shape, u.flatten(), p0.flatten()
    result = 0.0 * p0  # NaN where the law is none: a broken network must not pass for an empty cell
    for at in (p0 < u).nonzero().squeeze(1).split(_most_at_once(u.device)):
        result[at] = law(at).quantile(u[at], p0[at])
    return result.view(shape)


def _most_at_once(device: torch.device) -> int:
    """Number of entries to work on at once: what fits a CPU's cache, and more where every loop waits for the host."""
    return 2**16 if device.type == "cpu" else 2**18


def _normal_quantile(u: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """Quantiles of a normal law, corrected for the skewness of a Panjer law (Cornish & Fisher 1938), rounded."""
    spread = 1.0 / (1.0 - a)  # variance over mean; the third moment is variance · (2 spread − 1)
    mean = (a + b) * spread
    z = torch.special.ndtri(u)
    guess: Tensor = mean + (mean * spread).sqrt() * z + (2.0 * spread - 1.0) * (z * z - 1.0) / 6.0
    return guess.round()

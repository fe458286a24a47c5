"""Random numbers that belong to a row, so that results do not depend on batches, chunks or workers."""

import torch
from torch import Tensor

_GOLDEN = -7046029254386353131  # 2^64 / golden ratio, odd, as a signed 64-bit integer


def _shift_right(z: Tensor, bits: int) -> Tensor:
    """Logical right shift (torch's ``>>`` copies the sign bit)."""
    return (z >> bits) & ((1 << (64 - bits)) - 1)


def _mix(z: Tensor) -> Tensor:
    """Finaliser of SplitMix64 (Steele, Lea & Flood 2014): a bijection of 64-bit integers that scatters every bit."""
    z = (z ^ _shift_right(z, 30)) * -4658895280553007687
    z = (z ^ _shift_right(z, 27)) * -7723592293110705685
    return z ^ _shift_right(z, 31)


class RowGenerator:
    """An independent SplitMix64 stream for every row of a batch.

    A draw depends on the seed, the row's key, and how many numbers that row has drawn before: never on which other rows
    share the batch, nor on the device.

    Parameters
    ----------
    seed
        Seed of the whole run.
    keys
        One 64-bit integer per row, shape ``(n_obs,)``; rows with equal keys draw equal numbers.
    stream
        Number of an independent repetition under the same seed, such as one of several samples.

    Raises
    ------
    TypeError
        If keys are no integers: those of .1 and .2 would be one.
    """

    def __init__(self, seed: int, keys: Tensor, stream: int = 0):
        if keys.is_floating_point():
            raise TypeError(f"keys are integers, one for each row; got {keys.dtype}.")
        self._state = _mix(_mix(_mix(keys.to(torch.int64)) + seed) + stream)
        self._drawn = 0

    def __len__(self) -> int:
        return len(self._state)

    def uniform(self, *event_shape: int, at: Tensor | None = None) -> Tensor:
        """Uniform numbers strictly between 0 and 1, float32.

        Parameters
        ----------
        *event_shape
            Shape of what every row draws.
        at
            Flat positions within ``(n_obs, *event_shape)`` of the numbers that are wanted, shape ``(n,)``; all by
            default. The others count as drawn.

        Returns
        -------
        Tensor
            Shape ``(n_obs, *event_shape)``, or that of `at`.
        """
        n_numbers = int(torch.Size(event_shape).numel())
        if at is None:
            state, place = self._state.unsqueeze(1), torch.arange(n_numbers, device=self._state.device)
        else:
            row = at // n_numbers
            state, place = self._state.index_select(0, row), at - row * n_numbers
        bits = _mix(state + (place + self._drawn + 1) * _GOLDEN)
        self._drawn += n_numbers
        # float32 holds 24 bits exactly; the half keeps 0 and 1 out, where quantile functions are infinite
        uniform = (_shift_right(bits, 41).to(torch.float32) + 0.5) * 2.0**-23
        return uniform.view(-1, *event_shape) if at is None else uniform


def check_generator(generator: RowGenerator, n_obs: int) -> None:
    """Check that a source of randomness has a stream for each of `n_obs` rows.

    Raises
    ------
    TypeError
        If it is something else than a :class:`RowGenerator`.
    ValueError
        If it has more or fewer rows.
    """
    if not isinstance(generator, RowGenerator):
        raise TypeError(f"Samples are drawn by a RowGenerator(seed, keys), a key for each row; got {generator!r}.")
    if len(generator) != n_obs:
        raise ValueError(f"The generator has {len(generator)} rows, and there are {n_obs} observations.")

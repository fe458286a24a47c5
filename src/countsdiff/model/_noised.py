"""Cells of one step of training, with all that is drawn for them."""

from collections.abc import Iterable
from dataclasses import dataclass, fields
from itertools import islice
from typing import Any

from torch import Tensor

from countsdiff.core.interfaces import Context
from countsdiff.core.loss import NoiseLevels
from countsdiff.core.process import NoisedCounts


@dataclass(frozen=True)
class NoisedCells:
    """Cells of one step of training, with all that is drawn for them.

    Attributes
    ----------
    context
        What is known of them.
    levels
        How far they are thinned, and the weights of their losses.
    counts
        The thinned counts.
    """

    context: Context
    levels: NoiseLevels
    counts: NoisedCounts

    @classmethod
    def of(cls, tensors: Iterable[Tensor]) -> "NoisedCells":
        """Put together again what :meth:`tensors` took apart."""
        left = iter(tensors)
        parts: list[Any] = [part(*islice(left, len(fields(part)))) for part in (Context, NoiseLevels, NoisedCounts)]
        return cls(*parts)

    def tensors(self) -> tuple[Tensor, ...]:
        """All tensors, of which every one has a row per cell."""
        parts = (self.context, self.levels, self.counts)
        return tuple(getattr(part, field.name) for part in parts for field in fields(part))

    def __len__(self) -> int:
        return len(self.levels.p)

    def __getitem__(self, rows: slice) -> "NoisedCells":
        return NoisedCells.of(tensor[rows] for tensor in self.tensors())

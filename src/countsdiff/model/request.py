"""What is wanted of every rewritten entry: a value object between the methods and the predictor."""

import math
import numbers
from dataclasses import dataclass, field
from typing import Literal, get_args

from countsdiff.arguments import check_choice, check_seed, check_whole
from countsdiff.core.repaint import RepaintConfig
from countsdiff.core.sampler import SamplerConfig
from countsdiff.model.missing import Task

Output = Literal["mean", "median", "log_mean", "sample"]


@dataclass(frozen=True)
class Request:
    """What is wanted of every rewritten entry.

    Attributes
    ----------
    output
        An :data:`Output`, or ``"rate"``: draws of the rate of which the counts are Poisson.
    n_samples
        Number of draws for ``output="sample"``.
    sampler
        Reverse path of joint samples.
    seed
        Seed of the samples.
    depth
        Depth that ``evidence`` tasks predict, relative to the cell's own.
    return_std, interval
        Whether to add standard deviations; coverage of the shortest interval to add, or ``None``.
    repaint
        Windows of RePaint, for samples drawn that way; ``None`` for conditional ones.
    first_draw
        Number of the first draw among all of a seed: requests for draws of other numbers are independent.
    """

    output: str = "mean"
    n_samples: int = 1
    sampler: SamplerConfig = field(default_factory=SamplerConfig)
    seed: int = 0
    depth: float = 1.0
    return_std: bool = False
    interval: float | None = None
    repaint: RepaintConfig | None = None
    first_draw: int = 0

    def __post_init__(self) -> None:
        if self.output != "rate":
            check_choice(get_args(Output), output=self.output)
        check_whole(1, n_samples=self.n_samples)
        check_seed(self.seed)
        if self.n_samples > 1 and self.output not in ("sample", "rate"):
            raise ValueError(f"n_samples={self.n_samples} needs output='sample'; {self.output!r} has one answer.")
        if self.interval is not None and not (isinstance(self.interval, numbers.Real) and 0.0 < self.interval < 1.0):
            raise ValueError(f"interval is a coverage between 0 and 1, such as 0.9; got {self.interval!r}.")
        if self.repaint is not None and (self.output != "sample" or self.return_std or self.interval is not None):
            raise ValueError(
                "method='repaint' draws samples and nothing else; choose output='sample', or average draws."
            )
        if not (isinstance(self.depth, numbers.Real) and 0.0 < self.depth < math.inf):
            raise ValueError(f"depth must be positive and finite; got {self.depth!r}.")

    def check_task(self, task: Task) -> None:
        """Check that RePaint has something to overwrite: where every entry was seen, draws are independent.

        Raises
        ------
        ValueError
            If it has not.
        """
        if self.repaint is not None and task.evidence:
            raise ValueError(
                "method='repaint' draws missing entries beside known ones, and here none is missing; name some with "
                "missing=, or leave out method."
            )

    def provenance(self) -> dict:
        """Settings as plain values, for the record."""
        return {
            "output": self.output,
            "n_samples": self.n_samples,
            "n_steps": self.sampler.n_steps,
            "spacing": self.sampler.spacing,
            "attrition": self.sampler.attrition,
            "attrition_kind": self.sampler.attrition_kind,
            "births": self.sampler.births,
            "method": "conditional" if self.repaint is None else "repaint",
            "seed": self.seed,
            "depth": self.depth,
            **({} if self.interval is None else {"interval": self.interval}),
        }

    def streams(self) -> range:
        """Numbers of the draws."""
        return range(self.first_draw, self.first_draw + self.n_samples)

    def names(self, key: str = "") -> list[str]:
        """Names of the matrices that come back, in order."""
        suffixes = [""] if self.n_samples == 1 else [f"_{i}" for i in range(self.n_samples)]
        suffixes += ["_std"] * self.return_std + ["_lower", "_upper"] * (self.interval is not None)
        return [key + suffix for suffix in suffixes]

"""How a trained model of images is asked: guided, below the ceiling, by which steps."""

from dataclasses import replace
from typing import Literal, TypedDict

import torch
from torch import Tensor

from countsdiff.core.denoiser import Denoiser
from countsdiff.core.guidance import ClassifierFreeGuidance
from countsdiff.core.interfaces import Context, DenoiserFn, Intensity
from countsdiff.core.sampler import BirthRule, SamplerConfig
from countsdiff.image.config import ImageConfig

Output = Literal["mean", "sample"]


class SamplerOptions(TypedDict, total=False):
    """How images are drawn, in place of what the configuration has under these names; None for what it has."""

    sample_steps: int | None
    guidance: float | None
    attrition: float | None
    births: BirthRule | None


def prepared(
    denoiser: Denoiser, config: ImageConfig, options: SamplerOptions, *, guided: bool, output: Output
) -> tuple[DenoiserFn, SamplerConfig]:
    """Guided denoiser that keeps below the ceiling, and the steps to take.

    Parameters
    ----------
    denoiser, config
        The trained denoiser, and its configuration.
    options
        What is wanted in place of what the configuration has.
    guided
        Whether there are covariates to be guided by.
    output
        What is to be drawn or said: guidance is 1 for a mean unless it is given, since under any other λ is no
        expectation.
    """
    if unknown := sorted(options.keys() - SamplerOptions.__annotations__.keys()):
        names = ", ".join(SamplerOptions.__annotations__)
        raise TypeError(f"There is no option {unknown[0]!r} of drawing images; there are {names}.")
    own = config if output == "sample" else replace(config, guidance=1.0)
    settings = own.with_options(**options)
    guidance = ClassifierFreeGuidance(settings.guidance if guided else 1.0)
    device_type, mixed = denoiser.mean.device.type, settings.precision == "bf16-mixed"

    @torch.no_grad()
    def predict(x_t: Tensor, p: Tensor, context: Context) -> Intensity:
        with torch.autocast(device_type, torch.bfloat16, enabled=mixed):
            intensity: Intensity = denoiser(x_t, p, context)
        return intensity

    return _below(guidance.wrap(predict), config.ceiling), settings.sampler()


def mean_lost(denoiser: DenoiserFn, x: Tensor, p: float, context: Context) -> Tensor:
    """Mean of what is lost at `p`."""
    return denoiser(x, torch.full_like(x[:, :1], p), context).mean * (1.0 - p)


def _below(denoiser: DenoiserFn, ceiling: float) -> DenoiserFn:
    """Keep lost counts within the room there is, which guidance and heads without a ceiling may overstep."""

    def bounded(x_t: Tensor, p: Tensor, context: Context) -> Intensity:
        intensity = denoiser(x_t, p, context)
        # a millionth less: a mean a rounding error above a whole number would be rounded up now and then
        room = (1.0 - 1e-6) * (ceiling - x_t).clamp(min=0.0)
        # where nothing is left to be lost p may round to 1
        most = torch.where(room > 0.0, room / (1.0 - p), 0.0)
        return replace(intensity, mean=torch.minimum(intensity.mean, most))

    return bounded

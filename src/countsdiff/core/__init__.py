"""The diffusion model itself, on tensors: schedules, thinning, losses, denoiser, guidance, sampler.

Convention, everywhere: t = 0 is data, t = 1 is the empty state, p(t) the share of molecules that survives. Counts are
float32 tensors that hold whole numbers. Nothing here knows of AnnData, scvi-tools or Lightning.
"""

from countsdiff.core.calibration import Calibration, Corrections
from countsdiff.core.count_law import CountLaw
from countsdiff.core.denoiser import Denoiser
from countsdiff.core.ema import ExponentialMovingAverage
from countsdiff.core.factors import FactorModel
from countsdiff.core.guidance import ClassifierFreeGuidance, Guidance
from countsdiff.core.heads import BoundedHead, Entries, GammaHead, Head, RateHead, X0Head
from countsdiff.core.interfaces import Backbone, Context, Evidence, Intensity
from countsdiff.core.jump import PoissonRandomisation
from countsdiff.core.loss import TimeSampler, bregman_loss, get_weight, negative_binomial_loss
from countsdiff.core.process import NoisedCounts, bridge, noise, thin
from countsdiff.core.random import RowGenerator
from countsdiff.core.repaint import RepaintConfig, repaint
from countsdiff.core.sampler import SamplerConfig, SamplerState, sample
from countsdiff.core.schedule import (
    BlackoutSchedule,
    CosineSchedule,
    CustomSchedule,
    JumpSchedule,
    LinearSchedule,
    LogitLinearSchedule,
    ScheduleValue,
    SurvivalSchedule,
    get_schedule,
)

__all__ = [
    "Backbone",
    "BlackoutSchedule",
    "BoundedHead",
    "Calibration",
    "ClassifierFreeGuidance",
    "Context",
    "Corrections",
    "CosineSchedule",
    "CountLaw",
    "CustomSchedule",
    "Denoiser",
    "Entries",
    "Evidence",
    "ExponentialMovingAverage",
    "FactorModel",
    "GammaHead",
    "Guidance",
    "Head",
    "Intensity",
    "JumpSchedule",
    "LinearSchedule",
    "LogitLinearSchedule",
    "NoisedCounts",
    "PoissonRandomisation",
    "RateHead",
    "RepaintConfig",
    "RowGenerator",
    "SamplerConfig",
    "SamplerState",
    "ScheduleValue",
    "SurvivalSchedule",
    "TimeSampler",
    "X0Head",
    "bregman_loss",
    "bridge",
    "get_schedule",
    "get_weight",
    "negative_binomial_loss",
    "noise",
    "repaint",
    "sample",
    "thin",
]

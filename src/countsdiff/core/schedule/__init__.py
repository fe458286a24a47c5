"""Survival schedules: which share of the molecules is still there at time t."""

from collections.abc import Callable

from torch import Tensor

from countsdiff.core.schedule._base import ScheduleValue, Spacing, SurvivalSchedule, check_schedule
from countsdiff.core.schedule._continuous import CosineSchedule, CustomSchedule, LinearSchedule, LogitLinearSchedule
from countsdiff.core.schedule._discrete import BlackoutSchedule, JumpSchedule

_SCHEDULES: dict[str, Callable[[], SurvivalSchedule]] = {
    "cosine": CosineSchedule,
    "linear": LinearSchedule,
    "logit_linear": LogitLinearSchedule,
    "blackout": BlackoutSchedule,
    "jump": JumpSchedule,
}


def get_schedule(schedule: str | SurvivalSchedule | Callable[[Tensor], Tensor]) -> SurvivalSchedule:
    """Return a schedule from its name, a function of t, or a schedule itself.

    Parameters
    ----------
    schedule
        ``"cosine"``, ``"linear"``, ``"logit_linear"``, ``"blackout"`` or ``"jump"``; or a decreasing torch function of
        t; or a schedule.

    Raises
    ------
    ValueError
        If the name is unknown.
    """
    if isinstance(schedule, SurvivalSchedule):
        return schedule
    if callable(schedule):
        return CustomSchedule(schedule)
    if schedule not in _SCHEDULES:
        raise ValueError(f"Unknown schedule {schedule!r}; choose one of {sorted(_SCHEDULES)} or give a function of t.")
    return _SCHEDULES[schedule]()


__all__ = [
    "BlackoutSchedule",
    "CosineSchedule",
    "CustomSchedule",
    "JumpSchedule",
    "LinearSchedule",
    "LogitLinearSchedule",
    "ScheduleValue",
    "Spacing",
    "SurvivalSchedule",
    "check_schedule",
    "get_schedule",
]

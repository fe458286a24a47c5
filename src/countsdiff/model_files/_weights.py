from pathlib import Path

import torch
from torch import Tensor, nn

from countsdiff.model_files._error import ModelFileError, believing


def write_weights(module: nn.Module, path: Path) -> None:
    """Write the weights and buffers of a module as safetensors.

    Raises
    ------
    ValueError
        If a weight is no number: such a file could not be read again.
    """
    from safetensors.torch import save

    state = {name: value.detach().contiguous() for name, value in module.state_dict().items()}
    if (fault := _no_number(state, module)) is not None:
        raise ValueError(f"The weights {fault}, and the model is of no use; train it again.")
    path.write_bytes(save(state))  # safetensors' own way to a file hides it from all but the owner


def read_weights(path: Path) -> dict[str, Tensor]:
    """Read a safetensors file, on the CPU.

    Raises
    ------
    ModelFileError
        If it is none, or not whole.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    with believing(path):
        try:
            return load_file(path)
        except SafetensorError as error:
            raise ValueError(f"it is no whole safetensors file ({error})") from error


def check_weights(state: dict[str, Tensor], module: nn.Module, path: Path) -> None:
    """Check that weights are all numbers, and those of a module, which may be one without memory (device "meta").

    Raises
    ------
    ModelFileError
        If there are others, or of other shapes or types.
    """
    with believing(path):
        expected = module.state_dict()
        if lacking := sorted(set(expected) - set(state)):
            raise ValueError(f"it lacks {lacking[0]!r} and {len(lacking) - 1} other weights of the model described")
        if extra := sorted(set(state) - set(expected)):
            raise ValueError(f"it has weights that the model described does not have, such as {extra[0]!r}")
        for name, wanted in expected.items():
            found = state[name]
            if (found.shape, found.dtype) != (wanted.shape, wanted.dtype):
                raise ValueError(
                    f"{name!r} is {found.dtype} of shape {tuple(found.shape)}, not {wanted.dtype} of shape "
                    f"{tuple(wanted.shape)} as in the model described"
                )
        if (fault := _no_number(state, module)) is not None:
            raise ModelFileError(f"{path}: the weights {fault}; train the model again.")


def _no_number(state: dict[str, Tensor], module: nn.Module) -> str | None:
    """What is wrong with the first weight that is NaN, or infinite, as buffers may be."""
    learned = {name for name, _ in module.named_parameters()}
    for name, value in state.items():
        if bool(torch.isnan(value).any()) or (name in learned and not bool(torch.isfinite(value).all())):
            return f"of {name!r} are not all numbers"
    return None

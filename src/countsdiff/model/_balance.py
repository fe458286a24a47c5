"""How much entries count in the losses where modalities are trained together: genes, proteins, peaks."""

import torch
from torch import Tensor

from countsdiff.core.denoiser import Denoiser
from countsdiff.core.interfaces import Intensity


def variable_weights(denoiser: Denoiser) -> Tensor | float:
    """Weight of every variable, with which modalities count alike: a dozen proteins, and thousands of genes."""
    if denoiser.n_groups == 1:
        return 1.0
    mean, sizes = denoiser.mean, denoiser.group_sizes
    # filled on the device: a tensor made of numbers of the host would have it wait, at every step
    return torch.cat([mean.new_full((size,), sum(sizes) / (len(sizes) * size)) for size in sizes])


def precision(denoiser: Denoiser, intensity: Intensity, to_go: Tensor) -> Tensor | float:
    """Weight of every entry in the loss of its mean; 1 where there is one modality.

    A Poisson loss takes the variance of a count for its mean. It is mean + mean² / shape, hundreds of times as much for
    proteins: unweighted, the strongest would drown all others. The weight is the geometric mean of two ratios of
    Poisson's variance to this one, that of the variable and that of the entry. By the variable alone, cells that
    plainly express a protein drown those that hardly do; by the entry alone, the former are predicted badly.

    Parameters
    ----------
    denoiser
        Knows means and dispersions of the variables.
    intensity
        Its answer, ``(n_obs, n_vars)``.
    to_go
        1 − p, which its means are multiplied by, ``(n_obs, 1)``.
    """
    if denoiser.n_groups == 1:
        return 1.0
    of_variable = 1.0 + denoiser.mean / denoiser.dispersion
    of_entry = 1.0 + to_go * intensity.mean.detach() / predicted_shape(denoiser, intensity).detach()
    return torch.rsqrt(of_variable * of_entry)


def predicted_shape(denoiser: Denoiser, intensity: Intensity) -> Tensor:
    """Gamma shape of every entry; that of its variable where the head predicts none."""
    return denoiser.dispersion.expand_as(intensity.mean) if intensity.shape is None else intensity.shape

"""The backbone for images: a U-Net of diffusers' blocks."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from countsdiff.core.interfaces import Evidence
from countsdiff.nn.embed import CovariateEmbedding, zeroed

_LONGEST = 1000.0  # time that the sinusoids of the U-Net resolve


class UNet(nn.Module):
    """U-Net over images whose pixels are the variables: channels first, then rows, then columns.

    Of every pixel it sees what the other backbones see of a gene: how far it departs from expectation, and exposure.
    The noise level enters as the angle arcsin √p, on which the noise of a binomial has about the same spread
    everywhere; it is not rounded to one of a thousand times. Covariates are added to its embedding. Weights and images
    are kept with channels last.

    Parameters
    ----------
    shape
        Channels, height and width; the sides must be divisible by two as often as there are levels below the first.
    n_categories
        Number of categories of each categorical covariate.
    n_continuous
        Number of continuous covariates.
    widths
        Channels at every level.
    depth
        Residual blocks of a level.
    attention
        Levels with self-attention, counted from 0, the finest.
    dropout
        Share of hidden units dropped in training.
    n_groups
        Groups of the group normalisation, a divisor of all widths.
    estimate
        Whether the denoiser has an estimate of its own, which is one more input then.

    Raises
    ------
    ImportError
        If diffusers is not installed.
    ValueError
        If the sides of the images cannot be halved as often as asked, or there is no such level.
    """

    def __init__(
        self,
        shape: tuple[int, int, int],
        n_categories: Sequence[int] = (),
        n_continuous: int = 0,
        *,
        widths: Sequence[int] = (128, 256, 256, 256),
        depth: int = 2,
        attention: Sequence[int] = (2,),
        dropout: float = 0.1,
        n_groups: int = 32,
        estimate: bool = False,
    ):
        super().__init__()
        try:
            from diffusers.models.unets.unet_2d import UNet2DModel
        except ImportError as error:
            raise ImportError(f"Images need diffusers ({error}): pip install 'countsdiff[image]'.") from error

        n_channels, *sides = shape
        if any(side % 2 ** (len(widths) - 1) for side in sides):
            raise ValueError(
                f"A U-Net of {len(widths)} levels halves its images {len(widths) - 1} times, which {sides[0]} × "
                f"{sides[1]} pixels do not allow; use fewer levels or another size."
            )
        if absent := [level for level in attention if not 0 <= level < len(widths)]:
            raise ValueError(f"attention names level {absent[0]}; there are {len(widths)}, 0 the finest.")
        kinds = ["Attn" if level in attention else "" for level in range(len(widths))]
        self.shape = shape
        self.covariates = CovariateEmbedding(n_categories, n_continuous)
        self.condition = nn.Sequential(
            nn.Linear(2 + self.covariates.n_features, widths[0]), nn.SiLU(), nn.Linear(widths[0], 4 * widths[0])
        )
        self.unet = UNet2DModel(
            sample_size=(sides[0], sides[1]),
            in_channels=(3 if estimate else 2) * n_channels,
            out_channels=widths[0],
            block_out_channels=tuple(widths),
            layers_per_block=depth,
            down_block_types=tuple(f"{kind}DownBlock2D" for kind in kinds),
            up_block_types=tuple(f"{kind}UpBlock2D" for kind in reversed(kinds)),
            attention_head_dim=min(64, *widths),
            norm_num_groups=n_groups,
            dropout=dropout,
            class_embed_type="identity",
            add_attention=any(kinds),
        )
        self.log_mean = zeroed(nn.Conv2d(widths[0], n_channels, 1))
        self.log_shape = zeroed(nn.Conv2d(widths[0], n_channels, 1))
        for parameter in self.parameters():
            if parameter.ndim == 4:
                parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)

    def forward(self, evidence: Evidence) -> tuple[Tensor, Tensor]:
        """See :class:`countsdiff.core.interfaces.Backbone`."""
        n_obs = len(evidence.log_ratio)
        # what neighbours have to say is their average, of ratios rather than of their logarithms
        channels = [torch.expm1(evidence.log_ratio), evidence.exposure]
        if evidence.estimate is not None:
            channels.append(evidence.estimate / evidence.base - 1.0)
        seen = torch.cat([v.view(n_obs, *self.shape) for v in channels], dim=1)
        seen = seen.contiguous(memory_format=torch.channels_last)
        features = self.covariates(evidence.categories, evidence.continuous)
        condition = self.condition(torch.cat([evidence.summary[:, 1:], features], dim=1))
        (h,) = self.unet(seen, noise_time(evidence.summary[:, 0]), class_labels=condition, return_dict=False)
        return self.log_mean(h).flatten(1), self.log_shape(h.detach()).flatten(1)


def noise_time(p: Tensor) -> Tensor:
    """Time of a survival probability on the cosine schedule, from 1000 at p = 0 down to 0; a fraction as it is."""
    return _LONGEST * (1.0 - torch.asin(p.sqrt()) * (2.0 / math.pi))

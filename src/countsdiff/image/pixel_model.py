"""A trained model of images: it generates, fills in and denoises."""

import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, Unpack, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from countsdiff.arguments import check_choice
from countsdiff.core.denoiser import Denoiser
from countsdiff.core.interfaces import Context, DenoiserFn
from countsdiff.core.random import RowGenerator
from countsdiff.core.repaint import repaint
from countsdiff.core.sampler import SamplerConfig, SamplerState, sample
from countsdiff.image._files import Categories, Shape, read, write
from countsdiff.image.config import ImageConfig
from countsdiff.image.data import LARGEST, check_codes
from countsdiff.image.sampling import Output, SamplerOptions, mean_lost, prepared

Pixels = NDArray[np.uint8]
Method = Literal["conditional", "repaint"]


@dataclass(frozen=True)
class PixelModel:
    """A trained denoiser with what belongs to it.

    Attributes
    ----------
    denoiser
        Denoiser with averaged weights.
    config
        Settings it was trained with, which also say how to sample.
    shape
        Channels, height and width.
    categories
        Names of the categories of every covariate.
    """

    denoiser: Denoiser
    config: ImageConfig
    shape: Shape
    categories: Categories

    def save(self, folder: str | Path) -> None:
        """Write weights (``model.safetensors``) and settings (``config.json``), both or neither."""
        write(Path(folder), self.denoiser, self.config, self.shape, self.categories)

    @classmethod
    def load(cls, folder: str | Path, device: torch.device | str = "cpu") -> "PixelModel":
        """Read what :meth:`save` wrote.

        Raises
        ------
        FileNotFoundError
            If there is no trained model in the folder.
        countsdiff.model_files.ModelFileError
            If a file is not whole, or the weights are not those of the model that ``config.json`` describes.
        """
        denoiser, config, shape, categories = read(Path(folder))
        return cls(denoiser.to(device).eval(), config, shape, categories)

    def sample(
        self,
        n: int,
        *,
        codes: NDArray[np.int64] | None = None,
        seed: int = 0,
        first: int = 0,
        batch_size: int = 64,
        callback: Callable[[SamplerState], None] | None = None,
        **options: Unpack[SamplerOptions],
    ) -> Pixels:
        """Draw new images.

        Parameters
        ----------
        n
            Number of images.
        codes
            Codes of their covariates, shape ``(n, n_covariates)``, −1 for unknown; None for unknown throughout.
        seed
            Seed; an image depends on it, on its number and on its codes only.
        first
            Number of the first image: several calls may share the work.
        batch_size
            Images at a time.
        callback
            Called after every step of every batch with a :class:`~countsdiff.core.SamplerState`.
        **options
            `sample_steps`, `guidance`, `attrition`, `births`, in place of those of the configuration.

        Returns
        -------
        numpy.ndarray
            uint8, shape ``(n, n_channels, height, width)``.
        """
        denoiser, config = self._sampler(options)
        nothing = np.broadcast_to(np.zeros(1, dtype=np.uint8), (n, *self.shape))
        everywhere = np.broadcast_to(np.ones(1, dtype=bool), nothing.shape)
        drawn = [
            self._to_pixels(sample(denoiser, context, generator, config, callback))
            for context, generator in self._batches(nothing, everywhere, codes, seed, batch_size, first)
        ]
        return _joined(drawn, nothing)

    def inpaint(
        self,
        pixels: Pixels,
        hidden: NDArray[np.bool_],
        *,
        output: Output = "mean",
        method: Method = "conditional",
        codes: NDArray[np.int64] | None = None,
        seed: int = 0,
        batch_size: int = 64,
        **options: Unpack[SamplerOptions],
    ) -> NDArray[Any]:
        """Fill in hidden pixels; the others come back as they are, and the hidden ones are not looked at.

        Parameters
        ----------
        pixels
            Images, uint8, shape ``(n, n_channels, height, width)``.
        hidden
            Pixels to fill in; boolean, shape ``(n, height, width)``.
        output
            ``"mean"``: expected intensity given the other pixels, float32, in one pass; ``"sample"``: a draw, uint8.
        method
            ``"conditional"`` for models trained with hidden pixels; ``"repaint"``, which only samples, for any.
        codes, seed, batch_size, **options
            As for :meth:`sample`; guidance is 1 for a mean unless it is given, since any other makes another law.

        Raises
        ------
        ValueError
            If the shapes do not fit, `output` or `method` is unknown, or a mean is asked of RePaint.
        """
        self._check(pixels)
        check_choice(get_args(Output), output=output)
        check_choice(get_args(Method), method=method)
        if hidden.shape != (len(pixels), *self.shape[1:]) or hidden.dtype != bool:
            raise ValueError(
                f"hidden is boolean of shape (n, height, width), {(len(pixels), *self.shape[1:])}; got {hidden.dtype} "
                f"of shape {hidden.shape}."
            )
        if method == "repaint" and output == "mean":
            raise ValueError("RePaint draws samples only; ask for output='sample', or for method='conditional'.")
        if method == "conditional" and self.config.share_generated == 1.0 and not hidden.all():
            warnings.warn(
                "In training all pixels of every image were hidden (share_generated is 1): the model does not know "
                "what to make of those that are not. method='repaint' with output='sample' is for such models.",
                stacklevel=2,
            )
        everywhere = np.broadcast_to(hidden[:, None], pixels.shape)
        denoiser, config = self._sampler(options, output)
        walk = repaint if method == "repaint" else sample
        filled: list[NDArray[Any]] = []
        for context, generator in self._batches(pixels, everywhere, codes, seed, batch_size):
            if output == "mean":
                nothing = torch.zeros_like(context.counts)
                filled.append(self._to_intensities(mean_lost(denoiser, nothing, 0.0, context)))
            else:
                filled.append(self._to_pixels(walk(denoiser, context, generator, config)))
        answer = _joined(filled, pixels)
        return np.where(everywhere, answer, pixels.astype(answer.dtype))

    def denoise(
        self,
        thinned: Pixels,
        p: float,
        *,
        output: Output = "mean",
        codes: NDArray[np.int64] | None = None,
        seed: int = 0,
        batch_size: int = 64,
        **options: Unpack[SamplerOptions],
    ) -> NDArray[Any]:
        """Restore images of which every photon was kept with probability `p` only.

        Parameters
        ----------
        thinned
            Photons that were kept, uint8, shape ``(n, n_channels, height, width)``.
        p
            Share of the photons that was kept, in [0, 1).
        output
            ``"mean"``: expected intensity before thinning, float32, in one pass; ``"sample"``: a draw, uint8.
        codes, seed, batch_size, **options
            As for :meth:`sample`; without attrition, which would take photons that were counted, and for a mean with
            guidance 1 unless it is given.

        Raises
        ------
        ValueError
            If the shapes do not fit, `p` is out of range, `output` is unknown, or the model is one of numbers drawn
            from pixels (JUMP), which are no photons.
        """
        self._check(thinned)
        check_choice(get_args(Output), output=output)
        if not 0.0 <= p < 1.0:
            raise ValueError(f"p is the share of photons that was kept, in [0, 1); got {p:g}.")
        if (scale := self.config.jump_scale) is not None:
            raise ValueError(
                f"The model counts {scale:g} for a photon, drawn at random (jump_scale), and cannot tell how many were "
                "kept."
            )
        denoiser, config = self._sampler({**options, "attrition": 0.0}, output)
        restored: list[NDArray[Any]] = []
        seen = np.broadcast_to(np.zeros(1, dtype=bool), thinned.shape)
        for given, generator in self._batches(thinned, seen, codes, seed, batch_size):
            x = given.counts  # where the path is, rather than what is known of its end
            context = replace(given, counts=torch.zeros_like(x), known=given.noised, noised=given.known)
            if output == "mean":
                restored.append(self._to_intensities(x + mean_lost(denoiser, x, p, context)))
            else:
                restored.append(self._to_pixels(sample(denoiser, context, generator, config, start=x, p=p)))
        return _joined(restored, thinned)

    def _sampler(self, options: SamplerOptions, output: Output = "sample") -> tuple[DenoiserFn, SamplerConfig]:
        return prepared(self.denoiser, self.config, options, guided=len(self.categories) > 0, output=output)

    def _batches(
        self,
        pixels: Pixels,
        hidden: NDArray[np.bool_],
        codes: NDArray[np.int64] | None,
        seed: int,
        batch_size: int,
        first: int = 0,
    ) -> Iterator[tuple[Context, RowGenerator]]:
        """Contexts of equal size, filled up at the end: products of another size would round differently."""
        n, device = len(pixels), self._device()
        if codes is None:
            codes = np.full((n, len(self.categories)), -1)
        if codes.shape != (n, len(self.categories)):
            raise ValueError(f"codes have the shape (n, n_covariates), {(n, len(self.categories))}; got {codes.shape}.")
        check_codes(codes, self.categories)
        scale = self.config.jump_scale or 1.0
        for start in range(0, n, batch_size):
            rows = np.arange(start, start + batch_size)
            at = rows % n
            noised = torch.from_numpy(hidden[at]).to(device).flatten(1)
            counts = torch.from_numpy(pixels[at]).to(device, torch.float32).flatten(1) * scale
            yield (
                Context(
                    counts=torch.where(noised, 0.0, counts.round()),
                    known=~noised,
                    noised=noised,
                    categories=torch.from_numpy(codes[at]).to(device),
                    continuous=torch.empty(batch_size, 0, device=device),
                ),
                RowGenerator(seed, torch.from_numpy(first + rows).to(device)),
            )

    def _to_intensities(self, counts: Tensor) -> NDArray[np.float32]:
        intensities = (counts / (self.config.jump_scale or 1.0)).clamp(0.0, LARGEST)
        if intensities.isnan().any():
            raise ValueError("The model says NaN: its weights are broken, or guidance is far too strong.")
        return intensities.view(-1, *self.shape).cpu().numpy()

    def _to_pixels(self, counts: Tensor) -> Pixels:
        return self._to_intensities(counts).round().astype(np.uint8)

    def _device(self) -> torch.device:
        return self.denoiser.mean.device

    def _check(self, pixels: Pixels) -> None:
        if pixels.shape[1:] != self.shape or pixels.dtype != np.uint8:
            raise ValueError(
                f"The model knows uint8 images of shape {self.shape}; got {pixels.dtype} of shape {pixels.shape[1:]}."
            )


def _joined(batches: list[NDArray[Any]], images: Pixels) -> NDArray[Any]:
    """One after the other, as many as there are images."""
    return np.concatenate(batches)[: len(images)] if batches else np.empty_like(images)

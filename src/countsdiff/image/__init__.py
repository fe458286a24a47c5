"""Images on the core that the cells use: pixel intensities 0 to 255 are counts."""

from countsdiff.image.config import ImageConfig, config_names, get_config
from countsdiff.image.data import Images
from countsdiff.image.evaluate import feature_distance, inception_scores, resnet_frechet_distance
from countsdiff.image.grid import image_grid, save_grid
from countsdiff.image.pixel_model import PixelModel
from countsdiff.image.reading import has_split, read_images
from countsdiff.image.training import train

__all__ = [
    "ImageConfig",
    "Images",
    "PixelModel",
    "config_names",
    "feature_distance",
    "get_config",
    "has_split",
    "image_grid",
    "inception_scores",
    "read_images",
    "resnet_frechet_distance",
    "save_grid",
    "train",
]

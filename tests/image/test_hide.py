import numpy as np
import torch

from countsdiff.image.hide import central_block, hide_pixels, scattered

SHAPE = torch.Size([4000, 3, 6, 5])


def test_a_pixel_is_hidden_in_all_channels_or_in_none(generator):
    hidden = hide_pixels(SHAPE, 0.25, generator).view(SHAPE)
    assert torch.equal(hidden, hidden[:, :1].expand(SHAPE))
    assert bool(hidden.flatten(1).any(1).all())


def test_shares_are_as_asked(generator):
    everything = hide_pixels(SHAPE, 0.25, generator).all(1).float().mean()
    # a quarter by request, and some few rectangles and scattered pixels that happen to cover the image
    assert 0.22 < float(everything) < 0.33
    assert bool(hide_pixels(SHAPE, 1.0, generator).all())


def test_the_others_are_scattered_or_rectangles(generator):
    hidden = hide_pixels(SHAPE, 0.0, generator).view(SHAPE)[:, 0]
    rows, columns = hidden.any(2), hidden.any(1)
    rectangle = (hidden == (rows.unsqueeze(2) & columns.unsqueeze(1))).flatten(1).all(1)
    whole = rectangle & ((rows.int().diff(dim=1) == 1).sum(1) <= 1) & ((columns.int().diff(dim=1) == 1).sum(1) <= 1)
    assert 0.48 < float(whole.float().mean()) < 0.65
    share = hidden[~whole].float().mean((1, 2))
    # shares are even on [0, 1]; those near the ends often look like rectangles
    assert 0.45 < float(share.mean()) < 0.55
    assert 0.2 < float(share.std()) < 0.3


def test_masks_for_test_images():
    assert np.array_equal(scattered(3, (8, 8), 0.5, 1), scattered(3, (8, 8), 0.5, 1))
    assert abs(scattered(50, (8, 8), 0.3, 1).mean() - 0.3) < 0.03
    block = central_block(2, (8, 12))
    assert block[:, 2:6, 3:9].all()
    assert block.sum() == 2 * 4 * 6

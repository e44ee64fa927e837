"""Image encoders: known sizes of ResNet-18, closed forms of the spatial softmax, crops as slices, bounds of colors."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box
from torch import nn

from lit_imitation.errors import ConfigError
from lit_imitation.networks.image_encoders import (
    ImageEncoder,
    Pixels,
    ResNetEncoder,
    SpatialSoftmax,
    resnet18,
)

LAYOUTS = {
    "HWC": ((9, 7, 3), lambda x: x.permute(0, 3, 1, 2)),
    "CHW": ((3, 9, 7), lambda x: x),
    "HW": ((9, 7), lambda x: x[:, None]),
    "frames of HWC": ((2, 9, 7, 3), lambda x: x.permute(0, 1, 4, 2, 3).reshape(len(x), 6, 9, 7)),
    "frames of HW": ((2, 9, 7), lambda x: x),
}


def images(shape, count=5):
    return torch.from_numpy(np.random.default_rng(0).integers(0, 256, (count, *shape)).astype(np.uint8))


def space(shape):
    return Box(0, 255, shape, np.uint8)


# --- ResNet-18 -------------------------------------------------------------------------------------------------------


def test_trunk_has_the_published_number_of_parameters():
    """ResNet-18 has 11,689,512 with its last layer of 512 · 1000 + 1000; GroupNorm has as many as BatchNorm."""
    trunk = resnet18(3)
    assert sum(one.numel() for one in trunk.parameters()) == 11_689_512 - 513_000
    assert not [one for one in trunk.modules() if isinstance(one, nn.BatchNorm2d)]
    norms = [one for one in trunk.modules() if isinstance(one, nn.GroupNorm)]
    assert len(norms) == 20
    assert {one.num_channels // one.num_groups for one in norms} == {16}


@pytest.mark.parametrize(("height", "width", "out"), [(64, 96, (2, 3)), (76, 76, (3, 3)), (33, 40, (2, 2))])
def test_trunk_divides_sides_by_32(height, width, out):
    with torch.no_grad():
        assert resnet18(1)(torch.zeros(1, 1, height, width)).shape == (1, 512, *out)


def test_rows_of_a_batch_do_not_depend_on_each_other():
    encoder, x = ResNetEncoder(space((40, 36, 3)), features=5, keypoints=4), images((40, 36, 3), 3)
    with torch.no_grad():
        together = encoder(x)
        assert together.shape == (3, 5)
        torch.testing.assert_close(encoder(x[1:2])[0], together[1], rtol=1e-4, atol=1e-5)


@pytest.mark.integration
def test_every_weight_of_the_resnet_has_a_gradient():
    encoder = ResNetEncoder(space((3, 34, 34)), features=5, keypoints=4)
    encoder(images((3, 34, 34), 2)).square().sum().backward()
    assert all(one.grad.abs().sum() > 0 for one in encoder.parameters())


# --- spatial softmax -------------------------------------------------------------------------------------------------


def test_one_hot_map_gives_the_place_of_its_pixel():
    maps = torch.full((4, 2, 3, 5), -1e4)
    places = [(0, 0), (0, 4), (2, 0), (1, 2)]
    for row, (i, j) in enumerate(places):
        maps[row, 0, i, j] = maps[row, 1, 2 - i, j] = 0.0
    expected = [[j / 2 - 1, i - 1, j / 2 - 1, 1 - i] for i, j in places]
    torch.testing.assert_close(SpatialSoftmax()(maps), torch.tensor(expected))


def test_coordinates_are_expectations():
    maps = np.random.default_rng(0).normal(size=(2, 3, 4, 5))
    found = SpatialSoftmax()(torch.from_numpy(maps)).numpy()
    for b in range(2):
        for k in range(3):
            p = np.exp(maps[b, k])
            p /= p.sum()
            x = sum(p[i, j] * (-1 + 2 * j / 4) for i in range(4) for j in range(5))
            y = sum(p[i, j] * (-1 + 2 * i / 3) for i in range(4) for j in range(5))
            np.testing.assert_allclose(found[b, 2 * k : 2 * k + 2], [x, y])


# --- crops and colors ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", LAYOUTS)
def test_crop_is_the_middle_without_gradients_or_training(layout):
    shape, to_frames = LAYOUTS[layout]
    x, pixels = images(shape), Pixels(space(shape), crop=[6, 4], color_jitter=0.5)
    expected = to_frames(x)[..., 1:7, 1:5] / 255
    assert torch.equal(pixels.eval()(x), expected)
    with torch.no_grad():
        assert torch.equal(pixels.train()(x), expected)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_random_crop_is_one_slice_of_each_image_and_reaches_all(layout):
    torch.manual_seed(0)
    shape, to_frames = LAYOUTS[layout]
    x = images(shape, 200)
    whole, cropped = to_frames(x) / 255, Pixels(space(shape), crop=[7, 4])(x)
    seen = set()
    for image, crop in zip(whole, cropped, strict=True):
        places = [
            (top, left) for top in range(3) for left in range(4)
            if torch.equal(image[:, top : top + 7, left : left + 4], crop)
        ]  # fmt: skip
        assert len(places) == 1
        seen |= set(places)
    assert len(seen) == 12


def test_whole_image_draws_nothing():
    x, pixels = images((9, 7, 3)), Pixels(space((9, 7, 3)), crop=[9, 7])
    state = torch.get_rng_state()
    assert torch.equal(pixels(x), x.permute(0, 3, 1, 2) / 255)
    assert torch.equal(torch.get_rng_state(), state)


def test_brightness_of_a_gray_image_is_scaled_within_its_bounds():
    """Contrast and saturation do not change an image of one gray."""
    torch.manual_seed(0)
    x = torch.full((500, 4, 4, 3), 102, dtype=torch.uint8)
    found = Pixels(space((4, 4, 3)), color_jitter=0.3)(x) / 0.4
    torch.testing.assert_close(found, found[:, :1, :1, :1].expand_as(found), rtol=1e-5, atol=0)
    factor = found[:, 0, 0, 0]
    assert 0.7 - 1e-5 <= float(factor.min()) < 0.72
    assert 1.28 < float(factor.max()) <= 1.3 + 1e-5


def test_jitter_is_brightness_then_contrast_then_saturation():
    x, pixels = images((5, 4, 3)), Pixels(space((5, 4, 3)), color_jitter=0.4)
    torch.manual_seed(3)
    found = pixels(x).numpy()
    torch.manual_seed(3)
    factors = 1 + 0.4 * (2 * torch.rand(3, 5).numpy() - 1)
    red_green_blue = np.array([0.2989, 0.587, 0.114])[:, None, None]
    for image, result, (brightness, contrast, saturation) in zip(
        x.permute(0, 3, 1, 2).numpy() / 255, found, factors.T, strict=True
    ):
        expected = np.clip(brightness * image, 0, 1)
        mean = (expected * red_green_blue).sum(0).mean()
        expected = np.clip(mean + contrast * (expected - mean), 0, 1)
        luminance = (expected * red_green_blue).sum(0)
        expected = np.clip(luminance + saturation * (expected - luminance), 0, 1)
        np.testing.assert_allclose(result, expected, atol=1e-5)


@pytest.mark.parametrize("shape", [(6, 5), (2, 6, 5), (2, 6, 5, 3)])
def test_jitter_stays_in_range_for_other_channels(shape):
    x = images(shape, 100)
    found = Pixels(space(shape), color_jitter=1.0)(x)
    assert found.min() == 0
    assert found.max() == 1
    assert not torch.equal(found, Pixels(space(shape))(x))


def test_crop_sets_the_size_of_the_network():
    assert ImageEncoder(space((84, 84, 3)), crop=76).layers[-2].in_features == 64 * 6 * 6
    assert ImageEncoder(space((84, 84, 3)), features=7)(images((84, 84, 3), 2)).shape == (2, 7)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"crop": 10}, r"front.crop is 10, larger than the image, whose height and width are \[9, 7\]"),
        ({"crop": [9, 8]}, r"front.crop is \[9, 8\], larger"),
        ({"crop": [3]}, r"front.crop is \[3\]; it must be one side, or height and width"),
        ({"crop": 0}, "front.crop is 0; it must be one side"),
        ({"color_jitter": 1.5}, r"front.color_jitter is 1.5; it must lie in \[0, 1\]"),
    ],
)
def test_invalid_pixels_raise(arguments, text):
    with pytest.raises(ConfigError, match=text):
        Pixels(space((9, 7, 3)), **arguments, name="front")


def test_invalid_encoders_raise():
    with pytest.raises(ConfigError, match=r"front is 'resnet18', but its images have 32×40 pixels; .* at least 33"):
        ResNetEncoder(space((40, 40, 3)), crop=[32, 40], name="front")
    with pytest.raises(ConfigError, match=r"front.keypoints is 0; it must be at least 1"):
        ResNetEncoder(space((40, 40, 3)), keypoints=0, name="front")
    with pytest.raises(ConfigError, match=r"front.features is 0; it must be at least 1"):
        ImageEncoder(space((40, 40, 3)), features=0, name="front")
    with pytest.raises(ConfigError, match=r"front.color_jitter is 0.1, but the images have no bounds"):
        Pixels(Box(-np.inf, np.inf, (9, 7, 3)), color_jitter=0.1, name="front")

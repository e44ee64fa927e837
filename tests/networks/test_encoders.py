"""Encoders of Dict and Tuple observations: a part each, split from rows of bytes or numbers."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary, MultiDiscrete, Tuple
from gymnasium.vector.utils import batch_space

from lit_imitation.errors import ConfigError
from lit_imitation.networks.encoders import Encoder
from lit_imitation.networks.image_encoders import ImageEncoder, ResNetEncoder
from lit_imitation.utils.spaces import FlatBox, PackedBox, flat_space

ROBOT = Dict(
    [
        ("state", Box(-2.0, 2.0, (3,), np.float64)),
        ("camera", Box(0, 255, (36, 34, 3), np.uint8)),
        ("inner", Dict([("kind", Discrete(3, start=-1)), ("wrist", Box(0, 255, (1, 30, 30), np.uint8))])),
        ("pair", Tuple([MultiDiscrete([2, 3], start=[0, 5]), MultiBinary(2)])),
        ("codes", Box(0, 9, (2,), np.uint8)),
    ]
)
VECTORS = Dict([("state", Box(-2.0, 2.0, (3,), np.float32)), ("kind", Discrete(3)), ("goal", Box(-1, 1, (2,)))])


def samples(original, count=4):
    """A batch of observations, flat as a tensor and as the parts by path."""
    space = flat_space(original)
    batch = batch_space(original, count)
    batch.seed(0)
    seen = batch.sample()
    return torch.from_numpy(space.flatten(seen)), seen


def test_split_gives_parts_as_views():
    space = flat_space(ROBOT)
    rows, seen = samples(ROBOT)
    parts = Encoder(space).encode.split(rows)
    assert list(parts) == ["state", "camera", "inner/kind", "inner/wrist", "pair/0", "pair/1", "codes"]
    for path, value in parts.items():
        first, _, rest = path.partition("/")
        wanted = seen[first] if not rest else seen[first][int(rest) if rest.isdigit() else rest]
        assert torch.equal(value.double(), torch.from_numpy(np.asarray(wanted)).float().double()), path
        inside = (
            rows.untyped_storage().data_ptr() <= value.data_ptr() < rows.untyped_storage().data_ptr() + rows.numel()
        )
        assert inside, path


@pytest.mark.parametrize("original", [ROBOT, VECTORS], ids=["packed", "flat"])
def test_features_are_those_of_the_parts_in_order(original):
    torch.manual_seed(0)
    encoder = Encoder(flat_space(original), {"state": {"kind": "mlp", "features": 5, "hidden_sizes": [4]}}).eval()
    split, (rows, _) = encoder.encode, samples(original)
    encoder.fit(rows)
    parts = split.split(rows)
    expected = torch.cat([one(parts[path]) for path, one in zip(split.paths, split.encoders, strict=True)], -1)
    assert torch.equal(encoder(rows), expected)
    assert torch.equal(split.encode_parts(parts), expected)
    assert encoder(rows).shape == (4, encoder.out_features)
    assert encoder(rows)[:, :5].min() >= 0, "the MLP of `state` comes first and ends with ReLU"


def test_kinds_by_path_choose_the_encoders():
    kinds = {"camera": {"kind": "resnet18", "features": 3, "crop": 33}, "inner/wrist": "vector"}
    encoders = dict(zip((one := Encoder(flat_space(ROBOT), kinds).encode).paths, one.encoders, strict=True))
    assert isinstance(encoders["camera"].encode, ResNetEncoder)
    assert encoders["camera"].out_features == 3
    assert encoders["inner/wrist"].standardize is not None
    automatic = Encoder(flat_space(ROBOT)).encode.encoders
    assert isinstance(automatic[1].encode, ImageEncoder)
    assert isinstance(automatic[3].encode, ImageEncoder)


def test_deviations_scale_standardized_vectors():
    space, x = Box(-9, 9, (3,), np.float32), torch.randn(40, 3) * 2 + 1
    one, three = Encoder(space), Encoder(space, {"kind": "vector", "deviations": 3.0})
    for encoder in (one, three):
        encoder.fit(x)
    torch.testing.assert_close(three(x), one(x) / 3)
    np.testing.assert_allclose(three.inference()(x.numpy()), three(x), atol=1e-6)
    split = Encoder(flat_space(VECTORS), {"state": {"kind": "vector", "deviations": 3.0}})
    assert [inputs.standardize.deviations for inputs in split.inputs] == [3.0, 1.0, 1.0]


def test_one_image_takes_options_without_a_path():
    space = Box(0, 255, (40, 40, 3), np.uint8)
    encoder = Encoder(space, {"kind": "image", "features": 9, "crop": 30})
    assert encoder(torch.zeros(2, 40, 40, 3, dtype=torch.uint8)).shape == (2, 9)


def test_dict_of_vectors_is_one_vector_by_default():
    encoder = Encoder(FlatBox(VECTORS))
    assert encoder.standardize is not None
    assert encoder.out_features == 8


@pytest.mark.parametrize("original", [ROBOT, VECTORS], ids=["packed", "flat"])
def test_vectors_of_all_parts_are_standardized(original):
    torch.manual_seed(0)
    encoder = Encoder(flat_space(original), {"state": "mlp"})
    rows, seen = samples(original, 300)
    others = seen["codes"] if original is ROBOT else np.concatenate([np.eye(3)[seen["kind"]], seen["goal"]], 1)
    numbers = torch.from_numpy(np.concatenate([seen["state"], others], 1)).float()
    assert encoder.vector_size == numbers.shape[1]
    assert torch.equal(encoder.vectors(rows), numbers)
    assert not encoder.fitted
    encoder.fit(rows)
    assert encoder.fitted
    means = torch.cat([one.standardize.mean for one in encoder.inputs])
    torch.testing.assert_close(means, numbers.mean(0), rtol=1e-4, atol=1e-5)
    other = Encoder(flat_space(original), {"state": "mlp"})
    other.set_statistics(numbers.mean(0), numbers.std(0, correction=0))
    again = Encoder(flat_space(original), {"state": "mlp"})
    again.copy_statistics(encoder)
    for name, value in encoder.state_dict().items():
        if ".mean" in name or ".inverse_std" in name:
            torch.testing.assert_close(other.state_dict()[name], value, rtol=1e-4, atol=1e-5)
            assert torch.equal(again.state_dict()[name], value)


def test_images_alone_have_nothing_to_standardize():
    space = flat_space(Dict(a=Box(0, 255, (30, 30), np.uint8), b=Box(0, 255, (30, 30), np.uint8)))
    encoder = Encoder(space)
    assert encoder.vectors(torch.zeros(3, *space.shape, dtype=torch.uint8)).shape == (3, 0)
    assert not encoder.fitted
    encoder.fit(torch.zeros(3, *space.shape, dtype=torch.uint8))


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        (
            {"camra": "image"},
            "encoder names 'camra', which is no observation: .*did you mean camera",
        ),
        ({"kind": "mlp"}, "encoder names 'kind', which is no observation"),
        (
            {"state": "image"},
            r"encoder.state is 'image', but the observation space is Box\(-2.0, 2.0, \(3,\)",
        ),
        ({"inner/kind": "mlp"}, r"encoder.inner/kind is 'mlp', but the observation space is Discrete"),
        ({"camera": "cnn"}, "encoder.camera is 'cnn'; choose one of auto, image, resnet18, vector, mlp"),
        (
            {"camera": {"kind": "resnet18", "crp": 3}},
            "encoder.camera has 'crp'; 'resnet18' takes features, key",
        ),
        ({"camera": {"crop": 30}}, "encoder.camera has 'crop'; 'auto' has no options: name a kind"),
        ({"camera": {"kind": "image", "crop": 99}}, r"encoder.camera.crop is 99, larger than the image"),
        ({"camera": {"kind": "image", "crop": "x"}}, "encoder.camera.crop is 'x'; it must be a whole number"),
        ({"camera": {"kind": "resnet18", "crop": 30}}, "encoder.camera is 'resnet18', but its images have 30×30"),
        ({"state": {"kind": "mlp", "features": 0}}, r"encoder.state has the sizes \[64, 0\]; each must be at least 1"),
        ({"state": {"kind": "vector", "deviations": 0}}, r"encoder.state.deviations is 0; it must be above 0"),
        ({"state": {"kind": "vector", "deviations": float("inf")}}, "encoder.state.deviations is inf"),
        ({"state": {"kind": "vector", "deviation": 2}}, "encoder.state has 'deviation'; 'vector' takes deviations"),
        ({"inner/kind": {"kind": "vector", "deviations": 2}}, r"encoder.inner/kind is 'vector', but the .* Discrete"),
        ("image", "encoder.state is 'image'"),
    ],
)
def test_invalid_kinds_raise_with_their_path(kind, text):
    with pytest.raises(ConfigError, match=text):
        Encoder(PackedBox(ROBOT), kind)

"""Demonstration files: round trip, one clear error for each fault, and no code run from a file."""

import dataclasses
import json
import os
import pickle
import zipfile
from pathlib import Path

import gymnasium
import h5py
import numpy as np
import pytest
import torch
from demonstration_files import CHOICE, IMAGE, PAIR, VECTOR, columns, save
from gymnasium.spaces import Box, Discrete
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lit_imitation.data.demonstrations import (
    Demonstrations,
    _write_npz,
    check,
    read_demonstrations,
    split,
    subsample,
    take,
    with_successors,
    write_demonstrations,
)
from lit_imitation.errors import ConfigError, DemonstrationError, UnsupportedSpaceError
from lit_imitation.transitions import Transitions

SUFFIXES = (".npz", ".hdf5", ".h5")


def record(lengths=(4, 6), observation_space=VECTOR, action_space=PAIR, seed=0, successors=True) -> Demonstrations:
    """Trajectories of these lengths; the first is truncated, the others terminate."""
    rng = np.random.default_rng(seed)
    total = sum(lengths)

    def values(space, rows):
        if isinstance(space, Discrete):
            return rng.integers(space.start, space.start + space.n, rows)
        if space.dtype == np.uint8:
            return rng.integers(0, 256, (rows, *space.shape), dtype=np.uint8)
        return rng.uniform(0, 1, (rows, *space.shape)).astype(np.float32)

    ends = np.zeros(total, dtype=bool)
    ends[np.cumsum(lengths) - 1] = True
    cut = ends & (np.arange(total) < lengths[0])
    arrays = {
        "observation": values(observation_space, total),
        "action": values(action_space, total),
        "reward": rng.normal(size=total),
        "terminated": ends & ~cut,
        "truncated": cut,
    }
    if successors:
        arrays["next_observation"] = values(observation_space, total)
    transitions = Transitions.from_numpy(arrays)
    return Demonstrations(transitions, transitions.episode_returns(), {"env_id": "Made-v0", "seed": 3, "score": 0.5})


def assert_same(read: Demonstrations, written: Demonstrations) -> None:
    for field in dataclasses.fields(Transitions):
        ours, theirs = (getattr(side.transitions, field.name) for side in (read, written))
        assert (ours is None) == (theirs is None), field.name
        if ours is not None:
            assert ours.dtype == theirs.dtype
            assert torch.equal(ours, theirs), field.name
    assert torch.equal(read.episode_returns, written.episode_returns)
    assert read.metadata == written.metadata


def changed(key: str, row, value) -> dict:
    array = columns()[key].astype(np.result_type(columns()[key], type(value)))
    array[row] = value
    return {key: array}


# --- reading what was written ------------------------------------------------------------------------------------


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    suffix=st.sampled_from(SUFFIXES),
    lengths=st.lists(st.integers(1, 7), min_size=1, max_size=5),
    observation_space=st.sampled_from([VECTOR, IMAGE, Discrete(5), Box(-1, 1, (1,)), Box(-1, 1, (2, 3))]),
    action_space=st.sampled_from([PAIR, CHOICE, Box(0, 1, (1,)), Box(0, 1, (2, 2))]),
    successors=st.booleans(),
    weighted=st.booleans(),
)
def test_round_trip(tmp_path, suffix, lengths, observation_space, action_space, successors, weighted):
    written = record(lengths, observation_space, action_space, successors=successors)
    if weighted:
        written.transitions.weight = torch.linspace(0, 2, sum(lengths)) + 0.5
    path = tmp_path / f"new/demos{suffix}"
    write_demonstrations(path, written)
    assert_same(read_demonstrations(str(path), observation_space, action_space), written)
    assert os.listdir(path.parent).count(path.name) == 1
    assert not [name for name in os.listdir(path.parent) if name.endswith(".tmp")]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_whole_returns_survive_subsampling_and_writing(tmp_path, suffix):
    whole = record((40, 60))
    some = subsample(whole, 20, torch.Generator().manual_seed(0))
    write_demonstrations(tmp_path / f"some{suffix}", some)
    read = read_demonstrations(str(tmp_path / f"some{suffix}"), VECTOR, PAIR)
    assert len(read.transitions) == 5
    assert torch.equal(read.episode_returns, whole.episode_returns)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_arrays_are_converted_to_dtypes_and_shapes_of_spaces(tmp_path, suffix):
    held = columns(
        observations=np.arange(10), actions=np.array([[-1.0], [0], [1], [1], [0], [0], [0], [0], [0], [1]]),
        terminals=(np.arange(10) == 4).astype(np.float64), timeouts=(np.arange(10) == 9).astype(np.uint8),
    )  # fmt: skip
    read = read_demonstrations(save(tmp_path / f"d{suffix}", held), Box(-1, 1, (1,)), CHOICE)
    transitions, metadata = read.transitions, read.metadata
    assert transitions.observation.dtype == torch.float32
    assert transitions.observation.shape == (10, 1)
    assert transitions.observation.flatten().tolist() == list(range(10)), "bounds of observations are nominal"
    assert transitions.action.tolist() == [-1, 0, 1, 1, 0, 0, 0, 0, 0, 1]
    assert transitions.action.dtype == torch.int64
    assert transitions.terminated.nonzero().tolist() == [[4]]
    assert transitions.truncated.nonzero().tolist() == [[9]]
    assert transitions.next_observation is None
    assert read.episode_returns.tolist() == [10, 35]
    assert metadata == {}


def test_unknown_keys_are_never_opened(tmp_path):
    held = columns(infos=np.array([{"x": 1}] * 10, dtype=object))
    assert len(read_demonstrations(save(tmp_path / "d.npz", held), VECTOR, PAIR).transitions) == 10
    path = save(tmp_path / "d.hdf5", columns())
    with h5py.File(path, "a") as file:
        file["infos/qpos"] = np.zeros((10, 2))
        file["metadata/algorithm"] = "SAC"
    assert read_demonstrations(path, VECTOR, PAIR).metadata == {}


def test_metadata_may_be_an_hdf5_attribute(tmp_path):
    path = save(tmp_path / "d.hdf5", columns())
    with h5py.File(path, "a") as file:
        file.attrs["metadata"] = json.dumps({"env_id": "A-v1"})
    assert read_demonstrations(path, VECTOR, PAIR).metadata == {"env_id": "A-v1"}


def test_actions_outside_by_rounding_errors_are_clipped(tmp_path):
    held = columns(**changed("actions", (2, 1), 10 + 0.9e-4))
    held["actions"][3, 0] = -1 - 1.9e-5
    action = read_demonstrations(save(tmp_path / "d.npz", held), VECTOR, PAIR).transitions.action
    assert action[2, 1] == 10
    assert action[3, 0] == -1


def test_clip_actions_clips_those_outside(tmp_path):
    path = save(tmp_path / "d.npz", columns(**changed("actions", (2, 1), 1e3)))
    with pytest.raises(DemonstrationError, match=r"'actions', row 2, column 1.*data\.clip_actions: true.*censored"):
        read_demonstrations(path, VECTOR, PAIR)
    action = read_demonstrations(path, VECTOR, PAIR, clip_actions=True).transitions.action
    assert action[2, 1] == 10
    recorded = torch.from_numpy(columns()["actions"]).float()
    rows = torch.arange(len(action)) != 2
    torch.testing.assert_close(action[rows], recorded[rows])


def test_unbounded_action_space_allows_finite_actions(tmp_path):
    path = save(tmp_path / "d.npz", columns(**changed("actions", (2, 1), 1e9)))
    half = Box(np.array([-np.inf, 0], np.float32), np.full(2, np.inf, np.float32))
    assert read_demonstrations(path, VECTOR, Box(-np.inf, np.inf, (2,))).transitions.action[2, 1] == 1e9
    assert read_demonstrations(path, VECTOR, half).transitions.action[2, 1] == 1e9
    with pytest.raises(DemonstrationError, match=r"'actions', row 5, column 1 is -0.5"):
        read_demonstrations(save(tmp_path / "d.npz", columns(**changed("actions", (5, 1), -0.5))), VECTOR, half)


# --- faults in a file's columns ------------------------------------------------------------------------------------

FAULTS = {
    "no observations": ({"observations": None}, "missing key 'observations'"),
    "no actions": ({"actions": None}, "missing key 'actions'"),
    "no timeouts": ({"timeouts": None}, "missing key 'timeouts'.*all-False"),
    "fewer actions": ({"actions": np.zeros((9, 2))}, "'actions' has 9 rows, but 'observations' has 10"),
    "more weights": ({"weights": np.ones(11)}, "'weights' has 11 rows, but 'observations' has 10"),
    "scalar rewards": ({"rewards": np.array(1.0)}, "'rewards' is a single value"),
    "nan observation": (changed("observations", (7, 1), np.nan), "'observations', row 7, column 1 is nan"),
    "infinite action": (changed("actions", (3, 0), np.inf), "'actions', row 3, column 0 is inf"),
    "nan reward": (changed("rewards", 6, np.nan), "'rewards', row 6 is nan"),
    "reward too large for float32": (changed("rewards", 6, 1e300), r"'rewards', row 6 is 1e\+300.*float32"),
    "nan successor": (
        {"next_observations": changed("observations", (8, 2), np.nan)["observations"]},
        "'next_observations', row 8, column 2 is nan",
    ),
    "strings": ({"observations": np.full((10, 3), b"a")}, r"'observations' holds \|S1"),
    "complex rewards": ({"rewards": np.ones(10, dtype=complex)}, "'rewards' holds complex128"),
    "bool actions": ({"actions": np.ones((10, 2), dtype=bool)}, "'actions' holds bool"),
    "other environment": ({"observations": np.zeros((10, 5))}, r"'observations' has shape \[10, 5\].*\[10, 3\]"),
    "flat actions": ({"actions": np.zeros(10)}, r"'actions' has shape \[10\].*\[10, 2\]"),
    "rewards in columns": ({"rewards": np.zeros((10, 2))}, r"'rewards' has shape \[10, 2\]"),
    "flags in columns": ({"terminals": np.zeros((10, 2))}, r"'terminals' has shape \[10, 2\]"),
    "a flag of two": (changed("terminals", 3, 2), "'terminals', row 3 is 2"),
    "action outside": (
        changed("actions", (6, 1), 10.5),
        r"'actions', row 6, column 1 is 10.5.*\[0.0, 10.0\].*data.clip_actions",
    ),
    "no end at all": (
        {"terminals": np.zeros(10, bool), "timeouts": np.zeros(10, bool)},
        "'timeouts', row 9 .*no episode end in any of its 10 rows",
    ),
    "no end at the last row": ({"timeouts": np.zeros(10, bool)}, "'timeouts', row 9 .*no episode end.*rows after 4"),
    "no rows": ({key: value[:0] for key, value in columns().items()}, r"'observations' holds no transitions"),
    "negative weight": ({"weights": np.r_[np.ones(9), -1]}, "'weights', row 9 is -1"),
    "nan weight": ({"weights": np.r_[np.ones(2), np.nan, np.ones(7)]}, "'weights', row 2 is nan"),
    "weights of zero": ({"weights": np.zeros(10)}, "'weights' is 0 in all 10 rows"),
    "returns of other episodes": ({"episode_returns": np.zeros(3)}, r"'episode_returns' has shape \[3\].* 2 episodes"),
    "nan return": ({"episode_returns": np.array([0, np.nan])}, "'episode_returns', row 1 is nan"),
    "text returns": ({"episode_returns": np.array([b"a", b"b"])}, "'episode_returns' holds"),
    "metadata not JSON": ({"metadata": b"{"}, "'metadata' is not JSON"),
    "metadata numbers": ({"metadata": np.ones(4)}, "'metadata' is not JSON"),
    "metadata nested": ({"metadata": json.dumps({"a": [1]})}, "'metadata' must be"),
}


@pytest.mark.grid
@pytest.mark.parametrize("suffix", [".npz", ".hdf5"])
@pytest.mark.parametrize("fault", FAULTS)
def test_faulty_columns_are_refused(tmp_path, fault, suffix):
    changes, message = FAULTS[fault]
    path = save(tmp_path / f"bad{suffix}", columns(**changes))
    with pytest.raises(DemonstrationError, match=message) as caught:
        read_demonstrations(path, VECTOR, PAIR)
    assert path in str(caught.value)
    assert "\n" not in str(caught.value)


DISCRETE_FAULTS = {
    "fraction": ("actions", 4, 0.5, "'actions', row 4 is 0.5"),
    "nan": ("actions", 4, np.nan, "'actions', row 4 is nan"),
    "above": ("actions", 2, 2, "'actions', row 2 is 2.*-1 to 1"),
    "below": ("actions", 8, -2, "'actions', row 8 is -2.*-1 to 1"),
    "observation": ("observations", 1, 5, "'observations', row 1 is 5.*0 to 4"),
    "enormous": ("observations", 1, 1e30, "'observations', row 1 is 1e"),
}


@pytest.mark.parametrize("fault", DISCRETE_FAULTS)
def test_faulty_discrete_values_are_refused(tmp_path, fault):
    key, row, value, message = DISCRETE_FAULTS[fault]
    held = columns(observations=np.arange(10) % 5, actions=np.arange(10) % 3 - 1)
    held[key] = held[key].astype(np.result_type(held[key], type(value)))
    read_demonstrations(save(tmp_path / "good.npz", held), Discrete(5), CHOICE)
    held[key][row] = value
    with pytest.raises(DemonstrationError, match=f"bad.npz: {message}"):
        read_demonstrations(save(tmp_path / "bad.npz", held), Discrete(5), CHOICE)


def test_two_columns_are_refused_for_a_discrete_action(tmp_path):
    with pytest.raises(DemonstrationError, match=r"'actions' has shape \[10, 2\], but Discrete.* needs \[10\]"):
        read_demonstrations(save(tmp_path / "d.npz", columns()), VECTOR, CHOICE)


def test_images_must_be_uint8(tmp_path):
    pixels = np.arange(160).reshape(10, 4, 4, 1)
    read = read_demonstrations(save(tmp_path / "d.npz", columns(observations=pixels)), IMAGE, PAIR)
    assert read.transitions.observation.dtype == torch.uint8
    pixels[6, 1, 2, 0] = 256
    with pytest.raises(DemonstrationError, match="'observations', row 6"):
        read_demonstrations(save(tmp_path / "d.npz", columns(observations=pixels)), IMAGE, PAIR)
    with pytest.raises(DemonstrationError, match=r"'observations' holds float64.*uint8"):
        read_demonstrations(save(tmp_path / "d.npz", columns(observations=pixels / 255)), IMAGE, PAIR)


def test_multi_discrete_actions_are_read_and_checked(tmp_path):
    space = gymnasium.spaces.MultiDiscrete([3, 2], start=[0, 4])
    actions = np.array([0, 4]) + np.arange(2) * (np.arange(len(columns()["observations"])) % 2)[:, None]
    read = read_demonstrations(save(tmp_path / "d.npz", columns(actions=actions.astype(np.float64))), VECTOR, space)
    assert read.transitions.action.dtype == torch.int64
    np.testing.assert_array_equal(read.transitions.action, actions)
    actions[3, 1] = 6
    with pytest.raises(DemonstrationError, match=r"'actions', row 3 is .*outside MultiDiscrete.*\[0 4\] to \[2 5\]"):
        read_demonstrations(save(tmp_path / "d.npz", columns(actions=actions)), VECTOR, space)


def test_unsupported_spaces_are_refused(tmp_path):
    with pytest.raises(
        UnsupportedSpaceError, match=r"'actions'.*MultiBinary\(2\); only Box, Discrete and MultiDiscrete can"
    ):
        read_demonstrations(save(tmp_path / "d.npz", columns()), VECTOR, gymnasium.spaces.MultiBinary(2))


@pytest.mark.parametrize(
    ("space", "values"),
    [
        (gymnasium.spaces.MultiBinary([2, 2]), [[[0, 1], [1, 1]]]),
        (gymnasium.spaces.MultiDiscrete([3, 2], start=[0, 4]), [[2, 5]]),
        (gymnasium.spaces.Discrete(3, start=-1), [1]),
    ],
    ids=str,
)
@pytest.mark.parametrize("dtype", [np.int8, np.int64, np.float32])
def test_discrete_observations_are_read_and_checked(tmp_path, space, values, dtype):
    rows = len(columns()["observations"])
    held = columns(observations=np.repeat(np.array(values, dtype), rows, 0))
    held.pop("next_observations", None)
    read = read_demonstrations(save(tmp_path / "d.npz", held), space, PAIR).transitions.observation
    assert read.dtype == torch.int64
    np.testing.assert_array_equal(read, np.repeat(np.array(values), rows, 0))
    held["observations"][2] += 7
    with pytest.raises(DemonstrationError, match=r"'observations', row 2 is .*outside"):
        read_demonstrations(save(tmp_path / "d.npz", held), space, PAIR)


@pytest.mark.parametrize("suffix", [".npz", ".hdf5"])
def test_shape_n_1_is_read_as_a_column(tmp_path, suffix):
    plain = columns(weights=np.ones(len(columns()["observations"])))
    read = read_demonstrations(save(tmp_path / f"a{suffix}", plain), VECTOR, PAIR)
    for key in ("rewards", "terminals", "timeouts", "weights"):
        plain[key] = plain[key][:, None]
    plain["episode_returns"] = read.episode_returns.numpy()[:, None]
    again = read_demonstrations(save(tmp_path / f"b{suffix}", plain), VECTOR, PAIR)
    assert_same(again, read)


def test_several_sources_are_joined_in_order(tmp_path):
    a, b = record((4,), seed=1), record((2, 3), seed=2)
    paths = [tmp_path / "b.npz", tmp_path / "a.hdf5"]
    for path, one in zip(paths, (a, b), strict=True):
        write_demonstrations(path, one)
    for sources in (paths, [str(path) for path in paths], tuple(paths)):
        read = read_demonstrations(sources, VECTOR, PAIR)
        assert torch.equal(read.transitions.action, torch.cat([a.transitions.action, b.transitions.action]))
        assert len(read.episode_returns) == 3
    assert_same(read_demonstrations(paths[0], VECTOR, PAIR), a)
    with pytest.raises(DemonstrationError, match="an empty list"):
        read_demonstrations([], VECTOR, PAIR)


def test_actions_at_a_float64_bound_stay_in_the_box(tmp_path):
    space = Box(-0.1, 0.1, (2,), np.float64)
    held = columns(actions=np.full((len(columns()["observations"]), 2), 0.1))
    for dtype in (np.float64, np.float32):
        held["actions"] = held["actions"].astype(dtype)
        action = read_demonstrations(save(tmp_path / "d.npz", held), VECTOR, space).transitions.action.numpy()
        assert all(space.contains(one) for one in action)
        assert action.min() == pytest.approx(0.1, rel=1e-6)


# --- faults in the file itself -------------------------------------------------------------------------------------


def npz_bytes(tmp_path) -> bytes:
    return Path(save(tmp_path / "source.npz", columns())).read_bytes()


def hdf5_bytes(tmp_path) -> bytes:
    return Path(save(tmp_path / "source.hdf5", columns())).read_bytes()


def npy_bytes(tmp_path) -> bytes:
    np.save(tmp_path / "source.npy", np.ones(3))
    return (tmp_path / "source.npy").read_bytes()


def corrupted(content: bytes) -> bytes:
    """A zip archive that is damaged only in the middle of its first array."""
    return content[:150] + bytes(byte ^ 255 for byte in content[150:200]) + content[200:]


FILES = {
    "empty npz": ("d.npz", lambda tmp: b"", "says npz, but it is an empty file"),
    "empty hdf5": ("d.hdf5", lambda tmp: b"", "says hdf5, but it is an empty file"),
    "text npz": ("d.npz", lambda tmp: b"observations,actions\n0,1\n", "says npz, but it is something else.*observat"),
    "text hdf5": ("d.h5", lambda tmp: b"observations,actions\n0,1\n", "says hdf5, but it is something else.*observat"),
    "hdf5 as npz": ("d.npz", hdf5_bytes, "says npz, but it is hdf5: rename it to d.hdf5"),
    "npz as hdf5": ("d.hdf5", npz_bytes, "says hdf5, but it is npz: rename it to d.npz"),
    "npy as npz": ("d.npz", npy_bytes, "says npz, but it is a single array"),
    "truncated npz": ("d.npz", lambda tmp: npz_bytes(tmp)[:-100], "cannot be read .*truncated or damaged"),
    "half an npz": ("d.npz", lambda tmp: npz_bytes(tmp)[:300], "cannot be read .*truncated or damaged"),
    "corrupted npz": ("d.npz", lambda tmp: corrupted(npz_bytes(tmp)), "cannot be read .*truncated or damaged"),
    "truncated hdf5": ("d.hdf5", lambda tmp: hdf5_bytes(tmp)[:-100], "cannot be read .*truncated or damaged"),
    "half an hdf5": ("d.hdf5", lambda tmp: hdf5_bytes(tmp)[:300], "cannot be read .*truncated or damaged"),
    "csv": ("d.csv", lambda tmp: b"0", "suffix '.csv'.*npz or .hdf5"),
    "no suffix": ("d", lambda tmp: b"0", "suffix ''"),
}


@pytest.mark.parametrize("fault", FILES)
def test_damaged_files_are_refused(tmp_path, fault):
    name, content, message = FILES[fault]
    path = tmp_path / name
    path.write_bytes(content(tmp_path))
    with pytest.raises(DemonstrationError, match=message) as caught:
        read_demonstrations(str(path), VECTOR, PAIR)
    assert str(path) in str(caught.value)


def test_missing_file_and_directory_are_refused(tmp_path):
    with pytest.raises(DemonstrationError, match=r"gone.npz: no such file"):
        read_demonstrations(str(tmp_path / "gone.npz"), VECTOR, PAIR)
    with pytest.raises(DemonstrationError, match=f"is a directory.*minari:{tmp_path}"):
        read_demonstrations(str(tmp_path), VECTOR, PAIR)


def test_folder_is_read_in_the_order_of_names(tmp_path):
    parts = {"b.hdf5": record((4, 6), seed=1), "a.npz": record((3, 2), seed=2, successors=False)}
    for name, part in parts.items():
        write_demonstrations(tmp_path / name, part)
    (tmp_path / ".a.npz.tmp.npz").write_bytes(b"half")
    (tmp_path / "notes.txt").write_text("not a demonstration")
    read = read_demonstrations(str(tmp_path), VECTOR, PAIR)
    for field in ("observation", "action", "reward", "terminated", "truncated"):
        wanted = torch.cat([getattr(parts[name].transitions, field) for name in ("a.npz", "b.hdf5")])
        assert torch.equal(getattr(read.transitions, field), wanted), field
    assert read.transitions.next_observation is None  # one of the files has none
    wanted = torch.cat([parts["a.npz"].episode_returns, parts["b.hdf5"].episode_returns])
    assert torch.equal(read.episode_returns, wanted)
    (tmp_path / "c.npz").write_bytes(b"half")
    with pytest.raises(DemonstrationError, match=r"c\.npz"):
        read_demonstrations(str(tmp_path), VECTOR, PAIR)


class Malice:
    """Creates a file when unpickled."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return open, (self.path, "w")


@pytest.mark.parametrize("key", ["observations", "metadata", "weights", "obs", "indices"])
def test_object_array_is_refused_and_not_run(tmp_path, key):
    mark = tmp_path / "ran"
    array = np.empty(1, dtype=object)
    array[0] = Malice(mark)
    path = save(tmp_path / "d.npz", columns(**{key: array}))
    with np.load(path, allow_pickle=True) as archive:
        archive[key][0].close()
    assert mark.exists(), "the trap works"
    mark.unlink()
    with pytest.raises(DemonstrationError, match=f"d.npz: '{key}' is an object array.*could run code"):
        read_demonstrations(path, VECTOR, PAIR)
    assert not mark.exists()


@pytest.mark.parametrize("protocol", [0, 2, 4])
@pytest.mark.parametrize("suffix", [".npz", ".hdf5"])
def test_renamed_pickle_is_not_run(tmp_path, suffix, protocol):
    mark, path = tmp_path / "ran", tmp_path / f"d{suffix}"
    path.write_bytes(pickle.dumps(Malice(mark), protocol))
    with pytest.raises(DemonstrationError, match="is a pickle" if protocol else "is something else"):
        read_demonstrations(str(path), VECTOR, PAIR)
    assert not mark.exists()


def test_renamed_torch_checkpoint_is_not_run(tmp_path):
    mark, path = tmp_path / "ran", tmp_path / "d.npz"
    torch.save({"observations": Malice(mark)}, path)
    with pytest.raises(DemonstrationError, match="its name says npz, but it is a PyTorch checkpoint"):
        read_demonstrations(str(path), VECTOR, PAIR)
    assert not mark.exists()


# --- writing ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".npz", ".hdf5"])
@pytest.mark.parametrize("moment", ["columns", "flush"])
def test_interrupted_write_keeps_the_earlier_file(tmp_path, monkeypatch, suffix, moment):
    path = tmp_path / f"d{suffix}"
    earlier = record((3, 4))
    write_demonstrations(path, earlier)
    during = []

    def interrupted(*arguments, **_):
        if moment == "columns" and suffix == ".npz":
            arguments[0].write(b"half an array")
        during.append(sorted(os.listdir(tmp_path)))
        assert_same(read_demonstrations(str(path), VECTOR, PAIR), earlier)
        raise KeyboardInterrupt

    if moment == "flush":
        monkeypatch.setattr(os, "fsync", interrupted)
    elif suffix == ".npz":
        monkeypatch.setattr(np.lib.format, "write_array", interrupted)
    else:
        create = h5py.Group.create_dataset
        monkeypatch.setattr(
            h5py.Group,
            "create_dataset",
            lambda group, name, **more: interrupted() if name == "rewards" else create(group, name, **more),
        )
    with pytest.raises(KeyboardInterrupt):
        write_demonstrations(path, record((30, 40)))
    assert len(during) == 1
    assert len(during[0]) == 2, "the half-written file is separate from the earlier one"
    assert os.listdir(tmp_path) == [path.name]
    assert_same(read_demonstrations(str(path), VECTOR, PAIR), earlier)


def test_unknown_suffix_and_empty_data_are_not_written(tmp_path):
    with pytest.raises(DemonstrationError, match=r"suffix '.pkl'"):
        write_demonstrations(tmp_path / "d.pkl", record())
    with pytest.raises(DemonstrationError, match="no transitions"):
        write_demonstrations(tmp_path / "d.npz", split(record((3,)), 0.0, torch.Generator())[1])
    assert os.listdir(tmp_path) == []


def test_new_file_has_permissions_of_umask(tmp_path):
    write_demonstrations(tmp_path / "d.npz", record())
    (tmp_path / "plain").touch()
    assert (tmp_path / "d.npz").stat().st_mode == (tmp_path / "plain").stat().st_mode


# --- a record in memory ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("action_space", [PAIR, CHOICE], ids=["box", "discrete"])
@pytest.mark.parametrize("observation_space", [VECTOR, IMAGE, Discrete(4)], ids=["vector", "image", "discrete"])
def test_valid_transitions_pass(observation_space, action_space):
    check(record((3, 5), observation_space, action_space).transitions, observation_space, action_space, "mine")


def poison(field, row, value):
    def change(transitions):
        getattr(transitions, field)[row] = value
        return transitions

    return change


RECORDS = {
    "nan": (poison("observation", (2, 1), torch.nan), "mine: 'observation', row 2, column 1 is nan"),
    "outside": (poison("action", (9, 0), 2.0), "mine: 'action', row 9, column 0 is 2.0"),
    "no end": (poison("terminated", 9, False), "mine: 'truncated', row 9 .*no episode end"),
    "weight": (lambda t: t.replace(weight=-torch.ones(10)), "mine: 'weight', row 0 is -1"),
    "dtype": (lambda t: t.replace(action=t.action.double()), r"'action' is torch.float64 .*torch.float32 \[10, 2\]"),
    "flag": (lambda t: t.replace(truncated=t.truncated.float()), "'truncated' is torch.float32 .*torch.bool"),
    "shape": (lambda t: t.replace(next_observation=torch.zeros(10, 4)), r"'next_observation' has shape \[10, 4\]"),
    "not flat": (lambda t: t.reshape(5, 2), r"mine: has batch shape \[5, 2\]"),
    "empty": (lambda t: t[:0], "mine: 'observation' holds no transitions"),
}


@pytest.mark.parametrize("fault", RECORDS)
def test_faulty_transitions_are_refused(fault):
    change, message = RECORDS[fault]
    with pytest.raises(DemonstrationError, match=message):
        check(change(record().transitions), VECTOR, PAIR, "mine")


def test_discrete_actions_in_memory_must_be_flat():
    transitions = record(action_space=CHOICE).transitions
    with pytest.raises(DemonstrationError, match=r"'action' is torch.int64 \[10, 1\]; .*torch.int64 \[10\]"):
        check(transitions.replace(action=transitions.action[:, None]), VECTOR, CHOICE, "mine")


# --- choosing among trajectories -------------------------------------------------------------------------------------


def numbered(lengths) -> Demonstrations:
    """Transitions whose observation is the row number, and whose successor is the next number."""
    whole = record(lengths)
    rows = torch.arange(sum(lengths), dtype=torch.float32)[:, None].expand(-1, 3).contiguous()
    return whole._replace(transitions=whole.transitions.replace(observation=rows, next_observation=rows + 1))


@settings(max_examples=50, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 30), min_size=1, max_size=6),
    every=st.integers(1, 12),
    seed=st.integers(0, 2**31),
)
def test_subsample_keeps_every_kth_row_and_its_successor(lengths, every, seed):
    whole = numbered(lengths)
    before = whole.transitions.clone()
    some = subsample(whole, every, torch.Generator().manual_seed(seed))
    assert (whole.transitions == before).all(), "what was given is as it was"
    rows = some.transitions.observation[:, 0].long()
    assert torch.equal(some.transitions.next_observation[:, 0].long(), rows + 1)
    assert torch.equal(some.transitions.reward, before.reward[rows])
    assert torch.equal(some.transitions.terminated, before.terminated[rows])
    assert torch.equal(some.episode_returns, whole.episode_returns)
    kept = rows.split(some.transitions.episode_lengths().tolist())
    assert len(kept) == len(lengths), "every trajectory is still there and ends once"
    start = 0
    for length, mine in zip(lengths, kept, strict=True):
        offset = int(mine[0]) - start
        assert 0 <= offset < min(every, length)
        assert mine.tolist() == list(range(start + offset, start + length, every))
        start += length
    check(some.transitions, VECTOR, PAIR, "subsample")


def test_subsample_marks_the_last_kept_row_as_truncated():
    every, generator = 3, torch.Generator().manual_seed(1)
    seen = set()
    for _ in range(40):
        some = subsample(numbered((7, 7)), every, generator).transitions
        last = some.done.nonzero()[:, 0]
        rows = some.observation[last, 0].long().tolist()
        for row, cut, end in zip(rows, some.truncated[last].tolist(), some.terminated[last].tolist(), strict=True):
            seen.add((row, cut, end))
    # The first trajectory is truncated at row 6, the second terminates at row 13; other last rows are truncations.
    assert seen == {(4, True, False), (5, True, False), (6, True, False)} | {
        (11, True, False),
        (12, True, False),
        (13, False, True),
    }


def test_successors_are_recorded_or_read_from_the_next_row():
    """Trajectories of 3, 1 and 2 rows."""
    whole = numbered((3, 1, 2))
    assert with_successors(whole) is whole
    bare = whole._replace(transitions=whole.transitions.clone())
    bare.transitions.next_observation = None
    found = with_successors(bare)
    assert found.transitions.observation[:, 0].tolist() == [0, 1, 4]
    assert found.transitions.next_observation[:, 0].tolist() == [1, 2, 5]
    assert found.transitions.done.tolist() == [False, True, True]
    assert not found.transitions.terminated.any()
    assert torch.equal(found.episode_returns, whole.episode_returns[[0, 2]])
    with pytest.raises(DemonstrationError, match="none of their trajectories has a second row"):
        with_successors(bare.select(torch.tensor([1])))


def test_subsample_offsets_are_uniform_and_independent():
    every, episodes = 5, 20_000
    some = subsample(numbered((12,) * episodes), every, torch.Generator().manual_seed(0)).transitions
    lengths = some.episode_lengths()
    first = some.observation[lengths.cumsum(0) - lengths, 0].long() % 12
    counts = torch.bincount(first, minlength=every).double()
    assert len(counts) == every
    # χ² with 4 degrees of freedom is above 23.5 once in ten thousand draws.
    assert ((counts - episodes / every) ** 2 / (episodes / every)).sum() < 23.5
    pairs = torch.bincount(first[::2] * every + first[1::2], minlength=every**2).double()
    expected = episodes / 2 / every**2
    # With 24 degrees of freedom, above 58.6 once in ten thousand.
    assert ((pairs - expected) ** 2 / expected).sum() < 58.6


def test_subsample_without_successors_and_without_rows():
    whole = record((9,), successors=False)
    assert subsample(whole, 4, torch.Generator()).transitions.next_observation is None
    nothing = split(whole, 0.5, torch.Generator())[1]
    assert len(subsample(nothing, 4, torch.Generator()).transitions) == 0
    with pytest.raises(ConfigError, match="subsample is 0"):
        subsample(whole, 0, torch.Generator())


def trajectories(demonstrations: Demonstrations, whole: Demonstrations) -> list[int]:
    """Indices of these trajectories in the whole, after checking that they are complete."""
    returns = whole.episode_returns.tolist()
    which = [returns.index(value) for value in demonstrations.episode_returns.tolist()]
    assert torch.equal(demonstrations.transitions.episode_returns(), demonstrations.episode_returns)
    assert demonstrations.metadata == whole.metadata
    return which


def test_take_chooses_without_replacement():
    whole = record((3, 5, 2, 6, 4))
    chosen = [trajectories(take(whole, 3, torch.Generator().manual_seed(seed)), whole) for seed in range(60)]
    assert all(len(set(some)) == 3 and some == sorted(some) for some in chosen)
    assert len({tuple(some) for some in chosen}) == 10, "every choice of 3 of 5 occurs"
    fewer = trajectories(take(whole, 2, torch.Generator().manual_seed(0)), whole)
    assert set(fewer) < set(chosen[0])
    assert trajectories(take(whole, 5, torch.Generator()), whole) == [0, 1, 2, 3, 4]
    with pytest.raises(DemonstrationError, match="num_trajectories is 6, but there are only 5 trajectories"):
        take(whole, 6, torch.Generator())
    with pytest.raises(ConfigError, match="num_trajectories is 0"):
        take(whole, 0, torch.Generator())


@pytest.mark.parametrize(
    ("episodes", "fraction", "held"),
    [(5, 0.0, 0), (5, 0.01, 1), (5, 0.4, 2), (5, 0.99, 4), (2, 0.1, 1), (2, 0.9, 1), (1, 0.5, 0), (1, 0.0, 0)],
)
def test_split_sizes(episodes, fraction, held):
    whole = record(tuple(range(3, 3 + episodes)))
    train, rest = split(whole, fraction, torch.Generator().manual_seed(0))
    assert len(rest.episode_returns) == held
    assert sorted(trajectories(train, whole) + trajectories(rest, whole)) == list(range(episodes))
    assert len(train.transitions) + len(rest.transitions) == len(whole.transitions)


def test_split_is_random_and_bounded():
    whole = record((3, 4, 5, 6))
    held = {tuple(trajectories(split(whole, 0.25, torch.Generator().manual_seed(s))[1], whole)) for s in range(40)}
    assert held == {(0,), (1,), (2,), (3,)}
    for fraction in (-0.1, 1.0, float("nan")):
        with pytest.raises(ConfigError, match="held-out fraction"):
            split(whole, fraction, torch.Generator())


def test_floats_are_stored_uncompressed(tmp_path):
    with (tmp_path / "a.npz").open("wb") as file:
        _write_npz(file, {"floats": np.zeros(1000, np.float32), "numbers": np.zeros(1000, np.int64)})
    with zipfile.ZipFile(tmp_path / "a.npz") as archive:
        sizes = {one.filename: one.compress_size for one in archive.infolist()}
    assert sizes["floats.npy"] > 4000
    assert sizes["numbers.npy"] < 200
    assert set(np.load(tmp_path / "a.npz")) == {"floats", "numbers"}

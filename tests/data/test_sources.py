"""Files and datasets of other libraries: each layout is read, and each fault gives one clear error."""

import itertools
import json
import os
import sys
from collections import OrderedDict
from pathlib import Path

import gymnasium
import numpy as np
import pytest
import torch
from demonstration_files import CHOICE, IMAGE, PAIR, VECTOR, save
from gymnasium.spaces import Box, Discrete

from lit_imitation.data.demonstrations import Demonstrations, check, read_all, read_demonstrations
from lit_imitation.data.file_spaces import infer_spaces
from lit_imitation.data.hugging_face import _dense
from lit_imitation.data.inspection import inspect_recording
from lit_imitation.data.sources import open_recording
from lit_imitation.errors import DemonstrationError, MissingExtraError
from lit_imitation.utils.spaces import FlatBox, PackedBox

# --- the `imitation` library's layouts -------------------------------------------------------------------------------


def flat(**changes) -> dict:
    """Trajectories of 2, 3 and 1 steps."""
    held = {
        "obs": np.arange(27.0).reshape(9, 3),
        "acts": np.arange(6) % 3 - 1,
        "rews": np.arange(6.0),
        "terminal": np.array([True, False, True]),
        "indices": np.array([2, 5]),
        "infos": np.array([{}] * 6, dtype=object),
        **changes,
    }
    return {key: value for key, value in held.items() if value is not None}


def nested(held: dict) -> dict:
    starts = [0, *held["indices"], len(held["acts"])]
    spans = list(itertools.pairwise(starts))
    return {
        "obs": [held["obs"][a + i : b + i + 1].tolist() for i, (a, b) in enumerate(spans)],
        "acts": [held["acts"][a:b].tolist() for a, b in spans],
        "rews": [held["rews"][a:b].tolist() for a, b in spans],
        "terminal": held["terminal"].tolist(),
        "infos": [["{}"] * int(b - a) for a, b in spans],
    }


def assert_is_flat(read: Demonstrations) -> None:
    transitions = read.transitions
    assert transitions.observation[:, 0].tolist() == [0, 3, 9, 12, 15, 21]
    assert transitions.next_observation[:, 0].tolist() == [3, 6, 12, 15, 18, 24]
    assert transitions.action.tolist() == [-1, 0, 1, -1, 0, 1]
    assert transitions.reward.tolist() == [0, 1, 2, 3, 4, 5]
    assert transitions.terminated.nonzero()[:, 0].tolist() == [1, 5]
    assert transitions.truncated.nonzero()[:, 0].tolist() == [4]
    assert read.episode_returns.tolist() == [1, 9, 5]


def test_flat_layout_is_read(tmp_path):
    assert_is_flat(read_demonstrations(save(tmp_path / "d.npz", flat()), VECTOR, CHOICE))


def test_flat_layout_of_one_trajectory(tmp_path):
    held = flat(obs=np.zeros((7, 3)), terminal=np.array([False]), indices=np.array([]))
    read = read_demonstrations(save(tmp_path / "d.npz", held), VECTOR, CHOICE)
    assert read.transitions.truncated.nonzero().tolist() == [[5]]


def at(array, index, value):
    array = np.array(array, dtype=np.result_type(array, type(value)))
    array[index] = value
    return array


FLAT_FAULTS = {
    "no indices": ({"indices": None}, "missing key 'indices'"),
    "no acts": ({"acts": None}, "missing key 'acts'"),
    "obs without the last": ({"obs": np.zeros((6, 3))}, "lengths differ: 'obs' has 6 rows, 'acts' 6"),
    "one flag a step": ({"terminal": np.zeros(6, bool)}, "lengths differ.*'terminal' 6"),
    "scalar": ({"rews": np.array(0.0)}, "'rews' is a single value"),
    "indices that turn back": ({"indices": np.array([5, 2])}, "'indices', row 1"),
    "indices beyond the end": ({"indices": np.array([2, 9])}, "'indices', row 1"),
    "fractional indices": ({"indices": np.array([2.5, 5.0])}, "'indices' holds float64"),
    "an empty trajectory": ({"indices": np.array([2, 2])}, "trajectory 1 holds no transitions"),
    "float flags": ({"terminal": np.array([1.0, 0, 1])}, "'terminal' holds float64"),
    "nan": ({"obs": at(flat()["obs"], (4, 2), np.nan)}, r"'obs', row 4 \(trajectory 1, its row 1\), column 2 is nan"),
    "nan at an end": (
        {"obs": at(flat()["obs"], (6, 0), np.nan)},
        r"'obs', row 6 \(trajectory 1, its row 3\), column 0 is nan",
    ),
    "action": ({"acts": at(flat()["acts"], 5, 7)}, r"'acts', row 5 \(trajectory 2, its row 0\) is 7"),
    "shape": ({"obs": np.zeros((9, 4))}, r"'obs' has shape \[6, 4\]"),
    "no rows": (
        {"obs": np.zeros((1, 3)), "acts": np.zeros(0), "rews": np.zeros(0), "terminal": np.array([True]),
         "indices": np.zeros(0, int)},
        "trajectory 0 holds no transitions",
    ),
}  # fmt: skip


@pytest.mark.parametrize("fault", FLAT_FAULTS)
def test_faulty_flat_layout_is_refused(tmp_path, fault):
    changes, message = FLAT_FAULTS[fault]
    path = save(tmp_path / "bad.npz", flat(**changes))
    with pytest.raises(DemonstrationError, match=message) as caught:
        read_demonstrations(path, VECTOR, CHOICE)
    assert path in str(caught.value)


@pytest.fixture
def hugging_face(tmp_path):
    """Write a dataset of these columns and return its source."""
    datasets = pytest.importorskip("datasets", reason='needs pip install "lit-imitation[hf]"')
    datasets.disable_progress_bars()

    def write(held: dict, wrap=lambda dataset: dataset) -> str:
        wrap(datasets.Dataset.from_dict(held)).save_to_disk(str(tmp_path / "hf"))
        return f"hf:{tmp_path / 'hf'}"

    return write


@pytest.mark.integration
def test_hugging_face_dataset_is_read(hugging_face):
    assert_is_flat(read_demonstrations(hugging_face(nested(flat())), VECTOR, CHOICE))


@pytest.mark.integration
def test_hugging_face_train_split_is_read(hugging_face, tmp_path):
    datasets = pytest.importorskip("datasets")
    both = hugging_face(nested(flat()), lambda dataset: datasets.DatasetDict(train=dataset))
    assert_is_flat(read_demonstrations(both, VECTOR, CHOICE))


@pytest.mark.integration
def test_hugging_face_selection_and_images_are_read(hugging_face):
    pixels = np.arange(9 * 16).reshape(9, 4, 4, 1)
    source = hugging_face(nested(flat(obs=pixels)), lambda dataset: dataset.select([2, 0]))
    read = read_demonstrations(source, IMAGE, CHOICE)
    assert torch.equal(read.transitions.observation, torch.from_numpy(pixels[[7, 0, 1]]).to(torch.uint8))
    assert read.transitions.terminated.tolist() == [True, False, True]


def without(held, key):
    return {name: value for name, value in held.items() if name != key}


HF_FAULTS = {
    "missing": (without(nested(flat()), "acts"), "missing key 'acts'"),
    "lengths": (nested(flat()) | {"rews": [[0.0, 1], [2, 3], [5]]}, "row 1 has 4 'obs', 3 'acts' and 2 'rews'"),
    "ragged": (nested(flat()) | {"obs": [[[0.0]] * 3, [[0.0], [1.0, 2]] * 2, [[0.0]] * 2]}, "'obs', row 4 overall has"),
    "text": (nested(flat()) | {"acts": [["a"] * 2, ["b"] * 3, ["c"]]}, "'acts' holds (object|str|.*U)"),
    "null": (nested(flat()) | {"acts": [[0, 1], None, [0]]}, "'acts', row 1 is empty"),
    "null within": (nested(flat()) | {"rews": [[0.0, 1], [2, None, 3], [5]]}, "'rews', row 3 .* is nan"),
    "flat": (nested(flat()) | {"acts": [0, 1, 2]}, "'acts' holds int64; a list"),
    "flags": (nested(flat()) | {"terminal": ["yes", "no", "no"]}, "'terminal' holds"),
    "nan": (
        nested(flat(obs=at(flat()["obs"], (4, 2), np.nan))),
        r"'obs', row 4 \(trajectory 1, its row 1\), column 2 is nan",
    ),
    "nothing": ({key: [] for key in nested(flat())}, "cannot be read as a Hugging Face dataset"),
}


@pytest.mark.integration
@pytest.mark.parametrize("fault", HF_FAULTS)
def test_faulty_hugging_face_dataset_is_refused(hugging_face, fault):
    held, message = HF_FAULTS[fault]
    source = hugging_face(held)
    with pytest.raises(DemonstrationError, match=message) as caught:
        read_demonstrations(source, VECTOR, CHOICE)
    assert source in str(caught.value)


@pytest.mark.integration
def test_missing_hugging_face_dataset_is_refused(tmp_path, monkeypatch):
    datasets = pytest.importorskip("datasets", reason='needs pip install "lit-imitation[hf]"')
    with pytest.raises(DemonstrationError, match=f"hf:{tmp_path}: cannot be read as a Hugging Face dataset"):
        read_demonstrations(f"hf:{tmp_path}", VECTOR, CHOICE)
    asked = []

    def unreachable(*arguments, **keywords):
        asked.append((arguments, keywords))
        raise ConnectionError("no network")

    monkeypatch.setattr(datasets, "load_dataset", unreachable)
    with pytest.raises(DemonstrationError, match=r"hf:user/dataset.*no network"):
        read_demonstrations("hf:user/dataset", VECTOR, CHOICE)
    assert asked == [(("user/dataset",), {"split": "train"})]


@pytest.mark.parametrize(
    ("module", "source", "extra"), [("datasets", "hf:a/b", "hf"), ("minari", "minari:c", "minari")]
)
def test_missing_extra_is_one_line_with_the_fix(monkeypatch, module, source, extra):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingExtraError) as caught:
        read_demonstrations(source, VECTOR, CHOICE)
    assert str(caught.value) == f'{source} needs {module}: pip install "lit-imitation[{extra}]"'


# --- Minari ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def minari_dataset(tmp_path, monkeypatch):
    """Write a dataset of two episodes with 3 and 2 steps, and return its id."""
    minari = pytest.importorskip("minari", reason='needs pip install "lit-imitation[minari]"')
    buffers = pytest.importorskip("minari.data_collector.episode_buffer")
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "minari"))

    def write(observation_space=VECTOR, observe=None, data_format="hdf5", actions=PAIR, poisoned=0.0) -> str:
        rng = np.random.default_rng(0)
        episodes = []
        for index, length in enumerate((3, 2)):
            seen = 10.0 * index + np.arange(length + 1)[:, None].repeat(3, axis=1).astype(np.float32)
            last = np.arange(length) == length - 1
            acted = rng.uniform(0, 1, (length, 2)).astype(np.float32)
            acted[-1, 1] += poisoned
            episodes.append(
                buffers.EpisodeBuffer(
                    id=index,
                    observations=observe(seen) if observe else seen,
                    actions=acted if actions is PAIR else np.arange(length) % 3 - 1,
                    rewards=np.arange(length, dtype=np.float64),
                    terminations=last & (index == 0),
                    truncations=last & False,
                    infos={},
                )
            )
        minari.create_dataset_from_buffers(
            "made/up-v0",
            buffer=episodes,
            observation_space=observation_space,
            action_space=actions,
            data_format=data_format,
            env=gymnasium.spec("Pendulum-v1"),
            algorithm_name="a",
            author="b",
            author_email="c",
            code_permalink="d",
            description="e",
        )
        return "minari:made/up-v0"

    return write


@pytest.mark.parametrize("by", ["id", "directory"])
@pytest.mark.parametrize("data_format", ["hdf5", "arrow"])
@pytest.mark.parametrize("actions", [PAIR, CHOICE], ids=["box", "discrete"])
def test_minari_dataset_is_read(minari_dataset, tmp_path, data_format, by, actions):
    source = minari_dataset(data_format=data_format, actions=actions)
    if by == "directory":
        source = f"minari:{tmp_path / 'minari/made/up-v0'}"
    read = read_demonstrations(source, VECTOR, actions)
    transitions = read.transitions
    assert transitions.observation[:, 1].tolist() == [0, 1, 2, 10, 11]
    assert transitions.next_observation[:, 1].tolist() == [1, 2, 3, 11, 12]
    assert transitions.terminated.tolist() == [False, False, True, False, False]
    assert transitions.truncated.tolist() == [False, False, False, False, True], "recording stopped there"
    assert read.episode_returns.tolist() == [3, 1]
    assert read.metadata == {"dataset": "made/up-v0", "env_id": "Pendulum-v1"}
    if actions is CHOICE:
        assert transitions.action.tolist() == [-1, 0, 1, -1, 0]


@pytest.mark.parametrize("data_format", ["hdf5", "arrow"])
def test_minari_dictionaries_are_flattened_like_gymnasium(minari_dataset, data_format):
    inner = gymnasium.spaces.Dict({"z": Box(-9, 99, (2,), np.float32), "a": Discrete(30)})
    space = gymnasium.spaces.Dict({"top": Box(-9, 99, (1,), np.float32), "inner": inner})
    source = minari_dataset(
        space,
        lambda seen: {"top": seen[:, :1], "inner": {"z": seen[:, 1:] + 0.5, "a": seen[:, 0].astype(np.int64)}},
        data_format,
    )
    read = read_demonstrations(source, gymnasium.spaces.flatten_space(space), PAIR)
    expected = [
        gymnasium.spaces.flatten(
            space,
            {
                "top": np.array([value], np.float32),
                "inner": {"z": np.array([value + 0.5] * 2, np.float32), "a": int(value)},
            },
        )
        for value in (0, 1, 2, 10, 11)
    ]
    np.testing.assert_array_equal(read.transitions.observation.numpy(), np.stack(expected).astype(np.float32))


class Keyed(gymnasium.Env):
    """Environment with dictionary observations whose keys are not in alphabetical order."""

    action_space = Discrete(3, start=-1)

    def __init__(self, how="keywords"):
        part = {"state": Box(-9, 99, (2,), np.float32), "goal": Discrete(4), "far": Box(-9, 99, (1,), np.float32)}
        self.observation_space = {
            "keywords": lambda: gymnasium.spaces.Dict(**part),
            "ordered": lambda: gymnasium.spaces.Dict(OrderedDict(part)),
            "pairs": lambda: gymnasium.spaces.Dict(list(part.items())),
            "dict": lambda: gymnasium.spaces.Dict(part),
            "tuple": lambda: gymnasium.spaces.Tuple([part["far"], gymnasium.spaces.Dict(**part)]),
            "nested": lambda: gymnasium.spaces.Dict(z=gymnasium.spaces.Dict(**part), a=part["far"]),
        }[how]()
        self.how = how

    def shown(self, rows=None):
        """One observation, or `rows` of them."""
        repeated = (lambda x: x) if rows is None else (lambda x: np.repeat(np.asarray(x)[None], rows, 0))
        part = {"state": np.float32([1, 2]), "goal": np.int64(3), "far": np.float32([4])}
        part = {key: repeated(value) for key, value in part.items()}
        if self.how == "tuple":
            return part["far"], part
        return {"a": part["far"], "z": part} if self.how == "nested" else part

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return self.shown(), {}

    def step(self, action):
        return self.shown(), 0.0, False, False, {}


@pytest.mark.grid
@pytest.mark.parametrize("named", [True, False])
@pytest.mark.parametrize("data_format", ["hdf5", "arrow"])
@pytest.mark.parametrize("how", ["keywords", "ordered", "pairs", "dict", "tuple", "nested"])
def test_minari_dictionaries_keep_the_environments_order(minari_dataset, how, data_format, named):
    """The result equals `gymnasium.spaces.flatten` of the environment's observation, with or without its space."""
    env = Keyed(how)
    source = minari_dataset(
        env.observation_space, lambda seen: env.shown(len(seen)), data_format=data_format, actions=CHOICE
    )
    flat = FlatBox(env.observation_space) if named else gymnasium.spaces.flatten_space(env.observation_space)
    found = read_demonstrations(source, flat, CHOICE).transitions
    expected = gymnasium.spaces.flatten(env.observation_space, env.shown())
    np.testing.assert_allclose(found.observation, np.repeat(expected[None], len(found), 0))


@pytest.mark.parametrize(
    ("part", "text"),
    [
        (
            {"goal": None, "aim": Discrete(4)},
            r"lack 'goal' and have 'aim', which the environment's do not; .* 'state', 'g",
        ),
        ({"far": None}, "'observations' lack 'far'; the environment's keys are 'state', 'goal', 'far'"),
        ({"more": Discrete(2)}, "'observations' have 'more', which the environment's do not"),
        ({"goal": Discrete(5)}, r"'observations'\['goal'\] are Discrete\(5\), the environment's Discrete\(4\)"),
        ({"state": Box(-9, 99, (1,)), "far": Box(-9, 99, (2,))}, r"'observations'\['state'\] are Box.*\(1,\)"),
    ],
)
def test_minari_dictionaries_are_compared_by_name(minari_dataset, part, text):
    """Even if the number of values is the same."""
    env = Keyed()
    parts = {**env.observation_space.spaces, **part}
    space = gymnasium.spaces.Dict([(key, inner) for key, inner in parts.items() if inner is not None])

    def shown(seen):
        return {
            key: np.zeros((len(seen), *inner.shape), np.float32 if isinstance(inner, Box) else np.int64)
            for key, inner in space.spaces.items()
        }

    source = minari_dataset(space, shown, actions=CHOICE)
    with pytest.raises(DemonstrationError, match=text):
        read_demonstrations(source, FlatBox(env.observation_space), CHOICE)


@pytest.mark.parametrize("data_format", ["hdf5", "arrow"])
def test_minari_keys_are_chosen(minari_dataset, data_format):
    inner = gymnasium.spaces.Dict({"z": Box(-9, 99, (2,), np.float32), "camera": Box(0, 255, (2, 2, 3), np.uint8)})
    space = gymnasium.spaces.Dict({"top": Box(-9, 99, (1,), np.float32), "inner": inner})

    def observe(seen):
        return {
            "top": seen[:, :1],
            "inner": {"z": seen[:, 1:] + 0.5, "camera": np.zeros((len(seen), 2, 2, 3), np.uint8)},
        }

    source = minari_dataset(space, observe, data_format)
    read = read_demonstrations(source, Box(-9, 99, (3,)), PAIR, observation_keys=["inner/z", "top"])
    assert read.transitions.observation.tolist() == [[n + 0.5, n + 0.5, n] for n in (0, 1, 2, 10, 11)]
    assert read.transitions.next_observation[:, 2].tolist() == [1, 2, 3, 11, 12]
    assert read.transitions.terminated.tolist() == [False, False, True, False, False]
    assert read.metadata["observation_keys"] == "inner/z, top"
    with pytest.raises(DemonstrationError, match=r"'inner/camera' is an image \[2, 2, 3\]"):
        read_demonstrations(source, Box(-9, 99, (3,)), PAIR, observation_keys=["inner/camera", "top"])
    with open_recording(source) as recording:
        found = inspect_recording(recording)
    assert found.format == "Minari dataset"
    assert {key.name: key.shape for key in found.keys} == {
        "inner/camera": (2, 2, 3),
        "inner/z": (2,),
        "top": (1,),
        "actions": (2,),
        "rewards": (),
    }
    assert found.lengths == (2, 2.5, 3)


def test_faulty_minari_datasets_are_refused(minari_dataset, tmp_path):
    with pytest.raises(DemonstrationError, match=r"minari:made/gone-v0: .*`minari download made/gone-v0`"):
        read_demonstrations("minari:made/gone-v0", VECTOR, PAIR)
    source = minari_dataset(poisoned=50.0)
    with pytest.raises(DemonstrationError, match=r"up-v0: 'actions', row 2 \(trajectory 0, its row 2\), column 1 is 5"):
        read_demonstrations(source, VECTOR, PAIR)
    with pytest.raises(DemonstrationError, match=r"'observations' has shape \[5, 3\]"):
        read_demonstrations(source, Box(-1, 1, (4,)), PAIR)
    main = tmp_path / "minari/made/up-v0/data/main_data.hdf5"
    main.write_bytes(main.read_bytes()[:-500])
    with pytest.raises(DemonstrationError, match="up-v0: cannot be read as a Minari dataset"):
        read_demonstrations(source, VECTOR, PAIR)


def test_minari_file_cannot_choose_code_to_run(minari_dataset, tmp_path):
    """Without a recorded space, Minari would build the environment that the file names, and so call any function."""
    source = minari_dataset()
    mark = tmp_path / "ran"
    path = tmp_path / "minari/made/up-v0/data/metadata.json"
    metadata = json.loads(path.read_text())
    spec = json.loads(metadata["env_spec"])
    spec |= {"entry_point": "builtins:open", "kwargs": {"file": str(mark), "mode": "w"}}
    metadata["env_spec"] = json.dumps(spec)
    del metadata["action_space"]
    path.write_text(json.dumps(metadata))
    with pytest.raises(DemonstrationError, match="missing key 'action_space'"):
        read_demonstrations(source, VECTOR, PAIR)
    assert not mark.exists()

    import minari

    with pytest.raises(Exception):  # noqa: B017 - whatever Minari makes of a file for an environment
        minari.load_dataset("made/up-v0")
    assert mark.exists(), "the trap works"


# --- files made by others --------------------------------------------------------------------------------------------


def others(name: str) -> str:
    root = os.environ.get("LIT_IMITATION_EXPERTS") or Path(__file__).parents[3] / "shared/experts"
    path = Path(root) / "demonstrations" / name
    if not path.exists():
        pytest.skip(f"{name} is not there: set LIT_IMITATION_EXPERTS to the folder of experts")
    return str(path)


@pytest.mark.parametrize(
    ("name", "env_id", "episodes", "low", "high"),
    [
        ("CartPole-v1-sb2.npz", "CartPole-v1", 100, 494, 496.5),
        ("Pendulum-v1-sb2.npz", "Pendulum-v1", 100, -152, -148),
        ("CartPole-v1-imitation-layout.npz", "CartPole-v1", 57, 26964 / 57 - 1e-6, 26964 / 57 + 1e-6),
    ],
)
def test_files_of_other_libraries_are_read(name, env_id, episodes, low, high):
    environment = gymnasium.make(env_id)
    read = read_demonstrations(others(name), environment.observation_space, environment.action_space)
    assert len(read.episode_returns) == episodes
    assert low < read.episode_returns.mean() < high
    check(read.transitions, environment.observation_space, environment.action_space, name)
    if read.transitions.next_observation is not None:
        within = ~read.transitions.done[:-1]
        assert torch.equal(read.transitions.next_observation[:-1][within], read.transitions.observation[1:][within])


@pytest.mark.parametrize(("rows", "row", "columns"), [([2, 3, 3], 1, 3), ([2, 2, 1], 2, 1)])
def test_row_of_another_length_is_named(rows, row, columns):
    arrow = pytest.importorskip("pyarrow")
    with pytest.raises(DemonstrationError, match=f"row {row} overall has {columns} columns, the first row has 2"):
        _dense("x", "observations", arrow.array([[0.5] * n for n in rows]))


@pytest.mark.parametrize("named", [True, False])
def test_minari_images_are_packed_without_keys(minari_dataset, named):
    inner = gymnasium.spaces.Dict({"z": Discrete(30), "camera": Box(0, 255, (2, 2, 3), np.uint8)})
    space = gymnasium.spaces.Dict({"top": Box(-9, 99, (1,), np.float32), "inner": inner})

    def observe(seen):
        camera = np.repeat(seen[:, :1], 12, 1).reshape(-1, 2, 2, 3).astype(np.uint8)
        return {"top": seen[:, :1], "inner": {"z": seen[:, 0].astype(np.int64), "camera": camera}}

    source = minari_dataset(space, observe)
    found = PackedBox(space) if named else infer_spaces(read_all(source))[0]
    assert [part.path for part in found.parts] == ["inner/camera", "inner/z", "top"]
    transitions = read_demonstrations(source, found, PAIR).transitions
    paths = dict(leaf_values(found.unflatten(transitions.observation.numpy())))
    assert paths["top"].reshape(-1).tolist() == [0, 1, 2, 10, 11]
    assert paths["inner/z"].tolist() == [0, 1, 2, 10, 11]
    assert paths["inner/camera"][:, 1, 1, 2].tolist() == [0, 1, 2, 10, 11]
    after = dict(leaf_values(found.unflatten(transitions.next_observation.numpy())))
    assert after["inner/z"].tolist() == [1, 2, 3, 11, 12]


def leaf_values(value, prefix=""):
    for key, one in value.items():
        if isinstance(one, dict):
            yield from leaf_values(one, f"{prefix}{key}/")
        else:
            yield f"{prefix}{key}", one

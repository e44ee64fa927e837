"""Human labels: the files a person gets, and valid and invalid tables that come back."""

from __future__ import annotations

import shlex
import shutil

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Discrete
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from lit_imitation import Transitions, make, read_demonstrations
from lit_imitation.errors import DemonstrationError
from lit_imitation.methods.dagger import human_labels
from lit_imitation.methods.dagger.human_labels import FrameRecorder, HumanLabels, can_render, digest
from lit_imitation.rollout import Episodes, Steps

OBSERVATIONS = Box(-np.inf, np.inf, (3,), np.float32)
FOUR = Discrete(4)
SHIFTED = Discrete(3, start=-1)
TORQUES = Box(np.float32([-0.7, 0]), np.float32([0.7, np.inf]))
ANY = Box(np.float32([[-np.inf], [-np.inf]]), np.float32([[np.inf], [1.5]]))
SCALAR = Box(-2, 2, (), np.float32)
METADATA = {"env_id": "Some-v0", "seed": 3}


def states(action_space, n=5):
    """Transitions `[n]` of two episodes."""
    rng = np.random.default_rng(0)
    action_space.seed(0)
    truncated = np.zeros(n, bool)
    truncated[[1, -1]] = True
    return Transitions.from_numpy(
        {
            "observation": rng.normal(size=(n, 3)).astype(np.float32),
            "action": np.stack([action_space.sample() for _ in range(n)]),
            "reward": rng.normal(size=n).astype(np.float32),
            "terminated": np.zeros(n, bool),
            "truncated": truncated,
            "next_observation": rng.normal(size=(n, 3)).astype(np.float32),
        }
    )


@pytest.fixture
def round_of(tmp_path):
    """Write the files of a round, and optionally replace its table."""

    def lay_out(action_space=FOUR, table=None, n=5):
        directory = tmp_path / "to_label" / "round_003"
        HumanLabels().write(directory, states(action_space, n), METADATA)
        if table is not None:
            (directory / "labels.csv").write_bytes(table if isinstance(table, bytes) else table.encode())
        return directory

    return lay_out


def read(directory, action_space=FOUR):
    return HumanLabels().read(directory, OBSERVATIONS, action_space)


def files(directory):
    return {path.relative_to(directory): path.read_bytes() for path in directory.rglob("*") if path.is_file()}


# Writing


@pytest.mark.parametrize(
    ("action_space", "header"),
    [
        (FOUR, "row,action"),
        (TORQUES, "row,action_0,action_1"),
        (ANY, "row,action_0,action_1"),
        (SCALAR, "row,action_0"),
    ],
    ids=str,
)
def test_round_writes_table_and_instructions(round_of, action_space, header):
    directory = round_of(action_space)
    assert sorted(path.name for path in directory.iterdir()) == ["labels.csv", "states.npz"]
    assert (directory / "labels.csv").read_text().splitlines() == [
        header,
        *(f"{row}{',' * header.count(',')}" for row in range(5)),
    ]
    written = read_demonstrations(str(directory / "states.npz"), OBSERVATIONS, action_space)
    assert written.metadata == {**METADATA, "digest": digest(written.transitions)}
    for name in ("observation", "action", "reward", "truncated", "next_observation"):
        assert torch.equal(getattr(written.transitions, name), getattr(states(action_space), name))
    assert [path.name for path in directory.parent.iterdir()] == ["round_003"]


def test_frames_are_moved_into_the_folder(tmp_path):
    frames = tmp_path / "frames-of-a-rollout"
    frames.mkdir()
    (frames / "000000.png").write_bytes(b"picture")
    HumanLabels().write(tmp_path / "round_001", states(FOUR), METADATA, frames)
    assert (tmp_path / "round_001" / "frames" / "000000.png").read_bytes() == b"picture"
    assert not frames.exists()


def test_earlier_folder_is_replaced_unless_it_has_labels(round_of):
    directory = round_of()
    (directory / "frames").mkdir()
    round_of(n=7)
    assert len((directory / "labels.csv").read_text().splitlines()) == 8
    assert not (directory / "frames").exists()
    assert [path.name for path in directory.parent.iterdir()] == ["round_003"]
    for i in (1, 2):
        begun = f"row,action\n0,{i}\n"
        (directory / "labels.csv").write_text(begun)
        round_of(n=6)
        assert len((directory / "labels.csv").read_text().splitlines()) == 7
        assert (directory.with_name(f"round_003-{i}") / "labels.csv").read_text() == begun
    assert len(list(directory.parent.iterdir())) == 3


@pytest.mark.parametrize("step", ["write_demonstrations", "atomic_write", "shutil.move"])
@pytest.mark.parametrize("earlier", [False, True])
def test_failed_write_leaves_no_folder(round_of, tmp_path, monkeypatch, step, earlier):
    frames = tmp_path / "frames"
    frames.mkdir()
    (frames / "000000.png").touch()
    if earlier:
        round_of()
    before = files(tmp_path)

    def fail(*arguments):
        raise OSError("the disk is full")

    monkeypatch.setattr(human_labels.shutil if step == "shutil.move" else human_labels, step.split(".")[-1], fail)
    with pytest.raises(OSError, match="disk is full"):
        HumanLabels().write(tmp_path / "to_label" / "round_003", states(FOUR), METADATA, frames)
    assert files(tmp_path) == before


@pytest.mark.parametrize(
    ("action_space", "text"),
    [
        (FOUR, "the column 'action' of {}/labels.csv (412 states; allowed: whole numbers 0 to 3), then"),
        (SHIFTED, "(412 states; allowed: whole numbers -1 to 1)"),
        (SCALAR, "the column 'action_0' of {}/labels.csv (412 states; allowed: numbers from -2 to 2)"),
        (TORQUES, "allowed: action_0 numbers from -0.7 to 0.7, action_1 numbers from 0 up)"),
        (ANY, "allowed: action_0 any number, action_1 numbers up to 1.5)"),
        (Box(-1, 1, (3,), np.float32), "the columns 'action_0' to 'action_2' of {}/labels.csv (412 states; allowed: n"),
    ],
    ids=str,
)
def test_instructions_describe_the_table(tmp_path, action_space, text):
    run = tmp_path / "my runs"
    line = HumanLabels().instructions(run / "to_label" / "round_003", run, 412, action_space)
    assert line.startswith("round 3 waits for labels: fill in the column")
    assert text.format(run / "to_label" / "round_003") in line
    assert "\n" not in line
    command = line.rpartition("resume with: ")[2]
    assert shlex.split(command) == [
        *(
            "lit-imitation",
            "fit",
            "--config",
            str(run / "config.yaml"),
            "--trainer.default_root_dir",
            str(run),
            "--ckpt_path",
            "last",
        )
    ]


# Reading

GOOD = "row,action\n0,3\n1,0\n2,1\n3,2\n4,0\n"


@pytest.mark.parametrize(
    "table",
    [
        GOOD,
        GOOD.replace("\n", "\r\n"),
        GOOD.replace("\n", "\r"),
        GOOD.removesuffix("\n"),
        "\ufeff" + GOOD,
        GOOD + "\n\n \n,\n",
        GOOD.replace("\n", "\n\n"),
        GOOD.replace(",", ";"),
        GOOD.replace(",", "\t"),
        ("\ufeff" + GOOD.replace(",", ";")).replace("\n", ";;\r\n"),
        GOOD.replace("1\n", "1.0\n").replace("2\n", "+2e0\n"),
        'row,"action"\n"0","3"\n1,"0.0"\n"2",1\n3,2\n4,0\n',
        " row , action \n 0 , 3 \n1,\u00a00\n2,1\n3,2\n4,0\n",
        "row,action\n4,0\n2,1\n0,3\n3,2\n1.0,0\n",
        "row;action\n0;3,0\n1;0\n2;1\n3;2\n4;0\n",
    ],
)
def test_labels_replace_actions(round_of, table):
    directory = round_of(table=table)
    before = files(directory)
    labeled = read(directory)
    assert labeled.action.dtype == torch.int64
    assert labeled.action.tolist() == [3, 0, 1, 2, 0]
    written = states(FOUR)
    assert written.action.tolist() != [3, 0, 1, 2, 0]
    for name in ("observation", "reward", "terminated", "truncated", "next_observation"):
        assert torch.equal(getattr(labeled, name), getattr(written, name))
    assert files(directory) == before


def test_discrete_labels_respect_start_of_space(round_of):
    labeled = read(round_of(SHIFTED, "row,action\n0,-1\n1,0\n2,1\n3,-1.0\n4,0\n"), SHIFTED)
    assert labeled.action.tolist() == [-1, 0, 1, -1, 0]


def test_continuous_labels_are_read(round_of):
    table = "row,action_0,action_1\n1,0.7,1e3\n0,-0.7,0\n2,.5,1.\n3,0,0\n4,-0.7000001,2\n"
    action = read(round_of(TORQUES, table), TORQUES).action
    assert action.dtype == torch.float32
    wanted = np.float32([[-0.7, 0], [0.7, 1000], [0.5, 1], [0, 0], [-0.7, 2]])  # the last one is rounded and clipped
    assert np.array_equal(action.numpy(), wanted)
    assert all(TORQUES.contains(row) for row in action.numpy())
    commas = table.replace(",", ";").replace(".", ",")
    assert torch.equal(read(round_of(TORQUES, commas), TORQUES).action, action)
    action = read(round_of(ANY, "row,action_0,action_1\n0,-5,1.5\n1,2,3e-1\n2,3,-9\n3,4,0\n4,5,1\n"), ANY).action
    assert action.tolist()[:2] == [[[-5.0], [1.5]], [[2.0], [pytest.approx(0.3)]]]
    action = read(round_of(SCALAR, "row,action_0\n0,-2\n1,2\n2,0\n3,0.5\n4,1\n"), SCALAR).action
    assert action.tolist() == [-2, 2, 0, 0.5, 1]


@pytest.mark.integration
@given(
    st.lists(
        st.tuples(st.floats(-0.7, 0.7, allow_subnormal=False), st.floats(0, 1e30, allow_subnormal=False)),
        min_size=2,
        max_size=9,
    )
)
def test_every_number_survives_the_table(tmp_path_factory, labels):
    directory = tmp_path_factory.mktemp("run") / "round_001"
    HumanLabels().write(directory, states(TORQUES, len(labels)), METADATA)
    lines = (directory / "labels.csv").read_text().splitlines()
    filled = [f"{line.rstrip(',')},{a!r},{b!r}" for line, (a, b) in zip(lines[1:], labels, strict=True)]
    (directory / "labels.csv").write_text("\n".join([lines[0], *filled]))
    assert np.array_equal(read(directory, TORQUES).action.numpy(), np.float32(labels))


FAULTS = {
    "nothing": ("", ["is empty", "'row,action'", "0 to 4"]),
    "blank": ("\n;\n", ["is empty", "'row,action'"]),
    "not text": (b"PK\x03\x04\xff\xfe", ["not text in UTF-8", "as CSV"]),
    "utf-16": (GOOD.encode("utf-16"), ["not text in UTF-8"]),
    "no header": (GOOD.partition("\n")[2], ["first line is '0,3'", "'row,action'"]),
    "other header": (GOOD.replace("action", "label"), ["first line is 'row,label'", "'row,action'"]),
    "column more": ("row,action,note\n0,1,x\n", ["first line is 'row,action,note'", "'row,action'"]),
    "one column": ('"row,action"\n0\n', ["first line is '\"row,action\"'", "'row,action'"]),
    "continuous": ("row,action_0\n0,1\n", ["first line is 'row,action_0'", "'row,action'"]),
    "template": ("row,action\n0,\n1,\n2,\n3,\n4,\n", ["5 of 5 rows are not filled in", "row 0 (line 2)", "'action'"]),
    "two empty": (
        "row,action\n\n4,2\n3,\n2,  \n1,1\n0,0",
        ["2 of 5 rows are not filled in", "row 2 (line 5)", "0 to 3"],
    ),
    "no cell": ("row,action\n0,1\n1,1\n2\n3,1\n4,1", ["1 of 5 rows are not filled in", "row 2 (line 4)"]),
    "missing": ("row,action\n0,1\n2,1\n4,", ["2 of 5 rows are missing", "the first is row 1"]),
    "header only": ("row,action\n", ["5 of 5 rows are missing", "the first is row 0"]),
    "twice": (GOOD + "2,1\n", ["row 2 appears twice, in line 4 and in line 7", "each state has one line"]),
    "surplus": (GOOD + "5,1\n", ["line 7, column 'row' is '5'", "rows 0 to 4"]),
    "negative row": (GOOD + "-1,1\n", ["line 7, column 'row' is '-1'", "rows 0 to 4"]),
    "no row": (GOOD.replace("2,1", ",1"), ["line 4, column 'row' is ''", "rows 0 to 4"]),
    "half a row": (GOOD.replace("2,1", "2.5,1"), ["line 4, column 'row' is '2.5'"]),
    "row of letters": (GOOD.replace("2,1", "two,1"), ["line 4, column 'row' is 'two'"]),
    "infinite row": (GOOD.replace("2,1", "inf,1"), ["line 4, column 'row' is 'inf'"]),
    "three cells": (
        GOOD.replace("2,1", "2,1,0"),
        ["line 4 has 3 cells ('2,1,0')", "columns are row, action;", "decimal point"],
    ),
    "open quote": (GOOD.replace("2,1", '2,"1'), ["is not valid CSV"]),
    "zero byte": (GOOD.replace("2,1", "2,\0"), ["line 4"]),
    "letters": (GOOD.replace("2,1", "2,left"), ["row 2 (line 4)", "'action' is 'left'", "not a number", "0 to 3"]),
    "underscore": (GOOD.replace("2,1", "2,0_1"), ["row 2 (line 4)", "'0_1'", "not a number"]),
    "hexadecimal": (GOOD.replace("2,1", "2,0x1"), ["'0x1'", "not a number"]),
    "other digits": (GOOD.replace("2,1", "2,١"), ["'١'", "not a number"]),
    "date": (GOOD.replace("2,1", "2,1. Jan"), ["'1. Jan'", "not a number"]),
    "fraction": (GOOD.replace("2,1", "2,1.5"), ["row 2 (line 4)", "'1.5'", "not a whole number", "0 to 3"]),
    "too large": (GOOD.replace("2,1", "2,4"), ["row 2 (line 4)", "'4'", "not an action", "whole numbers 0 to 3"]),
    "too small": (GOOD.replace("2,1", "2,-1"), ["row 2 (line 4)", "'-1'", "not an action"]),
    "NaN": (GOOD.replace("2,1", "2,NaN"), ["row 2 (line 4)", "'NaN'", "not finite"]),
    "infinite": (GOOD.replace("2,1", "2,-inf"), ["row 2 (line 4)", "'-inf'", "not finite"]),
    "overflow": (GOOD.replace("2,1", "2,1e999"), ["row 2 (line 4)", "'1e999'", "not finite"]),
    "semicolons": (GOOD.replace("2,1", "2,1,5").replace(",", ";", 3), ["line"]),
    "decimal comma": ("row;action\n0;0\n1;0\n2;1,5\n3;0\n4;0", ["row 2 (line 4)", "'1,5'", "not a whole number"]),
}


@pytest.mark.parametrize("case", FAULTS)
def test_invalid_table_is_refused_with_its_place(round_of, case):
    table, texts = FAULTS[case]
    directory = round_of(table=table)
    before = files(directory)
    with pytest.raises(DemonstrationError) as caught:
        read(directory)
    message = str(caught.value)
    assert message.startswith(str(directory / "labels.csv"))
    assert "\n" not in message
    for text in texts:
        assert text in message
    assert files(directory) == before


@pytest.mark.parametrize(
    ("line", "texts"),
    [
        ("2,0.71,1", ["row 2 (line 4)", "'action_0' is '0.71'", "outside", "numbers from -0.7 to 0.7"]),
        ("2,-0.8,1", ["'action_0' is '-0.8'", "outside"]),
        ("2,0,-0.1", ["'action_1' is '-0.1'", "outside", "numbers from 0 up"]),
        ("2,0,inf", ["'action_1' is 'inf'", "not finite"]),
        ("2,nan,0", ["'action_0' is 'nan'", "not finite"]),
        ("2,0", ["1 of 5 rows are not filled in", "row 2 (line 4)", "'action_1'", "numbers from 0 up"]),
        ("2,,0", ["1 of 5 rows are not filled in", "row 2 (line 4)", "'action_0'"]),
        ("2,0,5,1", ["line 4 has 4 cells ('2,0,5,1')", "columns are row, action_0, action_1;", "decimal point"]),
        ('2,"0,5",1', ["'action_0' is '0,5'", "not a number"]),
        ("2,0.5.1,1", ["'action_0' is '0.5.1'", "not a number"]),
        ("2,0,1e300", ["'action_1' is '1e300'", "not finite"]),
    ],
)
def test_invalid_continuous_label_is_refused(round_of, line, texts):
    directory = round_of(TORQUES, f"row,action_0,action_1\n0,0,0\n1,0,0\n{line}\n3,0,0\n4,0,0\n")
    with pytest.raises(DemonstrationError) as caught:
        read(directory, TORQUES)
    for text in (str(directory / "labels.csv"), *texts):
        assert text in str(caught.value)


def test_missing_files_are_named(round_of):
    directory = round_of()
    (directory / "labels.csv").unlink()
    with pytest.raises(DemonstrationError, match=r"labels\.csv: no such file; its first line must be 'row,action'"):
        read(directory)
    (directory / "labels.csv").mkdir()
    with pytest.raises(DemonstrationError, match=r"labels\.csv is a directory, not a file"):
        read(directory)
    shutil.rmtree(directory)
    with pytest.raises(DemonstrationError, match=r"states\.npz: no such file"):
        read(directory)


# Frames


class Picture(gymnasium.Env):
    """Environment whose frames are one pixel, equal to the observation."""

    observation_space, action_space = Box(0, 255, (3,), np.float32), Discrete(2)
    metadata = {"render_modes": ["rgb_array"]}  # noqa: RUF012
    render_mode = "rgb_array"

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.length, self.t = int(self.np_random.integers(1, 7)), 0
        return self.observe(), {}

    def observe(self):
        self.state = self.np_random.integers(256, size=3)
        return self.state.astype(np.float32)

    def step(self, action):
        self.t += 1
        return self.observe(), 0.0, self.t == self.length, False, {}

    def render(self):
        return self.state.astype(np.uint8).reshape(1, 1, 3)


def recorded(envs, kind, amount, directory, rows=None):
    """A rollout and the folder of its frames."""
    recorder = FrameRecorder(envs, directory)

    def act(observation):
        recorder(rollout.live)
        return (observation[:, 0] > 0).astype(np.int64)

    rollout = kind(envs, act, amount, 5, record=True)
    list(rollout)
    return rollout, recorder.finish(rows)


@pytest.mark.parametrize("mode", [AutoresetMode.SAME_STEP, AutoresetMode.NEXT_STEP])
@pytest.mark.parametrize(("kind", "amount"), [(Episodes, 8), (Steps, 29)])
def test_frame_number_matches_state(tmp_path, kind, amount, mode):
    envs = SyncVectorEnv([Picture] * 3, autoreset_mode=mode)
    for chosen in (None, [1, 4, 5, 12, 20]):
        (tmp_path / "frames").mkdir(exist_ok=True)
        (tmp_path / "frames" / "left.png").touch()  # left by an interrupted round
        rollout, directory = recorded(envs, kind, amount, tmp_path / "frames", chosen)
        assert directory == tmp_path / "frames"
        observation = rollout.transitions().observation
        assert len(observation) > 20
        observation = observation if chosen is None else observation[chosen]
        names = sorted(path.name for path in directory.iterdir())
        assert names == [f"{row:06d}.png" for row in range(len(observation))]
        pixels = [np.asarray(Image.open(directory / name))[0, 0] for name in names]
        np.testing.assert_array_equal(pixels, observation)


@pytest.mark.integration
def test_cartpole_frames_are_recorded(tmp_path):
    pytest.importorskip("pygame", reason="CartPole draws with pygame")
    assert can_render("CartPole-v1", {})
    envs = make("CartPole-v1", 3, 0, "sync", render_mode="rgb_array")
    rollout, directory = recorded(envs, Episodes, 3, tmp_path / "frames")
    envs.close()
    frames = [np.asarray(Image.open(path)).astype(np.int16) for path in sorted(directory.iterdir())]
    observations = rollout.transitions().observation.double().numpy()
    assert len(frames) == len(observations) > 20
    single = gymnasium.make("CartPole-v1", render_mode="rgb_array")
    single.reset(seed=0)
    for k, observation in enumerate(observations):
        single.unwrapped.state = observation
        wanted = single.render()
        # Rounding in float32 may move an edge by one pixel, and slow states look alike.
        distances = [int(np.abs(frame - wanted).sum()) for frame in frames[max(0, k - 5) : k + 6]]
        assert distances[min(k, 5)] == min(distances) < max(distances)
    single.close()


def test_environment_without_frames_is_refused(monkeypatch):
    class Blind(Picture):
        metadata = {"render_modes": []}  # noqa: RUF012

    class Broken(Picture):
        def render(self):
            raise ImportError("no library, no display")

    made = []

    def make_single(env_id, **env_kwargs):
        made.append(env_kwargs)
        return {"Picture": Picture, "Blind": Blind, "Broken": Broken}[env_id]()

    monkeypatch.setattr(human_labels, "make_single", make_single)
    assert can_render("Picture", {"size": 3})
    assert made == [{"size": 3}, {"size": 3, "render_mode": "rgb_array"}]
    assert not can_render("Blind", {})
    assert not can_render("Broken", {})

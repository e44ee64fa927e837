"""Observations on disk: the same batches as from memory, in an order fixed by seed, and faults named."""

from __future__ import annotations

import itertools
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import foreign_formats as formats
import h5py
import numpy as np
import pytest
import torch

from lit_imitation import DemonstrationDataModule, ImitationDataModule, read_demonstrations
from lit_imitation.data import demonstration_module, expert_module, stored_observations, streamed_blocks
from lit_imitation.data.blocks import Blocks
from lit_imitation.data.demonstrations import demonstrations_of, read_all, stored_demonstrations, write_demonstrations
from lit_imitation.data.file_spaces import infer_spaces
from lit_imitation.data.sources import needs_memory
from lit_imitation.data.streamed_blocks import StreamedBlocks
from lit_imitation.data.streamed_examples import StreamedExamples
from lit_imitation.errors import ConfigError, DemonstrationError
from lit_imitation.networks.mlp import moments
from lit_imitation.utils import memory
from lit_imitation.windows import WindowedTransitions, WindowSize

CPU = torch.device("cpu")
LENGTHS = (30, 7, 51, 12, 40)


def made(lengths: tuple[int, ...] = LENGTHS) -> dict[str, np.ndarray]:
    """Columns whose observations `[N, 3]` begin with the number of the row."""
    count, rng = sum(lengths), np.random.default_rng(0)
    rows = rng.normal(size=(count, 3)).astype(np.float32)
    rows[:, 0] = np.arange(count)
    return {
        "observations": rows,
        "actions": rng.normal(size=(count, 2)).astype(np.float32),
        "rewards": np.ones(count, np.float32),
        "terminals": np.zeros(count, bool),
        "timeouts": np.isin(np.arange(count), np.cumsum(lengths) - 1),
    }


def write(path: Path, **changes: Any) -> str:
    held = {**made(), **changes}
    if path.suffix == ".npz":
        np.savez(path, **held)
    else:
        with h5py.File(path, "w") as file:
            for key, value in held.items():
                file[key] = value
    return str(path)


def trainer(epoch: int = 0, rank: int = 0, world: int = 1, policy: Any = None) -> Any:
    return SimpleNamespace(
        global_rank=rank,
        world_size=world,
        num_devices=world,
        current_epoch=epoch,
        strategy=SimpleNamespace(root_device=CPU, broadcast=lambda value: value),
        state=SimpleNamespace(fn="fit"),
        limit_train_batches=1.0,
        max_steps=-1,
        checkpoint_callbacks=[],
        lightning_module=SimpleNamespace(accumulate_batches=1, policy=policy),
    )


def module(source: Any, **more: Any) -> DemonstrationDataModule:
    data = DemonstrationDataModule(demonstrations=source, **{"seed": 0, "memory": "stream", "batch_size": 8, **more})
    data.trainer = trainer()
    return data


def both(source: str, keys: list[str] | None = None) -> tuple[Any, Any]:
    """The demonstrations of a source in memory, and on disk."""
    resident, stored = (read_all(source, observation_keys=keys, stored=one) for one in (False, True))
    spaces = infer_spaces(resident)
    assert infer_spaces(stored) == spaces
    return demonstrations_of(resident, *spaces), stored_demonstrations(stored, *spaces)


SOURCES = {
    "npz": (lambda path: write(path / "a.npz"), None),
    "hdf5": (lambda path: write(path / "a.hdf5"), None),
    "discrete": (lambda path: write(path / "a.hdf5", observations=np.arange(140) % 7), None),
    "keyed npz": (lambda path: formats.write_keyed(path / "a.npz"), None),
    "keyed hdf5": (lambda path: formats.write_keyed(path / "a.hdf5"), ["state", "object"]),
    "robomimic": (lambda path: formats.write_robomimic(path / "a.hdf5"), None),
    "zarr": (lambda path: formats.write_zarr(path / "a.zarr"), None),
    "zarr zip": (lambda path: formats.write_zarr(path / "a.zarr.zip"), ["img"]),
    "LeRobot 2.1": (lambda path: formats.write_lerobot_2(path / "a"), None),
    "LeRobot 3.0": (lambda path: formats.write_lerobot_3(path / "a", files=2), None),
    "LeRobot video": (lambda path: formats.write_lerobot_2(path / "a", video=True), None),
}


@pytest.mark.parametrize("kind", SOURCES)
def test_rows_on_disk_equal_rows_in_memory(kind, tmp_path, monkeypatch):
    writer, keys = SOURCES[kind]
    resident, stored = both(str(writer(tmp_path)), keys)
    assert stored.stored is not None
    assert stored.transitions.observation.tolist() == list(range(len(resident.transitions)))
    index = torch.randint(len(resident.transitions), (3, 5, 2), generator=torch.Generator().manual_seed(1))
    for piece, nearby in ((stored_observations.PIECE, 100), (1, 1)):  # at once, and row by row
        monkeypatch.setattr(stored_observations, "PIECE", piece)
        stored.stored._nearby = nearby
        found = stored.stored.read(index)
        wanted = resident.transitions.observation[index]
        assert (found.dtype, found.shape) == (wanted.dtype, wanted.shape)
        assert torch.equal(found, wanted)
    for field in ("action", "reward", "terminated", "truncated"):
        assert torch.equal(getattr(stored.transitions, field), getattr(resident.transitions, field)), field
    assert torch.equal(stored.episode_returns, resident.episode_returns)
    stored.stored.close()


def test_rows_of_several_files_are_joined(tmp_path):
    files = [write(tmp_path / "a.npz"), write(tmp_path / "b.hdf5", observations=made()["observations"] + 1000)]
    resident, stored = both(files)
    index = torch.tensor([279, 0, 140, 139, 141, 139])
    assert torch.equal(stored.stored.read(index), resident.transitions.observation[index])


def test_windows_on_disk_equal_windows_in_memory(tmp_path):
    resident, stored = both(write(tmp_path / "a.hdf5"))
    size = WindowSize(observations=3, horizon=6, actions=2)
    index = torch.arange(60).flip(0).view(4, 15)
    found = StreamedExamples(WindowedTransitions(stored.transitions, size), stored.stored, CPU)[index]
    wanted = WindowedTransitions(resident.transitions, size)[index]
    for field in ("observation", "action", "mask"):
        assert torch.equal(getattr(found, field), getattr(wanted, field)), field


# --- order ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def small_pools(monkeypatch):
    """Pools of 4 minibatches of 8 rows, groups of 4 rows."""
    monkeypatch.setattr(streamed_blocks, "POOL", 4 * 8 * 12)
    monkeypatch.setattr(streamed_blocks, "GROUP", 4)


def blocks_of(stored: Any, epoch: int = 0, rank: int = 0, world: int = 1, workers: int = 1, **more: Any) -> Any:
    examples = StreamedExamples(stored.transitions, stored.stored, CPU)
    settings = {"batch_size": 8, "passes": 2, "seed": 0, **more}
    return StreamedBlocks(examples, **settings, trainer=trainer(epoch, rank, world), workers=workers)


def rows_of(blocks: Any) -> list[list[int]]:
    """Row numbers of each minibatch, by the observation."""
    return [minibatch.observation[:, 0].int().tolist() for block in blocks for minibatch in block]


def test_order_is_a_permutation_in_groups_and_pools(small_pools, tmp_path):
    _, stored = both(write(tmp_path / "a.hdf5"))
    given = rows_of(blocks_of(stored))
    assert len(given) == 2 * (140 // 8)
    for number in range(2):
        one = given[number * 17 : (number + 1) * 17]
        assert len(set(itertools.chain(*one))) == 17 * 8
        for first in range(0, 16, 4):  # each pool holds 8 groups of 4, in no order
            rows = list(itertools.chain(*one[first : first + 4]))
            assert len({row // 4 for row in rows}) <= 9  # a cut group at either end
            together = sum(b == a + 1 for a, b in itertools.pairwise(rows))
            assert together < 6  # 1 of 31 pairs by chance, 24 where only groups are permuted
    assert given[:17] != given[17:]
    groups = {row // 4 for row in itertools.chain(*given[:4])}
    assert max(groups) - min(groups) > 15  # of 35, from all over the file


def test_blocks_equal_resident_blocks_of_the_same_order(small_pools, tmp_path, monkeypatch):
    resident, stored = both(write(tmp_path / "a.hdf5"))
    streamed = blocks_of(stored)
    memory = Blocks(resident.transitions, 8, 2, 0, trainer())
    monkeypatch.setattr(memory, "_shuffle", streamed._shuffle)
    memory.longest = streamed.longest
    memory.length = streamed.length
    for ours, wanted in zip(streamed, memory, strict=True):
        for field in ("observation", "action", "reward", "terminated", "truncated"):
            assert torch.equal(getattr(ours, field), getattr(wanted, field)), field


def test_order_does_not_depend_on_workers_or_block_length(small_pools, tmp_path):
    _, stored = both(write(tmp_path / "a.hdf5"))
    alone = rows_of(blocks_of(stored, workers=0))
    assert all(rows_of(blocks_of(stored, workers=workers)) == alone for workers in (1, 2, 5))
    short = blocks_of(stored)
    short.length = 3  # blocks that overlap two pools, and two passes
    assert rows_of(short) == alone
    assert rows_of(blocks_of(stored, epoch=1)) != alone
    assert rows_of(blocks_of(stored, seed=1)) != alone


def test_threads_read_the_next_pools(small_pools, tmp_path):
    _, stored = both(write(tmp_path / "a.hdf5"))
    blocks = blocks_of(stored, workers=2)
    found = [sorted(blocks._reading) for _ in blocks]
    # Passes of 17 minibatches in pools of 4; the block of minibatches 16 to 19 ends in the second pass.
    assert found[0] == [(0, 0), (0, 1), (0, 2)]
    assert found[3] == [(0, 3), (0, 4), (1, 0)]
    assert found[4] == [(1, 0), (1, 1), (1, 2)]
    assert found[-1] == [(1, 4)]


def test_processes_share_minibatches(small_pools, tmp_path):
    _, stored = both(write(tmp_path / "a.hdf5"))
    alone = rows_of(blocks_of(stored))
    shares = [rows_of(blocks_of(stored, rank=rank, world=2)) for rank in range(2)]
    assert [a + b for a, b in zip(*shares, strict=True)] == alone


@pytest.mark.parametrize("stop", [1, 3, 6])
def test_resumed_epoch_continues_with_the_next_batch(small_pools, tmp_path, stop):
    _, stored = both(write(tmp_path / "a.hdf5"))
    whole = rows_of(blocks_of(stored))
    interrupted = blocks_of(stored)
    seen = rows_of(itertools.islice(interrupted, stop))
    resumed = blocks_of(stored, workers=2)
    resumed.load_state_dict(interrupted.state_dict())
    assert seen + rows_of(resumed) == whole


def test_groups_are_as_long_as_chunks(small_pools, tmp_path):
    with h5py.File(tmp_path / "a.hdf5", "w") as file:
        for key, value in made().items():
            file.create_dataset(key, data=value, chunks=(20, *value.shape[1:]) if value.ndim > 1 else None)
    _, stored = both(str(tmp_path / "a.hdf5"))
    assert stored.stored.together == 20
    assert blocks_of(stored).group == 4  # at least 8 groups in a pool
    assert blocks_of(stored, batch_size=64).group == 8


def test_long_minibatches_have_a_pool_of_their_own(tmp_path, monkeypatch):
    monkeypatch.setattr(streamed_blocks, "POOL", 1)
    _, stored = both(write(tmp_path / "a.npz"))
    blocks = blocks_of(stored)
    assert (blocks.pool, blocks.longest) == (1, 1)
    given = list(itertools.chain(*rows_of(blocks)[:17]))
    assert len(set(given)) == len(given) == 17 * 8


# --- the DataModule ---------------------------------------------------------------------------------------------------


def test_splits_are_those_of_memory(tmp_path):
    options = {"val_fraction": 0.25, "test_fraction": 0.2, "num_trajectories": 4, "subsample": 3}
    resident, streamed = (module(write(tmp_path / "a.hdf5"), memory=one, **options) for one in ("resident", "stream"))
    for data in (resident, streamed):
        data.setup("fit")
    for name in ("train", "held_out", "tested"):
        ours, wanted = getattr(streamed, name), getattr(resident, name)
        assert torch.equal(torch.cat(list(streamed.observations(ours))), wanted.observation)
        assert torch.equal(ours.action, wanted.action)
    (ours,), (wanted,) = streamed.val_dataloader(), resident.val_dataloader()
    assert torch.equal(torch.cat([one.observation for one in ours]), torch.cat([one.observation for one in wanted]))
    streamed.teardown("fit")


def test_held_out_chunks_are_bounded(tmp_path, monkeypatch):
    monkeypatch.setattr(expert_module, "PIECE", 5 * 12)
    data = module(write(tmp_path / "a.hdf5"), val_fraction=0.4)
    data.setup("fit")
    (loader,) = data.val_dataloader()
    sizes = [len(one) for one in loader]
    assert set(sizes[:-1]) == {5}
    assert sizes[-1] <= 5
    assert sum(sizes) == len(data.held_out)


def test_statistics_in_one_pass_equal_those_of_all_rows(tmp_path, monkeypatch):
    data = module(write(tmp_path / "a.hdf5", observations=1e3 + 0.1 * made()["observations"]))
    data.setup("fit")
    monkeypatch.setattr(stored_observations, "PIECE", 7 * 12)
    parts = list(data.observations(data.train))
    assert len(parts) > 3
    rows = torch.cat(parts).double().numpy()
    mean, std = moments(data.observations(data.train))
    np.testing.assert_allclose(mean, rows.mean(0), rtol=1e-12)
    np.testing.assert_allclose(std, rows.std(0), rtol=1e-9)


@pytest.mark.parametrize(("available", "streams"), [(4 * 1679, True), (4 * 1680, False)])
def test_auto_streams_above_a_quarter_of_memory(available, streams, tmp_path, monkeypatch):
    source = write(tmp_path / "a.npz")  # 140 rows of 12 bytes
    monkeypatch.setattr(demonstration_module, "available_memory", lambda: available)
    data = module(source, memory="auto")
    data.setup("fit")
    assert (data.stored is not None) is streams


def test_small_files_are_not_opened_twice(tmp_path, monkeypatch):
    source = write(tmp_path / "a.npz")
    monkeypatch.setattr(demonstration_module, "needs_memory", lambda *given: pytest.fail("opened"))
    module(source, memory="auto").setup("fit")


def test_packed_observations_are_streamed(tmp_path):
    data = module(str(formats.write_keyed(tmp_path / "a.hdf5")), val_fraction=0.0, batch_size=3)
    data.setup("fit")
    (block,) = data.train_dataloader()
    resident = module(str(tmp_path / "a.hdf5"), memory="resident", val_fraction=0.0)
    resident.setup("fit")
    rows = {row.numpy().tobytes() for row in resident.train.observation}
    assert {row.numpy().tobytes() for row in block.observation.flatten(0, 1)} == rows


# --- faults -----------------------------------------------------------------------------------------------------------


def test_nan_in_the_middle_is_named_before_training(tmp_path, monkeypatch):
    observations = made()["observations"]
    observations[40, 1] = np.nan  # 30 + 7 rows before
    source = write(tmp_path / "a.hdf5", observations=observations)
    for piece in (2**26, 12 * 5):
        monkeypatch.setattr(stored_observations, "PIECE", piece)
        with pytest.raises(DemonstrationError, match=r"'observations'.*, row 3 of episode 2, column 1 is nan"):
            module(source).setup("fit")


def test_choice_outside_its_space_is_named(tmp_path):
    source = write(tmp_path / "a.hdf5", observations=np.arange(140) % 7)
    data = module(source, observation_space={"type": "Discrete", "n": 6})
    with pytest.raises(DemonstrationError, match=r"row 6 of episode 0 is 6, outside Discrete\(6\)"):
        data.setup("fit")


def test_file_cut_during_training_is_named(tmp_path):
    source = write(tmp_path / "a.npz")
    data = module(source)
    data.setup("fit")
    Path(source).write_bytes(Path(source).read_bytes()[:900])
    with pytest.raises(DemonstrationError, match=r"a.npz: the observations of episode .* cannot be read .*restore it"):
        list(data.train_dataloader())


def test_file_removed_during_training_is_named(tmp_path):
    source = write(tmp_path / "a.hdf5")
    data = module(source)
    data.setup("fit")
    Path(source).unlink()
    with pytest.raises(
        DemonstrationError, match=r"a.hdf5: the observations of episode .* cannot be read .*no such file"
    ):
        list(data.train_dataloader())


def test_file_exchanged_during_training_is_named(tmp_path):
    source = write(tmp_path / "a.hdf5")
    data = module(source)
    data.setup("fit")
    Path(source).unlink()
    write(tmp_path / "a.hdf5", timeouts=np.arange(140) % 70 == 69)
    with pytest.raises(DemonstrationError, match="it holds other episodes than before"):
        list(data.train_dataloader())


@pytest.mark.parametrize("kind", ["compressed", "flat", "minari"])
def test_sources_that_are_read_whole_are_named(kind, tmp_path):
    source = f"minari:{tmp_path}"
    if kind == "compressed":
        source = str(tmp_path / "a.npz")
        np.savez_compressed(source, **made())
    elif kind == "flat":
        source = str(tmp_path / "a.npz")
        rows = made()
        np.savez(source, obs=np.zeros((4, 3)), acts=rows["actions"][:3], terminal=[True], indices=np.zeros(0, int))
    assert "read whole" in needs_memory(source)
    with pytest.raises(ConfigError, match=r"read whole: write it .*data.memory is stream"):
        module(source).setup("fit")


def test_file_larger_than_memory_that_is_read_whole_is_refused(tmp_path, monkeypatch):
    source = str(tmp_path / "a.npz")
    np.savez_compressed(source, **made())
    monkeypatch.setattr(demonstration_module, "available_memory", lambda: 1000)
    with pytest.raises(ConfigError, match=r"'observations' is compressed.*np.savez.*and 1e-06 GB of memory are avail"):
        module(source, memory="auto").setup("fit")


def test_adversarial_data_larger_than_memory_are_refused(tmp_path, monkeypatch):
    source = write(tmp_path / "a.npz")
    monkeypatch.setattr(expert_module, "available_memory", lambda: 1000)
    data = ImitationDataModule(env_id="Pendulum-v1", demonstrations=source, seed=0)
    data._spaces = ()
    with pytest.raises(ConfigError, match=r"1e-06 GB of memory are available, but ImitationDataModule keeps demonstr"):
        data.load()


def test_streaming_an_expert_is_refused():
    with pytest.raises(ConfigError, match=r"data\.memory is stream, but demonstrations of an expert are collected"):
        DemonstrationDataModule("Pendulum-v1", expert="scripted", memory="stream")


@pytest.mark.parametrize("first", ["stream", "resident"])
def test_resuming_with_another_order_is_refused(first, tmp_path):
    source = write(tmp_path / "a.hdf5")
    before, after = (module(source, memory=one) for one in (first, {"stream": "resident"}.get(first, "stream")))
    for data in (before, after):
        data.setup("fit")
    with pytest.raises(ConfigError, match=f"resume it with data.memory {first}"):
        after.load_state_dict(before.state_dict())


@pytest.mark.parametrize("suffix", ["npz", "hdf5"])
@pytest.mark.parametrize("packed", [False, True])
def test_observations_on_disk_are_written_in_pieces(suffix, packed, tmp_path, monkeypatch):
    writer = partial(formats.write_keyed, tmp_path / "a.hdf5") if packed else partial(write, tmp_path / "a.hdf5")
    source = str(writer())
    resident, stored = both(source)
    spaces = infer_spaces(read_all(source))
    monkeypatch.setattr(stored_observations, "PIECE", 4 * stored.stored.row_bytes)
    write_demonstrations(tmp_path / f"b.{suffix}", stored, spaces[0])
    written = read_demonstrations(tmp_path / f"b.{suffix}", *spaces)
    assert torch.equal(written.transitions.observation, resident.transitions.observation)
    if suffix == "npz":
        assert not needs_memory(str(tmp_path / "b.npz"))


def test_memory_of_a_container_counts(tmp_path, monkeypatch):
    whole = memory.available_memory()
    for name, text in (("max", "1000000"), ("current", "900000"), ("stat", "anon 5\ninactive_file 250000\n")):
        (tmp_path / f"memory.{name}").write_text(text)
    monkeypatch.setattr(memory, "CGROUP", tmp_path)
    assert memory.available_memory() == 350000
    (tmp_path / "memory.max").write_text("max")
    assert memory.available_memory() == pytest.approx(whole, rel=0.3)

"""Demonstrations in training: selection, split, weights, order, and sharing among processes."""

from __future__ import annotations

import itertools
from types import SimpleNamespace
from typing import Any

import counting
import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Discrete
from hypothesis import given, settings
from hypothesis import strategies as st

from lit_imitation import (
    DemonstrationDataModule,
    EnvironmentDataModule,
    ImitationDataModule,
    RolloutDataModule,
    write_demonstrations,
)
from lit_imitation.data import expert_module
from lit_imitation.data.demonstrations import Demonstrations
from lit_imitation.data.expert_module import HeldOut
from lit_imitation.data.module import PolicyEpisodes
from lit_imitation.errors import ConfigError, DemonstrationError
from lit_imitation.transitions import Transitions

LENGTHS = (3, 9, 1, 6, 4, 8, 2, 7, 5, 10)


def counted(lengths: tuple[int, ...] = LENGTHS, weights: bool = False) -> Transitions:
    """Trajectories for Counting-v0: observation `[tag, episode, t, 0, 0]`, and return i of episode i."""
    episode = torch.repeat_interleave(torch.arange(len(lengths)), torch.tensor(lengths))
    t = torch.cat([torch.arange(length) for length in lengths])
    over = t == torch.tensor(lengths)[episode] - 1
    zeros = torch.zeros(len(t))
    return Transitions(
        observation=torch.stack([zeros, episode.float(), t.float(), zeros, zeros], 1),
        action=(episode + t) % counting.ACTIONS,
        reward=torch.where(over, episode.float(), 0.0),
        terminated=over,
        truncated=torch.zeros_like(over),
        weight=1.0 + episode if weights else None,
        batch_size=[len(t)],
    )


def trainer(rank: int = 0, world_size: int = 1, device: str = "cpu", epoch: int = 0) -> Any:
    return SimpleNamespace(
        global_rank=rank,
        world_size=world_size,
        current_epoch=epoch,
        strategy=SimpleNamespace(root_device=torch.device(device)),
        state=SimpleNamespace(fn="fit"),
        limit_train_batches=1.0,
        max_steps=-1,
        checkpoint_callbacks=[],
        lightning_module=None,
    )


def module(demonstrations: Any = None, **more: Any) -> DemonstrationDataModule:
    more = {"env_id": "Counting-v0", "seed": 0, "eval_episodes": 0, **more}
    data = DemonstrationDataModule(demonstrations=counted() if demonstrations is None else demonstrations, **more)
    data.trainer = trainer()
    return data


def ready(*args: Any, **more: Any) -> DemonstrationDataModule:
    data = module(*args, **more)
    data.setup("fit")
    return data


def episodes(transitions: Transitions) -> list[int]:
    return sorted(set(transitions.observation[:, 1].int().tolist()))


# --- which trajectories -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fraction", [0.0, 0.1, 0.25, 0.5, 0.95])
@pytest.mark.parametrize("seed", [0, 1])
def test_split_is_disjoint_and_complete(fraction, seed):
    data = ready(val_fraction=fraction, seed=seed)
    assert not set(episodes(data.train)) & set(episodes(data.held_out))
    assert episodes(data.train) + episodes(data.held_out) != []
    assert sorted(episodes(data.train) + episodes(data.held_out)) == list(range(10))
    assert len(data.train) + len(data.held_out) == sum(LENGTHS)
    assert len(episodes(data.held_out)) == min(round(10 * fraction), 9)
    for part in (data.train, data.held_out):  # whole, in time order
        assert part.episode_lengths().tolist() == [LENGTHS[i] for i in episodes(part)]


def test_split_depends_on_seed():
    splits = [episodes(ready(val_fraction=0.3, seed=seed).held_out) for seed in (0, 0, 1, 2, 3)]
    assert splits[0] == splits[1]
    assert len({tuple(split) for split in splits}) > 1


def test_seed_defaults_to_seed_everything(monkeypatch):
    monkeypatch.setenv("PL_GLOBAL_SEED", "17")
    assert module(seed=None).seed == 17
    assert module(seed=4).seed == 4


@pytest.mark.parametrize("count", [1, 4, 10])
def test_num_trajectories_limits_training_data(count):
    data = ready(num_trajectories=count, val_fraction=0.0)
    assert len(episodes(data.train)) == count
    chosen = {tuple(episodes(ready(num_trajectories=count, val_fraction=0, seed=s).train)) for s in range(8)}
    assert len(chosen) == (1 if count == 10 else len(chosen)) >= (1 if count == 10 else 4)


def test_too_many_trajectories_are_refused():
    with pytest.raises(DemonstrationError, match="num_trajectories is 11, but there are only 10 trajectories"):
        ready(num_trajectories=11)


@pytest.mark.parametrize("every", [2, 4, 20])
def test_subsample_draws_an_offset_per_trajectory(every):
    data = ready(subsample=every, val_fraction=0.0)
    offsets = set()
    for episode, length in enumerate(LENGTHS):
        kept = data.train.observation[data.train.observation[:, 1] == episode, 2].int().tolist()
        assert kept == list(range(kept[0], length, every))
        assert kept[0] < min(every, length)
        offsets.add(kept[0])
    assert len(offsets) > 1
    assert data.train.done.sum() == len(LENGTHS)
    again, other = (ready(subsample=every, val_fraction=0.0, seed=seed) for seed in (0, 1))
    assert torch.equal(again.train.observation, data.train.observation)
    assert not (
        other.train.observation.shape == data.train.observation.shape
        and torch.equal(other.train.observation, data.train.observation)
    )


def test_expert_return_covers_the_whole_source():
    for more in ({}, {"num_trajectories": 2}, {"subsample": 5}, {"val_fraction": 0.5}):
        assert ready(**more).expert_return == 4.5  # the mean of 0 … 9
    state = ready().state_dict()
    fresh = module()
    fresh.load_state_dict(state)
    assert fresh.expert_return == 4.5


def test_setup_for_test_needs_no_demonstrations():
    data = module("/nowhere/at/all.npz")
    for stage in ("test", "predict"):
        data.setup(stage)
    with pytest.raises(DemonstrationError, match=r"/nowhere/at/all\.npz"):
        data.setup("fit")


def test_transitions_in_memory_are_checked_and_not_changed():
    transitions = counted(weights=True)
    before = transitions.clone()
    ready(transitions, subsample=2, return_temperature=1.0)
    assert all(torch.equal(getattr(transitions, k), v) for k, v in before.items() if v is not None)
    transitions.observation[5, 2] = float("nan")
    with pytest.raises(DemonstrationError, match=r"data\.demonstrations.*row 5.*not finite"):
        ready(transitions)
    with pytest.raises(DemonstrationError, match=r"shape \[55, 3\]"):
        ready(counted().replace(observation=torch.zeros(55, 3)))


# --- weights ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_weights_from_returns(temperature):
    data = ready(return_temperature=temperature, val_fraction=0.0)
    returns = np.arange(10.0)  # each row counts as exp((R - mean R) / (τ std R)), and the rows' mean is 1
    by_return = np.exp((returns - returns.mean()) / (temperature * returns.std(ddof=1)))
    expected = by_return[data.train.observation[:, 1].int().numpy()]
    np.testing.assert_allclose(data.train.weight.numpy(), expected / expected.mean(), rtol=1e-5)


def test_two_trajectories_can_be_weighted():
    weight = ready(counted((1, 2)), val_fraction=0.0, return_temperature=1.0).train.weight
    assert weight[1] == weight[2] > weight[0]


def test_column_weights_have_mean_1_and_returns_override_them():
    transitions = counted(weights=True)
    column = ready(transitions, val_fraction=0.0).train
    assert float(column.weight.mean()) == pytest.approx(1.0, abs=1e-6)
    np.testing.assert_allclose(column.weight / column.weight[0], 1 + column.observation[:, 1])
    given = ready(transitions, val_fraction=0.0, return_temperature=1.0).train.weight
    assert torch.equal(given, ready(val_fraction=0.0, return_temperature=1.0).train.weight)
    assert ready().train.weight is None


def test_low_temperature_keeps_only_the_best_trajectory():
    data = ready(return_temperature=1e-4, val_fraction=0.0)
    assert data.train.weight.isfinite().all()
    assert episodes(data.train[data.train.weight > 0]) == [9]


def test_return_temperature_refuses_equal_returns():
    transitions = counted()
    for same in (transitions.replace(reward=torch.zeros(55)), transitions.select_episodes(torch.tensor([4]))):
        with pytest.raises(DemonstrationError, match=r"return_temperature.*all the same"):
            ready(same, return_temperature=1.0)


# --- rolled out by an expert ------------------------------------------------------------------------------------------


@pytest.fixture
def collected(monkeypatch, tmp_path):
    """Count the expert's rollouts, with an empty cache."""
    calls = []

    def collect(envs, expert, count, *args):
        calls.append(count)
        return original(envs, expert, count, *args)

    original = expert_module.collect
    monkeypatch.setattr(expert_module, "collect", collect)
    monkeypatch.setenv("LIT_IMITATION_CACHE", str(tmp_path / "cache"))
    return calls


def rolled_out(**more: Any) -> DemonstrationDataModule:
    data = module("", expert="counting:act", num_trajectories=3, num_envs=2, **more)
    data.prepare_data()
    data.setup("fit")
    return data


@pytest.mark.integration
def test_expert_trajectories_applies_to_experts_only(collected, tmp_path):
    for more, count in (({"expert_trajectories": 4}, 4), ({"expert_trajectories": 4, "num_trajectories": 2}, 2)):
        data = module("", expert="counting:act", num_envs=2, **more)
        data.prepare_data()
        data.setup("fit")
        assert collected.pop() == count
        shown = data.load()
        assert len(shown.episode_returns) == count
    write_demonstrations(tmp_path / "mine.npz", shown)
    mine = module(str(tmp_path / "mine.npz"), expert="counting:act", expert_trajectories=1)
    assert len(mine.load().episode_returns) == 2
    assert not collected


def test_second_run_reads_the_cache(collected):
    first, second = rolled_out(), rolled_out()
    assert collected == [3]
    assert torch.equal(first.train.observation, second.train.observation)
    assert first.expert_return == second.expert_return
    record = counting.expected(2, 3, expert_module.derive_seed(0, "expert"))
    seen = torch.cat([first.train.observation, first.held_out.observation])
    np.testing.assert_array_equal(np.unique(seen, axis=0), np.unique(record["observation"], axis=0))


@pytest.mark.slow
@pytest.mark.integration
@pytest.mark.parametrize(
    "different",
    [
        {"seed": 1},
        {"num_trajectories": 4},
        {"num_envs": 3},
        {"env_kwargs": {"lengths": (4, 5)}},
        {"expert_deterministic": False},
        {"backend": "sync"},
    ],
    ids=lambda different: next(iter(different)),
)
def test_cache_key_covers_arguments(collected, different):
    rolled_out()
    data = module("", **{"expert": "counting:act", "num_trajectories": 3, "num_envs": 2, **different})
    data.prepare_data()
    assert len(collected) == 2


def test_cache_key_ignores_unrelated_arguments(collected):
    rolled_out()
    rolled_out(batch_size=7, val_fraction=0.5, subsample=2, eval_episodes=1, passes_per_epoch=3)
    assert collected == [3]


@pytest.mark.slow
@pytest.mark.integration
def test_changed_expert_file_is_rolled_out_again(collected, tmp_path):
    """The content of the expert's file, or of the checkpoint in a run directory, is part of the cache key."""
    import lit_imitation
    from lit_imitation.policies.checkpoints import describe

    data = module("", env_id="CartPole-v1", expert=f"checkpoint:{tmp_path}", num_trajectories=2)
    policy = lit_imitation.CategoricalPolicy(*data.spaces, hidden_sizes=[])
    file = tmp_path / "checkpoints" / "best.ckpt"
    file.parent.mkdir()
    found = []
    for bias in ([9.0, 0.0], [0.0, 9.0], [9.0, 0.0]):
        torch.nn.init.zeros_(policy.network.layers[0].weight)
        policy.network.layers[0].bias.data = torch.tensor(bias)
        state = {f"policy.{name}": value for name, value in policy.state_dict().items()}
        torch.save({"policy": describe(policy), "state_dict": state}, file)
        for expert in (f"checkpoint:{tmp_path}", f"checkpoint:{file}"):
            data = module("", env_id="CartPole-v1", expert=expert, num_trajectories=2)
            data.prepare_data()
            data.setup("fit")
            found.append(data.train.action.unique().tolist())
    assert found == [[0], [0], [1], [1], [0], [0]]
    assert len(collected) == 4


def test_file_is_read(tmp_path):
    transitions = counted()
    path = tmp_path / "mine.npz"
    write_demonstrations(path, Demonstrations(transitions, transitions.episode_returns(), {}))
    data, memory = ready(str(path)), ready()
    assert torch.equal(data.train.observation, memory.train.observation)
    assert data.expert_return == memory.expert_return


# --- arguments that cannot work ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"demonstrations": ""}, r"no demonstrations: set data\.demonstrations .* or data\.expert"),
        ({"num_trajectories": 0}, r"data\.num_trajectories is 0; it must be at least 1"),
        ({"expert_trajectories": 0}, r"data\.expert_trajectories is 0; it must be at least 1"),
        ({"subsample": 0}, r"data\.subsample is 0; it must be at least 1"),
        ({"batch_size": 0}, r"data\.batch_size is 0; it must be at least 1"),
        ({"passes_per_epoch": 0}, r"data\.passes_per_epoch is 0; it must be at least 1"),
        ({"val_fraction": 1.0}, r"data\.val_fraction is 1\.0; it must lie in \[0, 1\)"),
        ({"val_fraction": -0.1}, r"data\.val_fraction is -0\.1; it must lie in \[0, 1\)"),
        ({"val_fraction": float("nan")}, r"data\.val_fraction is nan; it must be a number"),
        ({"return_temperature": 0.0}, r"data\.return_temperature is 0\.0; it must be positive"),
        ({"return_temperature": float("nan")}, r"data\.return_temperature is nan; it must be a number"),
        ({"num_envs": 0}, r"data\.num_envs is 0; it must be at least 1"),
        ({"eval_episodes": -1}, r"data\.eval_episodes is -1; it must be at least 0"),
        ({"seed": -1}, r"data\.seed is -1; it must be at least 0"),
        ({"test_episodes": 0}, r"data\.test_episodes is 0; it must be at least 1"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_invalid_arguments_are_refused(more, message):
    with pytest.raises(ConfigError, match=message):
        DemonstrationDataModule("Counting-v0", **{"demonstrations": counted(), **more})


@pytest.mark.integration
@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"env_id": "NoSuchThing-v0"}, "NoSuchThing"),
        ({"backend": "quick"}, "backend is 'quick'; choose one of auto"),
        ({"env_id": "Spaces-v0", "backend": "vector"}, "no batched version"),
    ],
)
def test_invalid_environment_is_refused(more, message):
    with pytest.raises(ConfigError, match=message):
        ready(**more)


def test_demonstrations_of_another_environment_are_refused():
    with pytest.raises(DemonstrationError, match="demonstrations of another environment"):
        ready(env_id="CartPole-v1")


# --- on the device ----------------------------------------------------------------------------------------------------


def test_data_and_batches_are_on_the_models_device():
    data = module(weights := counted(weights=True), val_fraction=0.3)
    data.trainer = trainer(device="meta")  # a device without storage
    data.setup("fit")
    assert weights.observation.device.type == "cpu"
    batch = next(iter(data.train_dataloader()))
    for part in (data.train, data.held_out, batch, next(iter(data.val_dataloader()[0]))):
        assert {v.device.type for v in part.values() if v is not None} == {"meta"}


def test_processes_share_held_out_transitions_in_order():
    data = ready(val_fraction=0.5)
    for world_size in (1, 2, 3):
        seen = []
        for rank in range(world_size):
            data.trainer = trainer(rank, world_size)
            (loader,) = data.val_dataloader()
            seen += [chunk.observation for chunk in loader]
        seen = torch.cat(seen)
        assert len(seen) == len(data.held_out)
        assert torch.equal(seen.unique(dim=0), data.held_out.observation.unique(dim=0))
    data.trainer = trainer(0, len(data.held_out) + 1)  # some process would have none, and the mean would wait for it
    assert data.val_dataloader() == []
    chunks = HeldOut(data.held_out, chunk=4)
    assert [len(chunk) for chunk in chunks][:-1] == [4] * (len(chunks) - 1)
    assert torch.equal(torch.cat([chunk.observation for chunk in chunks]), data.held_out.observation)


def test_no_validation_loaders_without_held_out_and_episodes():
    assert ready(val_fraction=0.0).val_dataloader() == []
    assert len(ready(val_fraction=0.0, eval_episodes=2).val_dataloader()) == 1
    assert len(ready(val_fraction=0.1, eval_episodes=2).val_dataloader()) == 2


# --- evaluation over several processes ------------------------------------------------------------------------------


@settings(deadline=None)
@given(num_envs=st.integers(1, 40), count=st.integers(1, 200), world_size=st.integers(1, 9), seed=st.integers(0, 99))
def test_process_shares_add_up_and_keep_seeds(num_envs, count, world_size, seed):
    data = EnvironmentDataModule("Counting-v0", num_envs=num_envs, backend="sync", seed=0)
    shares = []
    for rank in range(world_size):
        data.trainer = trainer(rank, world_size)
        if min(num_envs, count) < world_size:
            with pytest.raises(ConfigError, match="cannot be divided"):
                PolicyEpisodes(data, count, seed, record=False)
            return
        shares.append(PolicyEpisodes(data, count, seed, record=False))
    assert sum(len(share) for share in shares) == count
    total = min(num_envs, count)
    assert sum(share.num_envs for share in shares) == total
    # Environment i has seed + i and the same number of episodes on any number of processes.
    seeds = [share.seed + i for share in shares for i in range(share.num_envs)]
    assert seeds == [seed + i for i in range(total)]
    played = [n for share in shares for n in counting.share(share.num_envs, len(share))]
    assert played == counting.share(total, count)


@pytest.mark.parametrize("world_size", [2, 3, 5])
def test_number_of_processes_does_not_change_episodes(world_size):
    def play(rank: int, world_size: int) -> list[tuple[int, float]]:
        data = EnvironmentDataModule("Counting-v0", num_envs=5, backend="sync", seed=3)
        data.trainer = trainer(rank, world_size)
        data.trainer.lightning_module = SimpleNamespace(actor=lambda: counting.act)
        played = [(episode.length, episode.episode_return) for episode in data.rollouts("test", 13)]
        data.teardown("test")
        return played

    alone = sorted(play(0, 1))
    assert len(alone) == 13
    assert sorted(itertools.chain(*(play(rank, world_size) for rank in range(world_size)))) == alone


def test_predict_returns_transitions_of_whole_episodes():
    data = EnvironmentDataModule("Counting-v0", num_envs=3, test_episodes=7, backend="sync", seed=3)
    data.trainer = trainer()
    data.trainer.lightning_module = SimpleNamespace(actor=lambda: counting.act)
    (loader,) = data.predict_dataloader()
    (batch,) = list(loader)
    record = counting.expected(3, 7, expert_module.derive_seed(3, "predict"))
    np.testing.assert_array_equal(batch.observation.numpy(), record["observation"])
    np.testing.assert_array_equal(batch.terminated.numpy(), record["terminated"])
    data.teardown("predict")


def test_validation_test_and_prediction_episodes_differ():
    data = EnvironmentDataModule("Counting-v0", num_envs=3, seed=3)
    data.trainer = trainer()
    loaders = [data.val_dataloader()[0], data.test_dataloader()[0], data.predict_dataloader()[0].episodes]
    assert len({loader.seed for loader in loaders}) == 3


# --- without an environment -------------------------------------------------------------------------------------------


def alone(demonstrations: Any = None, **more: Any) -> DemonstrationDataModule:
    """A DataModule without an environment, whose `make` fails."""
    more = {"seed": 0, **more}
    data = DemonstrationDataModule(demonstrations=counted() if demonstrations is None else demonstrations, **more)
    data.trainer = trainer()
    return data


@pytest.fixture
def no_environment(monkeypatch):
    """Make any environment an error."""
    monkeypatch.setattr("lit_imitation.data.module.make", lambda *args, **more: pytest.fail("built an environment"))


@pytest.mark.parametrize("stage", ["fit", "validate", "test"])
def test_file_alone_builds_no_environment(stage, tmp_path, no_environment):
    path = tmp_path / "mine.npz"
    metadata = {"env_id": "CartPole-v1", "expert_return": 500.0}  # which a file cannot choose
    write_demonstrations(path, Demonstrations(counted(), counted().episode_returns(), metadata))
    data = alone(str(path), test_fraction=0.2)
    data.prepare_data()
    data.setup(stage)
    assert data.spaces == (Box(-np.inf, np.inf, (5,)), Discrete(counting.ACTIONS))
    assert data.expert_reference is None
    assert [len(episodes(part)) for part in (data.train, data.held_out, data.tested)] == [7, 1, 2]
    loaders = data.test_dataloader() if stage == "test" else data.val_dataloader()
    part = data.tested if stage == "test" else data.held_out
    assert len(loaders) == 1
    assert torch.equal(torch.cat([chunk.observation for chunk in loaders[0]]), part.observation)


def test_file_alone_trains_on_the_same_rows_as_with_environment(no_environment):
    data = alone(num_trajectories=8, subsample=2, val_fraction=0.25)
    data.setup("fit")
    with_environment = module(num_trajectories=8, subsample=2, val_fraction=0.25)
    with_environment._spaces = data.spaces
    with_environment.setup("fit")
    for part in ("train", "held_out"):
        assert torch.equal(getattr(data, part).observation, getattr(with_environment, part).observation)


@pytest.mark.parametrize(
    ("count", "fractions", "sizes"),
    [
        (10, (0.1, 0.1), (8, 1, 1)),
        (10, (0.3, 0.2), (5, 3, 2)),
        (10, (0.0, 0.3), (7, 0, 3)),
        (3, (0.1, 0.1), (1, 1, 1)),
        (2, (0.1, 0.1), (1, 1, 0)),
        (1, (0.1, 0.1), (1, 0, 0)),
        (10, (0.0, 1.0), (0, 0, 10)),
    ],
)
def test_test_trajectories_are_set_apart(count, fractions, sizes, no_environment):
    data = alone(num_trajectories=count, val_fraction=fractions[0], test_fraction=fractions[1])
    data.choose()
    parts = [episodes(part) for part in (data.train, data.held_out, data.tested)]
    assert tuple(map(len, parts)) == sizes
    assert len(set(itertools.chain(*parts))) == count


def test_test_measures_validation_trajectories_if_none_are_set_apart(no_environment):
    data = alone(val_fraction=0.3)
    data.setup("test")
    (loader,) = data.test_dataloader()
    assert torch.equal(torch.cat([chunk.observation for chunk in loader]), data.held_out.observation)
    assert "on which the checkpoint was chosen" in data.name_held_out("test")
    other = alone(val_fraction=0.3, test_fraction=0.1)
    other.setup("test")
    assert other.name_held_out("test") == "held-out test trajectories"
    assert other.name_held_out("validate") == data.name_held_out("fit") == "held-out validation trajectories"


def test_test_trajectories_come_before_episodes_of_an_environment():
    data = module(test_fraction=0.2, val_fraction=0.1)
    data.setup("test")
    held_out, _ = data.test_dataloader()
    assert sum(len(chunk) for chunk in held_out) == len(data.tested) > 0


def test_predict_gives_the_policys_actions_at_all_recorded_rows(no_environment):
    seen = []
    for rank in range(3):
        data = alone(counted(weights=True), num_trajectories=2)
        data.trainer = trainer(rank, 3)
        policy = SimpleNamespace(act=lambda observation: observation[:, 1].long() + 100, device=torch.device("cpu"))
        data.trainer.lightning_module = SimpleNamespace(policy=policy)
        data.setup("predict")
        (loader,) = data.predict_dataloader()
        seen += list(loader)
    seen = Transitions.concatenate(seen)
    assert torch.equal(seen.observation, counted().observation)
    assert torch.equal(seen.action, counted().observation[:, 1].long() + 100)
    assert torch.equal(seen.terminated, counted().terminated)
    assert not seen.reward.any()
    assert seen.next_observation is None


def test_given_spaces_are_kept_and_checked(no_environment):
    data = alone(action_space={"type": "Discrete", "n": 99}, observation_space={"type": "Box", "low": [0] * 5})
    assert data.spaces == (Box(0, np.inf, (5,)), Discrete(99))
    assert len(data.load().transitions) == sum(LENGTHS)
    with pytest.raises(
        DemonstrationError, match=r"data\.demonstrations: 'action', row \d+ is 2, outside Discrete\(2\)"
    ):
        alone(action_space={"type": "Discrete", "n": 2}).setup("fit")
    with pytest.raises(DemonstrationError, match=r"shape \[55, 5\], but Box.* needs \[55, 4\]"):
        _ = alone(observation_space={"type": "Box", "shape": [4]}).spaces


def test_given_space_must_be_the_environments():
    module(action_space={"type": "Discrete", "n": counting.ACTIONS}).setup("fit")
    with pytest.raises(ConfigError, match=r"data\.action_space is Discrete\(99\), but Counting-v0 has"):
        module(action_space={"type": "Discrete", "n": 99}).setup("fit")


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"demonstrations": ""}, r"no demonstrations: set data\.demonstrations to a file .*, or set data\.env_id"),
        ({"demonstrations": "", "expert": "scripted"}, r"data\.expert demonstrates in an .*data\.env_id is missing"),
        ({"expert": "scripted"}, r"data\.expert is 'scripted', but without data\.env_id"),
        ({"eval_episodes": 5}, r"data\.eval_episodes is 5, but without data\.env_id there is no environment"),
        ({"test_episodes": 5}, r"data\.test_episodes is 5"),
        ({"num_envs": 1}, r"data\.num_envs is 1"),
        ({"backend": "sync"}, r"data\.backend is 'sync'"),
        ({"env_kwargs": {"a": 1}}, r"data\.env_kwargs is "),
        ({"expert_return": 0.0}, r"data\.expert_return is 0\.0"),
        ({"expert_deterministic": False}, r"data\.expert_deterministic is False"),
        ({"eval_deterministic": False}, r"data\.eval_deterministic is False"),
        ({"refresh": True}, r"data\.refresh is True"),
        ({"test_fraction": 0.9}, r"data\.test_fraction is 0\.9 and data\.val_fraction 0\.1"),
        ({"test_fraction": -0.1}, r"data\.test_fraction is -0\.1"),
        ({"action_space": {"type": "Bax"}}, r"data\.action_space has type 'Bax'"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_arguments_of_environments_are_refused_without_one(more, message):
    with pytest.raises(ConfigError, match=message):
        alone(**{"demonstrations": counted(), **more})
    assert alone(eval_episodes=0).eval_episodes == 0  # which is what happens


def test_subclass_may_name_its_own_arguments(no_environment):
    class Own(DemonstrationDataModule):
        def __init__(self, recorded: Transitions) -> None:
            super().__init__(demonstrations=recorded, seed=0)

    data = Own(counted())
    data.setup("fit")
    assert len(data.train) + len(data.held_out) == sum(LENGTHS)


@pytest.mark.parametrize("cls", [EnvironmentDataModule, RolloutDataModule, ImitationDataModule])
def test_other_data_modules_need_an_environment(cls):
    more = {"demonstrations": counted()} if cls is ImitationDataModule else {}
    with pytest.raises(ConfigError, match=rf"data\.env_id is empty, but {cls.__name__} plays in an environment"):
        cls("", **more)


@pytest.mark.parametrize("stage", ["validate", "test"])
def test_nothing_held_out_cannot_be_measured(stage, no_environment):
    one = counted().select_episodes(torch.tensor([9]))
    with pytest.raises(ConfigError, match=rf"no trajectory is held out of 1 .*nothing else to {stage} on"):
        alone(one).setup(stage)
    fitted = alone(one)
    fitted.setup("fit")
    fitted.setup("test")  # at the end of a fit, there is just nothing to test
    assert fitted.test_dataloader() == fitted.val_dataloader() == []


def test_nothing_left_for_training_is_refused(no_environment):
    with pytest.raises(ConfigError, match=r"test_fraction 1\.0 leaves no trajectory for training"):
        alone(val_fraction=0.0, test_fraction=1.0).setup("fit")

"""Rollouts against a plain loop, on every backend and autoreset mode."""

from __future__ import annotations

import os
import random
import signal
from functools import partial

import counting
import gymnasium
import numpy as np
import pytest
import torch
from counting import act
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv
from hypothesis import given, settings
from hypothesis import strategies as st

from lit_imitation.envs import make
from lit_imitation.errors import ConfigError, TrainingError
from lit_imitation.policies import GaussianPolicy
from lit_imitation.rollout import Episodes, Steps, collect, rounds, stream
from lit_imitation.rollout.episodes import success as success_of

MAKERS = {
    "sync": lambda n, **kw: make("Counting-v0", n, 0, "sync", **kw),
    "vector": lambda n, **kw: make("Counting-v0", n, 0, "vector", **kw),
    "async": lambda n, **kw: make("Counting-v0", n, 0, "async", **kw),
    "sync-next-step": lambda n, **kw: SyncVectorEnv(
        [lambda: counting.CountingEnv(**kw)] * n, autoreset_mode=AutoresetMode.NEXT_STEP
    ),
    "async-next-step": lambda n, **kw: AsyncVectorEnv(
        [lambda: counting.CountingEnv(**kw)] * n, autoreset_mode=AutoresetMode.NEXT_STEP
    ),
    "sync-same-step": lambda n, **kw: SyncVectorEnv(
        [lambda: counting.CountingEnv(**kw)] * n, autoreset_mode=AutoresetMode.SAME_STEP
    ),
}
PROCESSES = [name for name in MAKERS if name.startswith("async")]
HERE = [name for name in MAKERS if name not in PROCESSES]


@pytest.fixture(scope="module")
def environments():
    """Vector environments by backend and number, made once and used for many rollouts."""
    made = {}

    def get(kind, num_envs):
        if (kind, num_envs) not in made:
            made[kind, num_envs] = MAKERS[kind](num_envs)
        return made[kind, num_envs]

    yield get
    for envs in made.values():
        envs.close()


def assert_exact(envs, num_envs, episodes, seed):
    finished = []
    record = collect(envs, counting.act, episodes, seed, finished.append)
    wanted = counting.expected(num_envs, episodes, seed)
    for name, column in wanted.items():
        np.testing.assert_array_equal(getattr(record, name).numpy(), column, err_msg=name)
    ends = np.flatnonzero(wanted["terminated"] | wanted["truncated"])
    lengths = np.diff(ends, prepend=-1)
    returns = [rows.sum() for rows in np.split(wanted["reward"], ends[:-1] + 1)]
    np.testing.assert_array_equal(record.episode_lengths().numpy(), lengths)
    np.testing.assert_array_equal(record.episode_returns().numpy(), returns)
    # The record has the episodes by environment, `finished` in the order of their ends.
    assert [e.env for e in sorted(finished, key=lambda e: e.env)] == np.repeat(
        np.arange(num_envs), counting.share(num_envs, episodes)
    ).tolist()
    by_env = sorted(finished, key=lambda e: e.env)  # stable, so in time order within each
    assert [e.length for e in by_env] == lengths.tolist()
    assert [e.episode_return for e in by_env] == returns
    assert all(np.isnan(e.success) for e in finished)


@pytest.mark.parametrize("kind", HERE)
@settings(max_examples=10, deadline=None)
@given(num_envs=st.integers(1, 6), episodes=st.integers(1, 25), seed=st.integers(0, 2**31 - 10))
def test_transitions_match_plain_loop(environments, kind, num_envs, episodes, seed):
    assert_exact(environments(kind, num_envs), num_envs, episodes, seed)


@pytest.mark.parametrize("kind", PROCESSES)
@settings(max_examples=15, deadline=None)
@given(num_envs=st.sampled_from([1, 3]), episodes=st.integers(1, 12), seed=st.integers(0, 2**31 - 10))
def test_transitions_match_plain_loop_in_processes(environments, kind, num_envs, episodes, seed):
    assert_exact(environments(kind, num_envs), num_envs, episodes, seed)


@pytest.mark.parametrize("num_envs", [1, 3])
@pytest.mark.parametrize("backend", ["sync", "async", "vector"])
def test_rewards_and_flags_of_shape_n_1_are_flattened(backend, num_envs):
    envs = make("Columns-v0", num_envs, 0, backend)
    assert_exact(envs, num_envs, 7, seed=3)
    envs.close()


@pytest.mark.parametrize("kind", HERE)
def test_terminated_and_truncated_stay_separate(environments, kind):
    """The record of the property test has many episodes of all three endings."""
    record = collect(environments(kind, 4), counting.act, 200, 0)
    ends = torch.stack([record.terminated, record.truncated], -1)[record.done].long() @ torch.tensor([1, 2])
    assert len(ends) == 200
    assert (ends.bincount(minlength=4)[1:] > 40).all()


@pytest.mark.parametrize("kind", HERE)
def test_only_reset_steps_are_invalid(environments, kind):
    steps = stream(environments(kind, 3), counting.act, seed=5)
    next_step = environments(kind, 3).metadata["autoreset_mode"] == AutoresetMode.NEXT_STEP
    previous = np.zeros(3, bool)
    seen = 0
    for _ in range(100):
        step = next(steps)
        np.testing.assert_array_equal(step.valid, ~previous if next_step else np.ones(3, bool))
        np.testing.assert_array_equal(step.done, step.terminated | step.truncated)
        final = step.next_observation[:, 4] == 1
        np.testing.assert_array_equal(final, step.done)
        np.testing.assert_array_equal(step.observation[step.valid, 4], 0)
        previous = step.done
        seen += int(step.done.sum())
    assert seen > 20


def test_disabled_autoreset_is_refused():
    envs = SyncVectorEnv([counting.CountingEnv] * 2, autoreset_mode=AutoresetMode.DISABLED)
    with pytest.raises(ConfigError, match="start the next episode themselves"):
        collect(envs, counting.act, 2, 0)


@pytest.mark.parametrize("kind", HERE)
@pytest.mark.parametrize(("num_envs", "count"), [(1, 40), (3, 41), (3, 2)])
def test_steps_are_the_first_of_each_environment(environments, kind, num_envs, count):
    run = Steps(environments(kind, num_envs), counting.act, count, seed=3, record=True)
    finished = list(run)
    transitions = run.transitions()
    assert len(run) == len(transitions) == count
    start = ends = 0
    shares = [share for share in counting.share(num_envs, count) if share]  # with more environments than steps
    for env, share in enumerate(shares):
        wanted = {name: column[:share] for name, column in counting.expected(1, share, 3 + env).items()}
        ends += int((wanted["terminated"] | wanted["truncated"]).sum())
        wanted["truncated"][-1:] |= ~wanted["terminated"][-1:]
        for name, column in wanted.items():
            np.testing.assert_array_equal(getattr(transitions, name)[start : start + share], column, err_msg=name)
        start += share
    assert len(finished) == ends


def test_flat_has_the_order_of_transitions(environments):
    noted = []

    def actor(observation):
        noted.append(observation.copy())
        return counting.act(observation)

    run = Episodes(environments("vector", 3), actor, 7, 1, record=True)
    list(run)
    np.testing.assert_array_equal(run.flat(noted), run.transitions().observation)


@pytest.mark.parametrize("kind", HERE)
def test_live_marks_the_steps_that_count(environments, kind):
    told = []

    def actor(observation):
        told.append(run.live.copy())
        return counting.act(observation)

    run = Episodes(environments(kind, 3), actor, 7, 1, record=True)
    list(run)
    assert np.concatenate(told).sum() == len(run.transitions())
    assert not told[-1].all()
    # A live environment does not show the end of an episode (the flag in the observation's last place).
    assert run.flat([np.ones(3)] * len(told)).all()
    assert (run.transitions().observation[:, 4] == 0).all()


@pytest.mark.parametrize("count", [0, -3])
def test_fewer_than_one_episode_is_refused(environments, count):
    with pytest.raises(ConfigError, match=f"{count} episodes"):
        Episodes(environments("sync", 1), counting.act, count, 0)


def test_episodes_has_a_length_and_can_run_again(environments):
    run = Episodes(environments("vector", 3), counting.act, 7, 1, record=True)
    assert len(run) == 7
    first = list(run)
    assert len(first) == 7
    assert list(map(str, run)) == list(map(str, first))  # NaN ≠ NaN
    assert len(run.transitions()) == sum(episode.length for episode in first)


# Short episodes finish first, so counting those that finish first counts too many of them.

LENGTHS, MEAN, STD = (2, 30), 16.0, 14.0


def first_to_finish(envs, count, seed):
    """Lengths of the first `count` episodes that finish anywhere: the biased scheme."""
    lengths, running = [], np.zeros(envs.num_envs, int)
    for step in stream(envs, counting.act, seed):
        running += step.valid
        for env in np.flatnonzero(step.done):
            lengths.append(running[env])
            running[env] = 0
            if len(lengths) == count:
                return lengths


def fixed_share(envs, count, seed):
    return [episode.length for episode in Episodes(envs, counting.act, count, seed)]


@pytest.mark.slow
@pytest.mark.integration
@pytest.mark.parametrize("kind", ["sync", "vector"])
def test_short_episodes_are_not_favored(kind):
    envs = MAKERS[kind](8, lengths=LENGTHS)

    def z(scheme):
        lengths = np.concatenate([scheme(envs, 16, 1000 * repeat) for repeat in range(50)])
        assert len(lengths) == 800
        assert set(lengths) == set(LENGTHS)
        return (lengths.mean() - MEAN) / (STD / np.sqrt(len(lengths)))

    assert abs(z(fixed_share)) < 3.5
    assert z(first_to_finish) < -7  # the check above can fail


# Reproducibility


def dice(observation):
    """Actor that draws from each of the three global streams."""
    draws = random.randrange(100) + np.random.randint(100) + int(torch.randint(100, ()))
    return (observation[:, 0].astype(np.int64) + draws + np.random.randint(100, size=len(observation))) % 2


def push(observation):
    """The same actor for Pendulum."""
    return (dice(observation)[:, None] * 2 - 1 + np.random.normal(size=(len(observation), 1)) * 0.1).astype(np.float32)


SEEDED = {
    "counting-sync": ("Counting-v0", "sync", dice),
    "counting-async": ("Counting-v0", "async", dice),
    "counting-vector": ("Counting-v0", "vector", dice),
    "cartpole-vector": ("CartPole-v1", "vector", dice),
    "cartpole-sync": ("CartPole-v1", "sync", dice),
    "cartpole-envpool": ("CartPole-v1", "envpool", dice),
    "pendulum-sync": ("Pendulum-v1", "sync", push),
    "pendulum-envpool": ("Pendulum-v1", "envpool", push),
}


def same(a, b):
    return a.batch_size == b.batch_size and all(
        torch.equal(getattr(a, name), getattr(b, name)) for name in counting.expected(1, 1, 0)
    )


@pytest.mark.slow
@pytest.mark.integration
@pytest.mark.parametrize("case", SEEDED)
def test_same_seed_gives_same_rollouts(case):
    env_id, backend, actor = SEEDED[case]
    if backend == "envpool":
        pytest.importorskip("envpool")
    envs = make(env_id, 3, 11, backend)
    torch.manual_seed(0)
    first = collect(envs, actor, 5, seed=7)

    for draw in (random.random, np.random.rand, lambda: torch.rand(5)):
        draw()
    torch.manual_seed(123)
    envs.action_space.sample()
    other = collect(envs, actor, 4, seed=8)
    next(iter(Episodes(envs, actor, 6, seed=9)))  # stopped in the middle, with some environments at an episode's end
    again = collect(envs, actor, 5, seed=7)
    envs.close()
    fresh_envs = make(env_id, 3, 99, backend)
    fresh = collect(fresh_envs, actor, 5, seed=7)
    fresh_envs.close()

    assert same(first, again)
    assert same(first, fresh)
    assert not same(first, other)


def test_parallel_environments_differ(environments):
    for kind in HERE:
        record = collect(environments(kind, 6), counting.act, 6, 0)
        assert len(record.observation[:, 0].unique()) == 6, kind


def streams():
    return random.random(), np.random.random(), torch.rand(()).item()


def reseed():
    random.seed(1)
    np.random.seed(2)
    torch.manual_seed(3)


def test_rollout_leaves_callers_random_streams_alone(environments):
    reseed()
    undisturbed = [streams() for _ in range(8)]

    reseed()
    run = Episodes(environments("sync", 2), dice, 6, seed=0)
    seen = [streams() for _ in run] + [streams() for _ in range(2)]  # between episodes, and after
    assert seen == undisturbed


def test_callers_draws_do_not_change_the_rollout(environments):
    envs = environments("sync", 2)
    quiet = Episodes(envs, dice, 6, seed=0, record=True)
    list(quiet)
    noisy = Episodes(envs, dice, 6, seed=0, record=True)
    for _ in noisy:
        reseed()
        streams()
    assert same(quiet.transitions(), noisy.transitions())


def test_failing_actor_leaves_callers_random_streams_alone(environments):
    def broken(observation):
        dice(observation)
        raise RuntimeError("broken")

    reseed()
    undisturbed = streams()
    reseed()
    with pytest.raises(RuntimeError, match="broken"):
        list(Episodes(environments("sync", 2), broken, 1, seed=0))
    assert streams() == undisturbed


# Success, reported through info


@pytest.mark.grid
@pytest.mark.integration
@pytest.mark.parametrize("key", ["success", "is_success"])
@pytest.mark.parametrize("kind", MAKERS)
def test_success_is_the_value_at_the_episode_end(kind, key):
    told = [key] if kind == "vector" else [key, f"{key}*"]
    for success in told:
        envs = MAKERS[kind](3, success=success)
        run = Episodes(envs, counting.act, 31, seed=2, record=True)
        episodes = sorted(run, key=lambda episode: episode.env)
        envs.close()
        tags = run.transitions().observation[:, 0][run.transitions().done].long().tolist()
        wanted = [counting.outcome(tag) for tag in tags]
        assert {True, False, None} == set(wanted)
        got = [None if np.isnan(episode.success) else bool(episode.success) for episode in episodes]
        assert got == wanted, success


# EnvPool has no environment of ours, so these tests check properties of its own


@pytest.fixture(scope="module")
def envpool():
    return pytest.importorskip("envpool")


@pytest.mark.slow
@pytest.mark.integration
@settings(max_examples=12, deadline=None)
@given(num_envs=st.integers(1, 5), episodes=st.integers(1, 14), seed=st.integers(0, 2**31 - 10))
def test_envpool_cartpole(envpool, num_envs, episodes, seed):
    envs = make("CartPole-v1", num_envs, 0, "envpool")
    finished = []

    def swing(observation):  # balances for a while, in some episodes for a long time
        return (observation[:, 2] + 0.3 * observation[:, 3] + 0.1 * observation[:, 1] > 0).astype(np.int64)

    record = collect(envs, swing, episodes, seed, finished.append)
    envs.close()
    assert [e.env for e in sorted(finished, key=lambda e: e.env)] == np.repeat(
        np.arange(num_envs), counting.share(num_envs, episodes)
    ).tolist()
    lengths = record.episode_lengths()
    assert len(lengths) == episodes
    assert (record.reward == 1).all()  # a reset step has reward 0
    assert record.episode_returns().tolist() == lengths.tolist()
    assert lengths.max() <= 500
    assert not (record.truncated & (record.done.long() == 0)).any()
    going = ~record.done[:-1]
    assert torch.equal(record.next_observation[:-1][going], record.observation[1:][going])
    starts = torch.cat([torch.tensor([True]), record.done[:-1]])
    assert (record.observation[starts].abs() <= 0.05).all()
    out = (record.next_observation[:, 0].abs() > 2.4) | (record.next_observation[:, 2].abs() > 12 * 2 * np.pi / 360)
    assert torch.equal(out, record.terminated)
    assert torch.equal(record.truncated[record.done], lengths == 500)
    assert not torch.equal(record.observation[starts][0], record.observation[starts][-1]) or episodes == 1


@pytest.mark.integration
def test_envpool_cartpole_is_cut_at_500_steps(envpool):
    envs = make("CartPole-v1", 3, 0, "envpool")
    balance = np.array([0.1, 0.3, 1.0, 0.5], dtype=np.float32)
    record = collect(envs, lambda observation: (observation @ balance > 0).astype(np.int64), 7, 0)
    envs.close()
    lengths = record.episode_lengths()
    assert (lengths == 500).any()
    assert torch.equal(record.truncated[record.done], lengths == 500)


@pytest.mark.integration
@settings(max_examples=5, deadline=None)
@given(num_envs=st.integers(1, 4), episodes=st.integers(1, 6), seed=st.integers(0, 2**31 - 10))
def test_envpool_pendulum(envpool, num_envs, episodes, seed):
    envs = make("Pendulum-v1", num_envs, 0, "envpool")
    record = collect(envs, push, episodes, seed)
    envs.close()
    assert not record.terminated.any()
    assert record.episode_lengths().tolist() == [200] * episodes
    assert len(record) == 200 * episodes
    going = ~record.done[:-1]
    assert torch.equal(record.next_observation[:-1][going], record.observation[1:][going])
    # Known dynamics: each transition follows from its own observation and action, the last of an episode too.
    cos, sin, speed = record.observation.double().T
    torque = record.action[:, 0].double().clamp(-2, 2)
    theta = torch.atan2(sin, cos)
    faster = (speed + 0.05 * (15.0 * sin + 3.0 * torque)).clamp(-8, 8)
    assert torch.allclose(record.next_observation[:, 2].double(), faster, atol=1e-5)
    # EnvPool bounds the speed after it has moved the angle, Gymnasium before.
    angle = theta + 0.05 * (speed + 0.05 * (15.0 * sin + 3.0 * torque))
    assert torch.allclose(record.next_observation[:, 0].double(), angle.cos(), atol=1e-5)
    reward = -(theta**2 + 0.1 * speed**2 + 0.001 * torque**2)
    assert torch.allclose(record.reward.double(), reward, atol=1e-4)


class Faulty(gymnasium.Env):
    """Fails at its seventh step in the way that `fault` names."""

    observation_space = gymnasium.spaces.Box(-1, 1, (2,), np.float32)
    action_space = gymnasium.spaces.Discrete(2)

    def __init__(self, fault):
        self.fault, self.t = fault, 0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return np.zeros(2, np.float32), {}

    def step(self, action):
        self.t += 1
        bad = self.t == 7
        if bad and self.fault == "raises":
            raise ValueError("the wheel came off")
        observation = np.full(2, np.nan if bad and self.fault == "observation" else 0.0, np.float32)
        return observation, float("inf") if bad and self.fault == "reward" else 1.0, False, False, {}


def still(num_envs):
    """An explorer that always takes action 0, and the list of its draws."""
    drawn = []

    def explorer(observation):
        drawn.append(torch.zeros(num_envs, dtype=torch.int64))
        return np.zeros(num_envs, np.int64)

    return explorer, drawn


FAULTS = {
    "raises": r"environment 1 failed at step 6 since the last reset: ValueError: the wheel came off",
    "reward": r"environment 1 gave a reward that is not finite at step 6 .*inf",
    "observation": r"environment 1 gave a next_observation that is not finite at step 6 .*nan",
}


@pytest.mark.parametrize("cls", [SyncVectorEnv, AsyncVectorEnv])
@pytest.mark.parametrize("fault", FAULTS)
def test_round_names_failed_environment_and_step(fault, cls):
    envs = cls([partial(Faulty, ""), partial(Faulty, fault)], autoreset_mode=AutoresetMode.SAME_STEP)
    with pytest.raises(TrainingError, match=FAULTS[fault]):
        list(rounds(envs, *still(2), 4, 3, seed=0))
    envs.close(terminate=True) if cls is AsyncVectorEnv else envs.close()


@pytest.mark.integration
def test_round_names_environment_of_dead_process():
    envs = AsyncVectorEnv([partial(Faulty, "")] * 3, autoreset_mode=AutoresetMode.SAME_STEP)
    running = rounds(envs, *still(3), 4, 3, seed=0)
    next(running)
    os.kill(envs.processes[2].pid, signal.SIGKILL)
    envs.processes[2].join()
    with pytest.raises(TrainingError, match=r"environment 2, whose process ended with exit code -9, failed at step 4"):
        next(running)
    envs.close(terminate=True)


def test_nan_observation_is_reported_before_the_explorer_acts():
    def explorer(observation):
        drawn.append(torch.zeros(2, dtype=torch.int64))
        if np.isnan(observation).any() or len(drawn) == at:
            raise RuntimeError("lost")
        return np.zeros(2, np.int64)

    envs = SyncVectorEnv([lambda: Faulty(""), lambda: Faulty("observation")], autoreset_mode=AutoresetMode.SAME_STEP)
    drawn, at = [], 0
    with pytest.raises(TrainingError, match=r"environment 1 gave a next_observation that is not finite at step 6"):
        list(rounds(envs, explorer, drawn, 12, 1, seed=0))
    drawn, at = [], 3
    with pytest.raises(RuntimeError, match="lost"):
        list(rounds(envs, explorer, drawn, 12, 1, seed=0))


@pytest.mark.integration
@pytest.mark.parametrize("kind", HERE)
def test_rounds_match_plain_loop(environments, kind):
    """The valid rows of each environment are the beginning of its known record."""
    drawn = []

    def explorer(observation):
        drawn.append(torch.from_numpy(act(observation)))
        return act(observation)

    played = list(rounds(environments(kind, 3), explorer, drawn, 25, 4, seed=6))
    dead = sum(int((~one.valid).sum()) for one in played)
    assert (dead > 10) == (environments(kind, 3).metadata["autoreset_mode"] == AutoresetMode.NEXT_STEP)
    for env in range(3):
        rows = torch.cat([one.rollout[:, env][one.valid[:, env]] for one in played])
        wanted = counting.expected(1, 100, 6 + env)
        for name, column in wanted.items():
            np.testing.assert_array_equal(getattr(rows, name), column[: len(rows)], err_msg=name)
        ends = np.flatnonzero(wanted["terminated"] | wanted["truncated"])
        ends = ends[ends < len(rows)]
        returns = np.cumsum(wanted["reward"])[ends]
        episodes = [episode for one in played for episode in one.episodes if episode.env == env]
        assert [episode.length for episode in episodes] == np.diff(ends, prepend=-1).tolist()
        assert [episode.episode_return for episode in episodes] == np.diff(returns, prepend=0.0).tolist()
    assert all((one.rollout.reward[~one.valid] == 0).all() for one in played)  # where the environment gave NaN


def test_same_seed_gives_same_rounds(environments):
    def play(seed):
        drawn = []

        def explorer(observation):
            action = dice(observation)
            drawn.append(torch.from_numpy(action))
            torch.manual_seed(torch.randint(1 << 30, ()).item())
            return action

        return torch.cat([one.rollout for one in rounds(environments("sync", 3), explorer, drawn, 9, 3, seed)])

    reseed()
    first, after = play(1), streams()
    random.random()
    assert same(first, play(1))
    assert not same(first, play(2))
    reseed()
    assert after == streams()  # the caller's own streams have not moved


def test_explorer_keeps_draws_and_plays_clipped_actions():
    class Played(gymnasium.Env):
        observation_space = gymnasium.spaces.Box(-9, 9, (2,), np.float32)
        action_space = gymnasium.spaces.Box(np.float32([-1, 0]), np.float32([1, 0.5]))

        def reset(self, *, seed=None, options=None):
            return np.zeros(2, np.float32), {}

        def step(self, action):
            return action, 0.0, False, False, {}

    envs = SyncVectorEnv([Played] * 4, autoreset_mode=AutoresetMode.SAME_STEP)
    policy = GaussianPolicy(envs.single_observation_space, envs.single_action_space, hidden_sizes=[8])
    explorer = policy.explorer()
    (one,) = rounds(envs, explorer, explorer.drawn, 50, 1, seed=0)
    drawn, played = one.rollout.action, one.rollout.next_observation
    low, high = torch.tensor([-1.0, 0.0]), torch.tensor([1.0, 0.5])
    assert ((drawn < low) | (drawn > high)).float().mean() > 0.2
    assert torch.equal(drawn.clamp(low, high), played)


@pytest.mark.integration
@pytest.mark.parametrize("env_id", ["CartPole-v1", "Pendulum-v1"])
def test_envpool_rounds_hold_whole_episodes(envpool, env_id):
    envs = make(env_id, 3, 0, "envpool")
    drawn = []
    actor = dice if env_id == "CartPole-v1" else push

    def explorer(observation):
        drawn.append(torch.from_numpy(actor(observation)))
        return actor(observation)

    first, second = rounds(envs, explorer, drawn, 300, 2, seed=3)
    envs.close()
    rollout, valid = torch.cat([first.rollout, second.rollout]), torch.cat([first.valid, second.valid])
    episodes = first.episodes + second.episodes
    assert len(episodes) == int((rollout.done & valid).sum()) > 5
    for env in range(3):
        rows = rollout[:, env][valid[:, env]]
        ends = rows.done.nonzero().squeeze(-1)
        lengths = torch.diff(ends, prepend=ends.new_tensor([-1])).tolist()
        mine = [episode for episode in episodes if episode.env == env]
        assert [episode.length for episode in mine] == lengths
        sums = [part.double().sum().item() for part in torch.split(rows.reward[: sum(lengths)], lengths)]
        np.testing.assert_allclose([episode.episode_return for episode in mine], sums, rtol=1e-6)
        going = ~rows.done[:-1]
        assert torch.equal(rows.next_observation[:-1][going], rows.observation[1:][going])
        assert not torch.equal(rows.next_observation[:-1][~going], rows.observation[1:][~going])
        assert not valid[1:, env][rollout.done[:-1, env]].any()


def test_round_continues_the_previous_one():
    envs = make("Counting-v0", 3, 0, "sync")
    drawn = []

    def explorer(observation):
        drawn.append(torch.from_numpy(act(observation)))
        return act(observation)

    first, second = rounds(envs, explorer, drawn, 20, 2, seed=3)
    (whole,) = rounds(envs, explorer, drawn, 40, 1, seed=3)
    envs.close()
    for name in ("observation", "action", "reward", "terminated", "truncated", "next_observation"):
        joined = torch.cat([getattr(one.rollout, name) for one in (first, second)])
        assert torch.equal(joined, getattr(whole.rollout, name)), name
    joined = [episode[:3] for episode in first.episodes + second.episodes]
    assert joined == [episode[:3] for episode in whole.episodes]  # the fourth is NaN
    assert sum(episode.length for episode in whole.episodes) <= 40 * 3


@pytest.mark.parametrize(
    ("info", "success"),
    [
        ({"success": np.array([True, False])}, (1.0, 0.0)),
        ({"success": np.array([[True], [False]])}, (1.0, 0.0)),
        ({"success": np.array([0.5, 1.0])}, (0.5, 1.0)),
        ({"success": True}, (1.0, 1.0)),  # of a batched environment that reports one for all
        ({"is_success": [1, 0]}, (1.0, 0.0)),
        ({"success": np.array([True, True]), "_success": np.array([False, True])}, (None, 1.0)),
        ({"success": np.array([None, None])}, (None, None)),
        ({"success": np.array([None, None]), "is_success": np.array([True, False])}, (1.0, 0.0)),
        ({"success": np.array([1]), "final_info": {"success": np.array([False, True])}}, (0.0, 1.0)),
        ({"final_info": {}}, (None, None)),
        ({"final_info": np.array([{"success": True}, None])}, (1.0, None)),
        ({"final_info": [{"is_success": np.array([True])}, {"other": 1}]}, (1.0, None)),
    ],
)
def test_success_is_read_in_every_form(info, success):
    got = [success_of(info, env) for env in range(2)]
    assert [None if np.isnan(value) else value for value in got] == list(success)


@pytest.mark.parametrize("value", ["yes", np.array([True, False]), 7.0, 1.5, -0.5, float("nan"), {"a": True}, 1j])
def test_invalid_success_warns_and_is_nan(value):
    of_all = np.empty(2, dtype=object)
    of_all[:] = [value, True]
    with pytest.warns(UserWarning, match=r"info\['success'\]: success_rate leaves these episodes out"):
        assert np.isnan(success_of({"success": of_all}, 0))
    assert success_of({"success": of_all}, 1) == 1.0


class EndlessEnv(gymnasium.Env):
    """Environment whose episodes never end."""

    observation_space = gymnasium.spaces.Box(-1, 1, (1,), np.float32)
    action_space = gymnasium.spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return np.zeros(1, np.float32), {}

    def step(self, action):
        return np.zeros(1, np.float32), 0.0, False, False, {}


@pytest.mark.integration
def test_endless_episode_is_reported_and_warned_about(monkeypatch, capsys):
    class Enough(Exception):
        pass

    def actor(observation):
        asked.append(1)
        if len(asked) > 10_100:
            raise Enough
        return np.zeros(1, np.int64)

    asked = []
    monkeypatch.setattr("lit_imitation.rollout.episodes.PATIENCE", 0.01)
    envs = SyncVectorEnv([EndlessEnv], autoreset_mode=AutoresetMode.SAME_STEP)
    with pytest.warns(UserWarning, match=r"10,000 steps.*env_kwargs\.max_episode_steps"), pytest.raises(Enough):
        list(Episodes(envs, actor, 3, seed=0, purpose="evaluation"))
    assert "evaluation: 3 episodes in" in capsys.readouterr().err


def test_stop_request_ends_rollout_between_steps(monkeypatch):
    class Asked(Exception):
        pass

    def request(agreed=False):
        if len(steps) == 7:
            raise Asked

    steps = []
    monkeypatch.setattr("lit_imitation.utils.interruption.raise_if_stopped", request)
    envs = SyncVectorEnv([EndlessEnv], autoreset_mode=AutoresetMode.SAME_STEP)
    with pytest.raises(Asked):
        list(Episodes(envs, lambda observation: (steps.append(1), np.zeros(1, np.int64))[1], 1, seed=0))


class LostStartEnv(EndlessEnv):
    """Episodes of one step; only the first starts at a finite observation."""

    starts = 0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.starts += 1
        return np.full(1, 0.0 if self.starts == 1 else np.nan, np.float32), {}

    def step(self, action):
        return np.zeros(1, np.float32), 1.0, True, False, {}


@pytest.mark.parametrize("mode", [AutoresetMode.SAME_STEP, AutoresetMode.NEXT_STEP])
def test_nan_at_a_later_reset_is_named(mode):
    envs = SyncVectorEnv([LostStartEnv], autoreset_mode=mode)
    with pytest.raises(TrainingError, match=r"environment 0 .*observation that is not finite"):
        collect(envs, lambda observation: np.zeros(1, np.int64), 3, seed=0)

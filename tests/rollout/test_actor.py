"""Actors: what is adapted to one, and what a rollout tells it."""

from __future__ import annotations

from itertools import islice

import counting
import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv
from stateful import ActionQueue, Simulator, StepCounter

from lit_imitation.envs import make
from lit_imitation.errors import ConfigError, ExpertError
from lit_imitation.policies import CategoricalPolicy
from lit_imitation.rollout import Episodes, Steps, as_actor, collect, keeps_state, rounds, stream
from lit_imitation.utils.spaces import FlatBox

KINDS = {
    "vector": lambda n: make("Counting-v0", n, 0, "vector"),
    "sync": lambda n: make("Counting-v0", n, 0, "sync"),
    "async": lambda n: make("Counting-v0", n, 0, "async"),
    "sync-next-step": lambda n: SyncVectorEnv([counting.CountingEnv] * n, autoreset_mode=AutoresetMode.NEXT_STEP),
    "async-next-step": lambda n: AsyncVectorEnv([counting.CountingEnv] * n, autoreset_mode=AutoresetMode.NEXT_STEP),
}
OBSERVATION = counting.OBSERVATIONS


@pytest.fixture(scope="module")
def environments():
    made = {}

    def get(kind):
        if kind not in made:
            made[kind] = KINDS[kind](3)
        return made[kind]

    yield get
    for envs in made.values():
        envs.close()


# Resets


@pytest.mark.parametrize("rollout", [Episodes, Steps])
@pytest.mark.parametrize("kind", KINDS)
def test_each_episode_start_resets_the_actor_once(environments, kind, rollout):
    actor = StepCounter(3)
    run = rollout(environments(kind), actor, 60, 5, record=True)
    list(run)
    steps, resets = run.flat(actor.noted).T
    observation = run.transitions().observation.numpy()
    np.testing.assert_array_equal(steps, observation[:, 2])  # time step in the episode
    np.testing.assert_array_equal(resets - 1, observation[:, 1])  # number of the episode
    assert resets.max() > 5


@pytest.mark.parametrize("kind", KINDS)
def test_rounds_reset_the_actor_once_per_episode(environments, kind):
    actor, drawn = StepCounter(3), []

    class Noting:
        reset = actor.reset

        def act(self, observation):
            drawn.append(torch.from_numpy(actor.act(observation)))
            return drawn[-1].numpy()

    played = list(rounds(environments(kind), Noting(), drawn, 20, 3, seed=5))
    noted = torch.from_numpy(np.stack(actor.noted))
    observation = torch.cat([one.rollout.observation for one in played])
    valid = torch.cat([one.valid for one in played])
    assert torch.equal(noted[..., 0][valid], observation[..., 2][valid].long())
    assert torch.equal(noted[..., 1][valid] - 1, observation[..., 1][valid].long())
    assert noted[..., 1].max() > 5


@pytest.mark.integration
@pytest.mark.parametrize("env_id", ["CartPole-v1", "Acrobot-v1"])
def test_envpool_resets_the_actor_once_per_episode(env_id):
    pytest.importorskip("envpool")
    envs = make(env_id, 3, 0, "envpool")
    actor = StepCounter(3)
    run = Episodes(envs, actor, 7, 5, record=True)
    list(run)
    envs.close()
    record = run.transitions()
    lengths = record.episode_lengths().tolist()
    steps, resets = run.flat(actor.noted).T
    np.testing.assert_array_equal(steps, np.concatenate([np.arange(length) for length in lengths]))
    np.testing.assert_array_equal(resets, np.repeat([1, 2, 3, 1, 2, 1, 2], lengths))


@pytest.mark.parametrize("kind", KINDS)
def test_action_queue_is_cleared_at_episode_starts(environments, kind):
    record = collect(environments(kind), ActionQueue(3), 30, 5)
    for name, column in counting.expected(3, 30, 5).items():
        np.testing.assert_array_equal(getattr(record, name).numpy(), column, err_msg=name)


def test_each_rollout_starts_with_a_reset_of_all(environments):
    actor = StepCounter(3)
    for _ in range(2):
        next(stream(environments("sync"), actor, 0))
    np.testing.assert_array_equal(actor.noted[0], [[0, 1]] * 3)
    np.testing.assert_array_equal(actor.noted[1], [[0, 2]] * 3)


def test_actor_that_changes_its_mask_changes_no_step(environments):
    steps = list(islice(stream(environments("sync"), StepCounter(3), 0), 20))
    assert np.sum([step.done for step in steps]) > 3
    for step in steps:
        np.testing.assert_array_equal(step.done, step.terminated | step.truncated)


def test_reset_that_exits_is_an_expert_error(environments):
    class Leaves(StepCounter):
        def reset(self, mask):
            raise SystemExit(0)

    with pytest.raises(ExpertError, match="the actor stopped at step 0"):
        collect(environments("sync"), Leaves(3), 1, 0)


# Adapting


def test_functions_and_callables_become_actors():
    class WithReset:
        seen = None

        def __call__(self, observation):
            return counting.act(observation)

        def reset(self, mask):
            self.seen = mask

    class ActOnly:
        def act(self, observation):
            return counting.act(observation)

    observation = np.float32([[7, 1, 2, 0, 0]])
    for given, stateful in ((counting.act, False), (ActOnly(), False), (WithReset(), True)):
        actor = as_actor(given, OBSERVATION)
        actor.reset(np.ones(1, bool))
        assert actor.act(observation).tolist() == counting.act(observation).tolist()
        assert keeps_state(actor) is stateful
    assert given.seen.tolist() == [True]
    complete = StepCounter(1)
    assert as_actor(complete, OBSERVATION) is complete
    assert keeps_state(complete)


def test_policy_acts_through_its_actor():
    policy = CategoricalPolicy(OBSERVATION, spaces.Discrete(5), hidden_sizes=[4])
    observation = np.zeros((3, 5), np.float32)
    actor = as_actor(policy, OBSERVATION)
    np.testing.assert_array_equal(actor.act(observation), policy(observation))
    assert not keeps_state(actor)
    assert not keeps_state(policy.explorer())


def test_attribute_named_actor_is_not_called():
    class Mine:
        def __init__(self):
            self.actor = torch.nn.Linear(5, 5)

        def act(self, observation):
            return self.actor(torch.from_numpy(observation)).argmax(1).numpy()

    assert as_actor(Mine(), OBSERVATION).act(np.zeros((2, 5), np.float32)).shape == (2,)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (3, "a int cannot act"),
        (None, "a NoneType cannot act; give a function"),
        (StepCounter, "the class StepCounter cannot act"),
        (
            type("Plans", (ActionQueue,), {"needs_env": True})(2),
            r"Plans sets needs_env, but has no method bind\(envs\)",
        ),
    ],
)
def test_object_that_cannot_act_is_refused(given, message):
    with pytest.raises(ConfigError, match=message):
        as_actor(given, OBSERVATION)


# The environment itself


def test_actor_that_needs_the_environment_gets_it_first(environments):
    envs = environments("sync")
    actor = Simulator()
    list(islice(stream(envs, actor, 0), 2))
    assert actor.calls[0] is envs
    assert actor.calls[1:] == ["reset", 3, 3] or actor.calls[1:] == ["reset", 3, "reset", 3]
    assert keeps_state(as_actor(actor, OBSERVATION))


def test_bind_is_only_called_on_request(environments):
    class Quiet(Simulator):
        needs_env = False

        def bind(self, envs):
            raise AssertionError("not asked for")

    list(islice(stream(environments("sync"), Quiet(), 0), 2))


# Raw observations

ROOM = spaces.Dict(
    place=spaces.Box(-1, 1, (2, 2), np.float32),
    kind=spaces.Discrete(3, start=4),
    inside=spaces.Tuple((spaces.MultiDiscrete([2, 3]), spaces.MultiBinary(4), spaces.Box(0, 255, (3,), np.uint8))),
)


@pytest.mark.parametrize("env_id", ["Spaces-v0", "BatchedNextStep-v0"])
def test_raw_observations_are_those_of_the_environment(env_id):
    backend = "sync" if env_id == "Spaces-v0" else "vector"
    envs = make(env_id, 2, 0, backend, observation_space=ROOM)
    seen = []

    class Raw:
        raw_observation = True

        def act(self, observation):
            seen.append(observation)
            return np.zeros(2, np.int64)

    steps = list(islice(stream(envs, Raw(), 3), 4))
    envs.close()
    for step, batch in zip(steps, seen, strict=True):
        assert list(batch) == list(ROOM.spaces)
        for env in range(2):
            one = {
                "place": batch["place"][env],
                "kind": batch["kind"][env],
                "inside": tuple(part[env] for part in batch["inside"]),
            }
            assert ROOM.contains(one)
            np.testing.assert_array_equal(gymnasium.spaces.flatten(ROOM, one), step.observation[env])


def test_unflatten_is_the_inverse_of_flatten():
    box = FlatBox(ROOM)
    ROOM.seed(0)
    samples = [ROOM.sample() for _ in range(50)]
    flat = np.stack([gymnasium.spaces.flatten(ROOM, one) for one in samples])
    batch = box.unflatten(flat)
    for i, sample in enumerate(samples):
        np.testing.assert_array_equal(batch["place"][i], sample["place"])
        assert batch["kind"][i] == sample["kind"]
        for part, wanted in zip(batch["inside"], sample["inside"], strict=True):
            assert part.dtype == wanted.dtype
            np.testing.assert_array_equal(part[i], wanted)
    np.testing.assert_array_equal(box.flatten(batch), flat)

"""The mixture of expert and learner: which of them acts, labels, questions, resets and failures."""

from __future__ import annotations

import counting
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from stateful import ActionQueue, Simulator, StepCounter

from lit_imitation.envs import make
from lit_imitation.errors import ExpertError
from lit_imitation.experts.scripted import cart_pole
from lit_imitation.methods.dagger.disagreement import differ
from lit_imitation.methods.dagger.mixture import Mixture
from lit_imitation.rollout import Episodes, FunctionActor, Steps, as_actor


def always(action):
    return FunctionActor(lambda observation: np.full(len(observation), action, np.int64))


def rolled_out(expert, learner, beta, *, steps=1000, num_envs=4, uncertain=None, env_id="CartPole-v1"):
    envs = make(env_id, num_envs, seed=0)
    generator = np.random.default_rng(0)
    expert = as_actor(expert, envs.single_observation_space)
    mixture = Mixture(expert, learner, beta, lambda: generator.random(num_envs), uncertain)
    mixture.rollout = Steps(envs, mixture, steps, seed=0, record=True)
    list(mixture.rollout)
    played = mixture.rollout.transitions().action.numpy()
    envs.close()
    return mixture, played


@pytest.mark.slow
@pytest.mark.integration
@pytest.mark.parametrize("beta", [0.0, 0.3, 1.0])
def test_actor_is_drawn_at_every_step_and_environment(beta):
    played = rolled_out(always(1), always(0), beta, steps=8000)[1]
    by_env = played.reshape(4, 2000).astype(float)
    np.testing.assert_allclose(by_env.mean(1), beta, atol=0.04)  # 4 standard errors of 2000 draws
    if 0.0 < beta < 1.0:
        lagged = [np.corrcoef(row[1:], row[:-1])[0, 1] for row in by_env]
        across = np.corrcoef(by_env)[np.triu_indices(4, 1)]
        assert np.abs([*lagged, *across]).max() < 0.1


@pytest.mark.parametrize("beta", [0.0, 0.5, 1.0])
def test_label_is_the_experts_even_if_the_learner_acted(beta):
    mixture, played = rolled_out(cart_pole, always(1), beta)
    transitions, learned, asked = mixture.outcome()
    observation = transitions.observation.numpy()
    np.testing.assert_array_equal(transitions.action, cart_pole(observation))
    np.testing.assert_array_equal(learned, 1)
    assert asked.all()
    # The successor shows the action that was played: the cart's speed changes with the force.
    pushed_right = transitions.next_observation.numpy()[:, 1] > observation[:, 1]
    np.testing.assert_array_equal(pushed_right, played == 1)


def test_expert_is_asked_once_per_step_about_live_states():
    """It is asked about as many states as there are transitions, since an expert may be slow."""
    sizes = []

    def expert(observation):
        sizes.append(len(observation))
        assert (observation[:, 4] == 0).all()  # in CountingEnv, 1 on the final observation of an episode
        return counting.act(observation)

    envs = SyncVectorEnv([counting.CountingEnv] * 3, autoreset_mode=AutoresetMode.NEXT_STEP)
    mixture = Mixture(FunctionActor(expert), FunctionActor(counting.act), 0.0, lambda: np.zeros(3))
    mixture.rollout = Episodes(envs, mixture, 7, seed=0, record=True)
    list(mixture.rollout)
    transitions, _, asked = mixture.outcome()
    assert sum(sizes) == len(transitions) == int(asked.sum())
    assert min(sizes) < 3  # some were over before the others
    envs.close()


def test_expert_is_asked_only_where_uncertain_or_acting():
    def left(observation):
        return observation[:, 0] < 0

    mixture, _ = rolled_out(cart_pole, always(0), 0.0, uncertain=left)
    transitions, _, asked = mixture.outcome()
    np.testing.assert_array_equal(asked, transitions.observation[:, 0] < 0)
    assert 0 < int(asked.sum()) < len(asked)
    np.testing.assert_array_equal(transitions.action[~asked], 0)

    mixture, played = rolled_out(always(1), always(0), 0.5, uncertain=left)
    transitions, _, asked = mixture.outcome()
    np.testing.assert_array_equal(asked.numpy() | (transitions.observation[:, 0] < 0).numpy(), asked.numpy())
    assert asked.numpy()[played == 1].all()
    assert not asked.all()


def test_failing_expert_is_named_with_the_step():
    calls = iter(range(100))

    def expert(observation):
        if next(calls) == 5:
            raise RuntimeError("the pilot has left")
        return cart_pole(observation)

    with pytest.raises(ExpertError, match="step 5: RuntimeError: the pilot has left"):
        rolled_out(expert, always(0), 0.0)


@pytest.mark.parametrize("mode", [AutoresetMode.NEXT_STEP, AutoresetMode.SAME_STEP])
def test_expert_and_learner_are_reset_at_episode_starts(mode):
    """An expert with state sees every step, so its labels are right where it does not act and is asked in part."""
    envs = SyncVectorEnv([counting.CountingEnv] * 3, autoreset_mode=mode)
    learner, expert = StepCounter(3), ActionQueue(3)
    generator = np.random.default_rng(0)
    mixture = Mixture(expert, learner, 0.5, lambda: generator.random(3), lambda o: o[:, 0] % 2 == 0)
    mixture.rollout = Episodes(envs, mixture, 31, seed=0, record=True)
    list(mixture.rollout)
    transitions, _, asked = mixture.outcome()
    steps, resets = mixture.rollout.flat(learner.noted).T
    observation = transitions.observation.numpy()
    np.testing.assert_array_equal(steps, observation[:, 2])
    np.testing.assert_array_equal(resets - 1, observation[:, 1])
    np.testing.assert_array_equal(transitions.action, counting.act(observation))
    assert 0 < int(asked.sum()) < len(asked)
    envs.close()


def test_expert_gets_the_environment_and_its_failures_are_named():
    envs = SyncVectorEnv([counting.CountingEnv] * 3, autoreset_mode=AutoresetMode.SAME_STEP)

    class Broken(Simulator):
        def bind(self, envs):
            raise RuntimeError("no model of this")

    learner = FunctionActor(counting.act)
    for expert in (Simulator(), Broken()):
        mixture = Mixture(as_actor(expert, counting.OBSERVATIONS), learner, 0.0, lambda: np.ones(3))
        mixture.rollout = Episodes(envs, mixture, 3, seed=0)
        if isinstance(expert, Broken):
            with pytest.raises(ExpertError, match="step 0: RuntimeError: no model of this"):
                list(mixture.rollout)
        else:
            list(mixture.rollout)
            assert expert.calls[:3] == [envs, "reset", 3]
            assert set(expert.calls[3:]) == {3, "reset"}  # always asked about all three
    envs.close()


def test_differ_compares_discrete_and_continuous_actions():
    a, b = np.array([0, 1, 2]), np.array([0, 2, 2])
    np.testing.assert_array_equal(differ(a, b, None), [False, True, False])
    width = np.array([2.0, 1.0])
    a = np.array([[0.0, 0.0], [0.0, 0.0], [0.0, 0.0], [0.0, 0.0]])
    b = np.array([[0.09, 0.0], [0.11, 0.0], [0.0, 0.04], [0.0, -0.06]])  # 5 % of 2, and of 1
    np.testing.assert_array_equal(differ(a, b, width), [False, True, False, True])
    several = np.array([[0, 1], [2, 1]]), np.array([[0, 1], [2, 0]])
    np.testing.assert_array_equal(differ(*several, None), [False, True])
    for shape, of in (((), None), ((2,), width), ((2,), None)):  # no state was asked about
        none = np.zeros((0, *shape))
        assert differ(none, none, of).shape == (0,)

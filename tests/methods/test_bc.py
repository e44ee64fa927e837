"""Behavioral cloning against plain torch and known policies, and whole runs."""

from __future__ import annotations

import csv
import itertools
import json
import math
import os
import re
import subprocess
import sys
import textwrap
from functools import partial
from pathlib import Path

import counting  # noqa: F401 - registers Spaces-v0
import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Discrete
from lightning import Callback, Trainer, seed_everything
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint
from suites import arguments
from torch import Tensor

import lit_imitation
from lit_imitation import BC, CategoricalPolicy, DemonstrationDataModule, DeterministicPolicy, GaussianPolicy
from lit_imitation.cli import main
from lit_imitation.data.module import EnvironmentDataModule
from lit_imitation.errors import ConfigError, TrainingError
from lit_imitation.methods.bc import CloningLoss
from lit_imitation.optim.optimization import Optimization
from lit_imitation.transitions import Transitions

OBSERVATION, ACTION = Box(-np.inf, np.inf, (3,), np.float32), Box(np.float32([-1, -2]), np.float32([1, 6]))
CENTRE, SCALE = torch.tensor([0.0, 2.0]), torch.tensor([1.0, 4.0])


def record(observation: Tensor, action: Tensor, length: int = 1, **more: Tensor) -> Transitions:
    """Trajectories of one length, each ended by `terminated`."""
    over = torch.arange(1, len(action) + 1) % length == 0
    zeros = torch.zeros(len(action))
    return Transitions(
        observation=observation,
        action=action,
        reward=zeros,
        terminated=over,
        truncated=torch.zeros_like(over),
        batch_size=[len(action)],
        **more,
    )


def data_of(transitions: Transitions, spaces=(OBSERVATION, ACTION), **more) -> DemonstrationDataModule:
    more = {"eval_episodes": 0, "val_fraction": 0.0, **more}
    env_kwargs = dict(zip(("observation_space", "action_space"), spaces, strict=True))
    return DemonstrationDataModule("Spaces-v0", demonstrations=transitions, env_kwargs=env_kwargs, **more)


def fit(model: BC, data: EnvironmentDataModule, directory: Path, *callbacks: Callback, **more) -> Trainer:
    seed_everything(0, verbose=False)
    checkpointing = any(isinstance(callback, ModelCheckpoint) for callback in callbacks)
    trainer = Trainer(
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=checkpointing,
        num_sanity_val_steps=0,
        default_root_dir=directory,
        callbacks=list(callbacks),
        **more,
    )
    trainer.fit(model, datamodule=data)
    return trainer


# --- the loss ---------------------------------------------------------------------------------------------------------


def plain_loss(kind: str, weights: dict[str, Tensor], batch: Transitions, entropy: float, l2: float) -> Tensor:
    """The objective written out, from a policy's tensors alone."""
    x = (batch.observation - weights["encoder.standardize.mean"]) * weights["encoder.standardize.inverse_std"]
    layers = [name[:-7] for name in weights if name.endswith("weight")]
    for i, layer in enumerate(layers):
        x = x @ weights[f"{layer}.weight"].T + weights[f"{layer}.bias"]
        x = torch.tanh(x) if i < len(layers) - 1 else x
    h = None
    if kind == "categorical":
        log_p = x - x.exp().sum(1, keepdim=True).log()
        loss, h = -log_p[torch.arange(len(x)), batch.action], -(log_p.exp() * log_p).sum(1)
    elif kind.startswith("gaussian"):
        mean, log_std = x[:, :2], weights.get("log_std")
        if log_std is None:
            log_std = -5.0 + 7.0 * torch.sigmoid(2.0 * x[:, 2:])  # (tanh r + 1) / 2 is the sigmoid of 2r
        mean, std = CENTRE + SCALE * mean, (SCALE * log_std.exp()).expand_as(mean)
        normal = torch.distributions.Normal(mean, std)
        loss, h = -normal.log_prob(batch.action).sum(1), normal.entropy().sum(1)
    else:
        r = (batch.action - CENTRE) / SCALE - x.tanh()
        if kind == "mse":
            loss = (r**2).sum(1)
        elif kind == "huber":
            loss = torch.where(r.abs() <= 0.3, r**2 / 2, 0.3 * (r.abs() - 0.15)).sum(1)
        else:
            loss = r.cosh().log().sum(1)
    total = (loss if batch.weight is None else loss * batch.weight).mean()
    if entropy:
        total = total - entropy * h.mean()
    return total + l2 / 2 * sum(w.square().sum() for w in weights.values() if w.requires_grad)


POLICIES = {
    "categorical": partial(CategoricalPolicy, OBSERVATION, Discrete(4)),
    "gaussian free": partial(GaussianPolicy, OBSERVATION, ACTION, std="free"),
    "gaussian state": partial(GaussianPolicy, OBSERVATION, ACTION, std="state"),
    "mse": partial(DeterministicPolicy, OBSERVATION, ACTION, regression="mse"),
    "huber": partial(DeterministicPolicy, OBSERVATION, ACTION, regression="huber", huber_delta=0.3),
    "log_cosh": partial(DeterministicPolicy, OBSERVATION, ACTION, regression="log_cosh"),
}


CASES = [
    pytest.param(kind, weighted, entropy, l2, id=f"{kind}{' w' * weighted}{' H' * (entropy > 0)}{' l2' * (l2 > 0)}")
    for kind, weighted, entropy, l2 in itertools.product(POLICIES, (False, True), (0.0, 0.3), (0.0, 0.2))
    if not (entropy and kind in ("mse", "huber", "log_cosh"))  # these losses have no entropy
]


@pytest.mark.parametrize(("kind", "weighted", "entropy", "l2"), CASES)
def test_loss_and_gradient_match_plain_torch(kind, weighted, entropy, l2):
    torch.manual_seed(3)
    policy = POLICIES[kind](hidden_sizes=[8, 8], activation="tanh")
    policy.fit_normalizer(5 + 3 * torch.randn(50, 3))
    if kind == "gaussian free":
        torch.nn.init.normal_(policy.log_std)
    observation = (5 + 3 * torch.randn(16, 3)).float()
    action = torch.randint(4, (16,)) if kind == "categorical" else torch.rand(16, 2) * 2 * SCALE + CENTRE - SCALE
    batch = record(observation, action, weight=torch.rand(16) if weighted else None)
    loss, _ = CloningLoss(policy, entropy, l2)(batch.observation, batch.action, batch.weight)
    loss.backward()

    trained = dict(policy.named_parameters())
    weights = {k: v.detach().clone().requires_grad_(k in trained) for k, v in policy.state_dict().items()}
    reference = plain_loss(kind, weights, batch, entropy, l2)
    reference.backward()
    torch.testing.assert_close(loss, reference, rtol=1e-5, atol=1e-6)
    for name, parameter in trained.items():
        torch.testing.assert_close(parameter.grad, weights[name].grad, rtol=1e-4, atol=1e-6)


def test_integer_weights_count_as_copies():
    torch.manual_seed(0)
    observation, action, times = torch.randn(12, 3), torch.rand(12, 2), torch.tensor([1, 2, 5] * 4)
    copies = record(observation.repeat_interleave(times, 0), action.repeat_interleave(times, 0))
    policy, gradients = GaussianPolicy(OBSERVATION, ACTION, std="state", hidden_sizes=[8]), []
    for transitions in (record(observation, action, weight=times.float()), copies, record(observation, action)):
        data = data_of(transitions)
        data.setup("fit")
        train = data.train
        loss, _ = CloningLoss(policy, 0.0, 0.1)(train.observation, train.action, train.weight)
        gradients.append(torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(policy.parameters()))]))
    weighted, copied, unweighted = gradients
    torch.testing.assert_close(weighted, copied, rtol=1e-4, atol=1e-6)
    assert (weighted - unweighted).abs().max() > 1e-2  # the weights have an effect


@pytest.mark.integration
def test_entropy_weight_needs_a_policy_with_entropy(tmp_path):
    data = data_of(record(torch.randn(4, 3), torch.rand(4, 2)))
    model = BC(partial(DeterministicPolicy, hidden_sizes=[4]), entropy_coefficient=0.01)
    with pytest.raises(ConfigError, match=r"entropy_coefficient is 0.01, but DeterministicPolicy has no distribution"):
        fit(model, data, tmp_path, max_epochs=1)
    assert model.global_step == 0


@pytest.mark.parametrize(
    ("setting", "value"), [("learning_rate", 0.0), ("learning_rate", float("nan")), ("l2_coefficient", -1.0)]
)
def test_invalid_settings_are_refused(setting, value):
    with pytest.raises(ConfigError, match=rf"model\.{setting} is {value}; it must be"):
        BC(**{setting: value})


@pytest.mark.integration
def test_callback_on_held_out_loss_needs_held_out_data(tmp_path, capsys):
    with pytest.raises(SystemExit):
        main(arguments("bc-discrete", tmp_path, "--data.num_trajectories=1"))
    message = "ModelCheckpoint watches val/loss, but no trajectory is held out of 1"
    assert message in capsys.readouterr().err
    assert not (tmp_path / "checkpoints").exists()


@pytest.mark.integration
def test_data_without_demonstrations_are_refused(tmp_path):
    with pytest.raises(ConfigError, match="EnvironmentDataModule holds none"):
        fit(BC(), EnvironmentDataModule("CartPole-v1", eval_episodes=0), tmp_path, max_epochs=1)


# --- the statistics of the inputs -------------------------------------------------------------------------------------


@pytest.mark.integration
def test_inputs_are_standardized_by_the_training_split(tmp_path):
    torch.manual_seed(0)
    episode = torch.arange(10).repeat_interleave(5)
    observation = torch.randn(50, 3) + 100 * episode[:, None]  # one trajectory more or less would change the statistics
    data = data_of(record(observation, torch.rand(50, 2), length=5), val_fraction=0.3)
    trainer = fit(BC(partial(GaussianPolicy, hidden_sizes=[4])), data, tmp_path, max_epochs=1)
    trainer.save_checkpoint(tmp_path / "x.ckpt")
    assert (len(data.train), len(data.held_out)) == (35, 15)
    mean, std = data.train.observation.mean(0), data.train.observation.std(0, correction=0)
    for policy in (trainer.lightning_module.policy, lit_imitation.load_policy(tmp_path / "x.ckpt")):
        torch.testing.assert_close(policy.encoder.standardize.mean, mean)
        torch.testing.assert_close(policy.encoder.standardize.inverse_std, 1 / std)
    assert (mean - observation.mean(0)).abs().min() > 1


# --- when to stop, what to keep ---------------------------------------------------------------------------------------


class Losses(Callback):
    def __init__(self):
        self.values = []

    def on_validation_end(self, trainer, pl_module):
        self.values.append(float(trainer.callback_metrics["val/loss"]))


@pytest.mark.integration
def test_early_stopping_keeps_checkpoint_of_least_loss(tmp_path):
    torch.manual_seed(0)
    # Noise cannot be learned: the held-out loss falls while σ is fitted, then rises with overfitting.
    data = data_of(record(torch.randn(60, 3), torch.rand(60, 2)), val_fraction=0.3, batch_size=14)
    losses = Losses()
    best = ModelCheckpoint(tmp_path, "best", "val/loss", save_on_train_epoch_end=True, enable_version_counter=False)
    model = BC(partial(GaussianPolicy, hidden_sizes=[32]), learning_rate=0.02)
    trainer = fit(model, data, tmp_path, losses, EarlyStopping("val/loss", patience=3), best, max_epochs=200)
    at = int(np.argmin(losses.values))
    assert at > 0
    assert len(losses.values) == trainer.current_epoch == at + 4 < 200
    checkpoint = torch.load(best.best_model_path, weights_only=True)
    assert checkpoint["epoch"] == at
    policy = lit_imitation.load_policy(best.best_model_path)
    with torch.no_grad():
        loss = policy.loss(data.held_out.observation, data.held_out.action).mean()
    assert float(loss) == pytest.approx(min(losses.values), rel=1e-5)


def metrics(directory: Path) -> list[dict[str, str]]:
    with (directory / "metrics.csv").open() as file:
        return list(csv.DictReader(file))


@pytest.mark.integration
def test_best_checkpoint_has_highest_return(tmp_path):
    by_return = ["--trainer.callbacks.monitor=val/return_mean", "--trainer.callbacks.mode=max"]
    line = arguments("bc-discrete", tmp_path, *by_return, "--trainer.max_epochs=6", "--model.learning_rate=0.003")
    main(line)
    returns = [float(row["val/return_mean"]) for row in metrics(tmp_path) if row["val/return_mean"]]
    assert len(set(returns)) > 2
    checkpoint = torch.load(tmp_path / "checkpoints" / "best.ckpt", weights_only=True)
    assert checkpoint["epoch"] == int(np.argmax(returns))
    assert json.loads((tmp_path / "summary.json").read_text())["checkpoint"] == "checkpoints/best.ckpt"


# --- a loss that is not finite ----------------------------------------------------------------------------------------


class Poison(Callback):
    """Corrupts the data after two good epochs."""

    def __init__(self, field: str, value: float) -> None:
        self.field, self.value = field, value

    def on_train_epoch_end(self, trainer, pl_module):
        if trainer.current_epoch == 1:
            getattr(trainer.datamodule.train, self.field)[3, 1] = self.value


def assert_good(path: Path) -> None:
    checkpoint = torch.load(path, weights_only=True)
    assert all(v.isfinite().all() for v in checkpoint["state_dict"].values())
    assert np.isfinite(lit_imitation.load_policy(path)(np.zeros(3, np.float32))).all()


@pytest.mark.integration
@pytest.mark.parametrize(
    ("field", "value", "statistics"),
    [
        ("observation", math.nan, r"observation \[4, 3\]: min nan, mean nan, max nan, 1 not finite"),
        ("action", math.inf, r"action \[4, 2\]: min 0.\d+, mean inf, max inf, 1 not finite"),
    ],
)
def test_non_finite_loss_stops_run_and_names_checkpoint(field, value, statistics, tmp_path):
    torch.manual_seed(0)
    data = data_of(record(torch.randn(20, 3), torch.rand(20, 2)), batch_size=4)
    save = ModelCheckpoint(tmp_path, "last", save_on_train_epoch_end=True, enable_version_counter=False)
    model = BC(partial(GaussianPolicy, hidden_sizes=[8]))
    with pytest.raises(TrainingError) as caught:
        fit(model, data, tmp_path, save, Poison(field, value), max_epochs=9)
    text = str(caught.value)
    loss = "nan" if field == "observation" else "inf"
    assert re.search(rf"the loss is {loss} at step 1[0-4] \(epoch 2\)", text), text
    assert re.search(statistics, text), text
    assert f"last good checkpoint: {tmp_path / 'last.ckpt'};" in text
    assert torch.load(tmp_path / "last.ckpt", weights_only=True)["global_step"] == 10
    assert_good(tmp_path / "last.ckpt")


@pytest.mark.integration
@pytest.mark.parametrize("val_fraction", [0.0, 0.2], ids=["none held out", "held out"])
def test_weights_broken_by_last_step_are_not_saved(val_fraction, tmp_path):
    """The epoch's checkpoint would be written before the next loss is computed."""
    torch.manual_seed(0)
    data = data_of(record(torch.randn(20, 3), torch.rand(20, 2)), batch_size=16, val_fraction=val_fraction)
    save = ModelCheckpoint(tmp_path, "last", save_on_train_epoch_end=True, enable_version_counter=False)

    class Break(Callback):
        def on_train_batch_end(self, trainer, pl_module, *args):
            if trainer.current_epoch == 2:
                pl_module.policy.log_std.data[0] = math.nan

    model = BC(partial(GaussianPolicy, hidden_sizes=[8]))
    what = "the loss on held-out demonstrations is nan at step 3" if val_fraction else "log_std is no longer finite"
    with pytest.raises(TrainingError, match=rf"{what}[^\n]*\(epoch 2\)[^\n]*\nlast good checkpoint: .*last\.ckpt;"):
        fit(model, data, tmp_path, save, Break(), max_epochs=9)
    assert torch.load(tmp_path / "last.ckpt", weights_only=True)["global_step"] == 2
    assert_good(tmp_path / "last.ckpt")


@pytest.mark.integration
def test_command_line_reports_divergence_in_one_message(tmp_path, capsys):
    with pytest.raises(SystemExit) as caught:
        main(arguments("bc-discrete", tmp_path, "--model.learning_rate=1e30"))
    error = capsys.readouterr().err
    assert caught.value.code == 1
    message = error[error.index("error: ") :]
    assert message.startswith("error: the loss is")
    assert "observation [64, 4]: min" in message
    assert "last good checkpoint: none yet" in message
    assert "Traceback" not in error


# --- what comes out ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def run_directory(tmp_path_factory):
    directory = tmp_path_factory.mktemp("run")
    main(arguments("bc-continuous", directory, "--trainer.max_epochs=2", "--model.entropy_coefficient=0.01"))
    return directory


def weights(path: Path) -> dict[str, bytes]:
    return {k: v.numpy().tobytes() for k, v in torch.load(path, weights_only=True)["state_dict"].items()}


@pytest.mark.slow
@pytest.mark.integration
def test_same_seed_gives_same_bits(run_directory, tmp_path):
    for name, seed in (("same", 0), ("other", 1)):
        line = arguments("bc-continuous", tmp_path / name, "--trainer.max_epochs=2", f"--seed_everything={seed}")
        main([*line, "--model.entropy_coefficient=0.01"])
    first, same, other = (
        weights(directory / "checkpoints" / "last.ckpt")
        for directory in (run_directory, tmp_path / "same", tmp_path / "other")
    )
    assert first == same
    different = {name for name in first if first[name] != other[name]}
    assert {name for name in first if "network" in name} <= different
    assert metrics(run_directory) == metrics(tmp_path / "same") != metrics(tmp_path / "other")


def test_load_from_checkpoint_without_trainer_or_environment(run_directory, monkeypatch):
    monkeypatch.setattr("gymnasium.make", None)
    monkeypatch.setattr("gymnasium.make_vec", None)
    path = run_directory / "checkpoints" / "best.ckpt"
    model = BC.load_from_checkpoint(path)
    assert (model.entropy_coefficient, model.learning_rate) == (0.01, 0.001)
    assert model.gradient_steps == torch.load(path, weights_only=True)["global_step"] > 0
    assert isinstance(model.policy, GaussianPolicy)
    assert {k: v.numpy().tobytes() for k, v in model.state_dict().items()} == weights(path)
    observation = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)
    np.testing.assert_array_equal(model.policy(observation), lit_imitation.load_policy(run_directory)(observation))


@pytest.mark.slow
def test_load_policy_without_lightning_or_environment(run_directory):
    script = """
    import sys
    class Blocked:
        def find_spec(self, name, path=None, target=None):
            if name.split(".")[0] in ("lightning", "pytorch_lightning", "wandb", "matplotlib", "mujoco", "pygame"):
                raise ImportError(f"{name} is blocked")
    sys.meta_path.insert(0, Blocked())
    import gymnasium
    def make(*args, **kwargs):
        raise RuntimeError("an environment was made")
    gymnasium.make = gymnasium.make_vec = make
    import lit_imitation
    import numpy as np, torch
    policy = lit_imitation.load_policy(sys.argv[1])
    one, batch = np.zeros(3, np.float32), torch.zeros(4, 3)
    print(policy(one).shape, policy(one).dtype, tuple(policy(batch).shape), type(policy(batch)).__name__)
    """
    command = [sys.executable, "-c", textwrap.dedent(script), str(run_directory)]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    assert done.stdout.split("\n")[0] == "(1,) float32 (4, 1) Tensor", done.stderr


# --- every kind of space ----------------------------------------------------------------------------------------------


@pytest.mark.integration
@pytest.mark.grid
@pytest.mark.parametrize("num_envs", [1, 4])
@pytest.mark.parametrize(
    "observation_space",
    [Box(0, 255, (12, 10, 3), np.uint8), Discrete(6, start=2), Box(-1, 1, (2, 3), np.float32)],
    ids=["image", "discrete", "matrix"],
)
@pytest.mark.parametrize("action_space", [Discrete(3, start=-1), ACTION], ids=["choice", "box"])
def test_epoch_runs_on_any_space_and_number_of_environments(observation_space, action_space, num_envs, tmp_path):
    for space in (observation_space, action_space):
        space.seed(0)
    sampled = [[space.sample() for _ in range(24)] for space in (observation_space, action_space)]
    transitions = record(*(torch.from_numpy(np.array(rows)) for rows in sampled), length=3)
    data = data_of(
        transitions, (observation_space, action_space), val_fraction=0.25, num_envs=num_envs, eval_episodes=5
    )
    model = BC()
    trainer = fit(model, data, tmp_path, max_epochs=1)
    assert trainer.global_step == 1
    assert model.evaluation["episodes"] == 5
    assert model.evaluation["length_mean"] == model.evaluation["return_mean"] == 3
    figure = "val/accuracy" if isinstance(action_space, Discrete) else "val/action_error"
    assert {"val/loss", figure} <= trainer.callback_metrics.keys()


@pytest.mark.integration
def test_frozen_lake_from_demonstrations_in_memory(tmp_path):
    # Without slipping: down, down, right, down, right, right.
    path, moves = torch.tensor([0, 4, 8, 9, 13, 14]), torch.tensor([1, 1, 2, 1, 2, 2])
    transitions = record(path.repeat(5), moves.repeat(5), length=6)
    transitions.reward[5::6] = 1.0
    data = DemonstrationDataModule(
        "FrozenLake-v1",
        demonstrations=transitions,
        env_kwargs={"is_slippery": False},
        val_fraction=0.2,
        eval_episodes=3,
        num_envs=2,
    )
    model = BC(partial(CategoricalPolicy, hidden_sizes=[32]), learning_rate=0.02)
    trainer = fit(model, data, tmp_path, max_epochs=40, check_val_every_n_epoch=40)
    assert model.evaluation["return_mean"] == 1.0
    assert model.evaluation["length_mean"] == 6.0
    assert trainer.callback_metrics["val/accuracy"] == 1.0


# --- policies that are known ------------------------------------------------------------------------------------------


TO_ZERO = Optimization(schedule="linear")
"""Decreases the learning rate, because Adam otherwise circles around the optimum."""


@pytest.mark.slow
@pytest.mark.parametrize(("std", "steps"), [("free", 500), ("state", 1500)], ids=["free", "state"])
def test_linear_gaussian_policy_is_recovered(std, steps, tmp_path):
    torch.manual_seed(1)
    n = 2000
    matrix, offset = torch.tensor([[0.5, -0.3], [0.2, 0.4], [-0.1, 0.6]]), torch.tensor([0.3, -0.5])
    sigma = torch.tensor([0.5, 1.0])
    observation = 2.0 + 2.0 * torch.randn(n, 3)
    action = observation @ matrix + offset + sigma * torch.randn(n, 2)
    spaces = OBSERVATION, Box(-10, 10, (2,), np.float32)
    data = data_of(record(observation, action), spaces, batch_size=n, passes_per_epoch=steps)
    model = BC(partial(GaussianPolicy, std=std, hidden_sizes=[]), 0.05, optimization=TO_ZERO)
    fit(model, data, tmp_path, max_epochs=1)
    policy = model.policy
    with torch.no_grad():
        mean, log_std = policy.mean_and_log_std(policy.head(observation[:500]))
    # Standard errors: σ/√n of the mean (at most three times that at the edge of the data), σ/√2n of σ.
    error = (10 * mean - (observation[:500] @ matrix + offset)).abs() / sigma
    assert float(error.max()) < 5 * 3 / math.sqrt(n)
    sigma_error = (10 * log_std.exp() / sigma - 1).abs()
    assert float(sigma_error.max()) < 5 * (1 if std == "free" else 3) / math.sqrt(2 * n)


@pytest.mark.slow
def test_known_categorical_policy_is_recovered(tmp_path):
    torch.manual_seed(1)
    n = 10_000
    observation = 1.0 + 2.0 * torch.randn(n, 3)
    matrix = torch.tensor([[0.5, -0.3, 0.0], [0.2, 0.4, -0.6], [-0.1, 0.6, 0.2]])
    true = (observation @ matrix + torch.tensor([0.5, 0.0, -0.5])).softmax(1)
    transitions = record(observation, torch.multinomial(true, 1).squeeze(1))
    data = data_of(transitions, (OBSERVATION, Discrete(3)), batch_size=n, passes_per_epoch=200)
    model = BC(partial(CategoricalPolicy, hidden_sizes=[]), 0.05, optimization=TO_ZERO)
    fit(model, data, tmp_path, max_epochs=1)
    with torch.no_grad():
        learned = model.policy.head(observation).softmax(1)
    # A maximum-likelihood estimate of eight parameters loses 8 / 2n nats on average.
    divergence = (true * (true / learned).log()).sum(1).mean()
    assert float(divergence) < 4 * 8 / (2 * n)
    # The mode is correct unless the two most likely actions have similar probabilities.
    first, second = true.topk(2).values.unbind(1)
    clear = first - second > 0.25
    assert torch.equal(model.policy.act(observation)[clear], true.argmax(1)[clear])


@pytest.mark.slow
def test_entropy_raises_uncertainty_and_l2_shrinks_weights(tmp_path):
    torch.manual_seed(0)
    observation = torch.randn(256, 3)
    transitions = record(observation, (observation[:, 0] > 0).long())
    entropies, norms = [], []
    for entropy, l2 in ((0.0, 0.0), (0.2, 0.0), (1.0, 0.0), (0.0, 0.1)):
        data = data_of(transitions, (OBSERVATION, Discrete(2)), batch_size=256, passes_per_epoch=100)
        seed_everything(0, verbose=False)
        model = BC(partial(CategoricalPolicy, hidden_sizes=[16]), 0.02, entropy, l2)
        fit(model, data, tmp_path, max_epochs=1)
        with torch.no_grad():
            entropies.append(float(model.policy.entropy(observation).mean()))
        norms.append(sum(float(p.square().sum()) for p in model.policy.parameters()))
    assert all(a < b for a, b in itertools.pairwise(entropies[:3]))
    assert norms[3] < 0.5 * norms[0]


@pytest.mark.slow
@pytest.mark.integration
def test_command_line_tests_checkpoint_of_least_loss(tmp_path):
    main(arguments("bc-discrete", tmp_path, "--trainer.max_epochs=3"))
    losses = [float(row["val/loss"]) for row in metrics(tmp_path) if row["val/loss"]]
    checkpoint = torch.load(tmp_path / "checkpoints" / "best.ckpt", weights_only=True)
    assert checkpoint["epoch"] == int(np.argmin(losses))

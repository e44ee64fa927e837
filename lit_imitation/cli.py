"""The command line: Lightning's `fit`, `validate`, `test`, `predict`; our `recipes`, `collect`, `repeat`."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Sequence
from typing import Any

# Nothing heavy is imported here: the help and a mistyped command shall answer at once.
from lit_imitation.errors import ConfigError, LitImitationError

USAGE = """\
usage: lit-imitation COMMAND [options]      (or: python train.py COMMAND [options])

train, with Lightning:
  fit        train a recipe:   fit --config bc/lunar_lander
             your own data:    fit --config bc/hopper --data.demonstrations my.npz
             go on after a cut: fit --config … --trainer.default_root_dir DIR --ckpt_path last
  validate   measure a checkpoint on held-out demonstrations and a few episodes
  test       measure a checkpoint over many episodes:   test --ckpt_path DIR
  predict    write a trained policy's trajectories as a demonstration file:   predict --ckpt_path DIR

around it:
  recipes    list the recipes with task, method, score and time; print one:   recipes bc/lunar_lander
  collect    roll out an expert and write a demonstration file
  repeat     run a recipe for several seeds and put the results into one table

COMMAND --help lists the options of a command; fit --config FILE --print_config shows every setting.
"""

TRAINER_COMMANDS = ("fit", "validate", "test", "predict")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one command; errors that a user can mend end it with one message and exit status 1."""
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    if not arguments or arguments[0] in ("-h", "--help"):
        print(USAGE, end="")
        return
    command, *rest = arguments
    # An expert or a policy class of the user's own lies beside where the command is given.
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        if command in TRAINER_COMMANDS:
            from lit_imitation.training.lightning_cli import run

            run(command, rest)
        elif command == "recipes":
            recipes(rest)
        elif command == "collect":
            collect(rest)
        elif command == "repeat":
            repeat(rest)
        else:
            print(f"lit-imitation: no command {command!r}\n\n{USAGE}", end="", file=sys.stderr)
            sys.exit(2)
    except KeyboardInterrupt:
        print("\nstopped", file=sys.stderr)
        sys.exit(128 + signal.SIGINT)
    except Exception as error:
        mendable = _mendable(error)
        if mendable is None:
            raise
        print(f"error: {mendable}", file=sys.stderr)
        sys.exit(getattr(mendable, "exit_status", 1))


def _mendable(error: Exception) -> BaseException | None:
    """The error of ours that is behind another: the parser wraps what a class raises when it is instantiated.

    Else one of the file system's that names a file: a folder that cannot be written, a full disk.
    """
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, LitImitationError):
        cause = cause.__cause__ or cause.__context__
    if cause is None and isinstance(error, OSError) and error.filename is not None:
        return error
    return cause


def recipes(arguments: Sequence[str]) -> None:
    """List the recipes that come with the package, or print one to copy and change."""
    parser = argparse.ArgumentParser(prog="lit-imitation recipes", description=recipes.__doc__, allow_abbrev=False)
    parser.add_argument(
        "recipe",
        nargs="?",
        default="",
        help="a recipe to print, as bc/lunar_lander (copy it with > my_recipe.yaml); or a part of the names, tasks and "
        "methods to list (default: all)",
    )
    options = parser.parse_args(arguments)

    from lit_imitation.training.recipes import listing, recipe_files

    file = recipe_files().get(options.recipe.removesuffix(".yaml"))
    print(
        listing(options.recipe) if file is None else file.read_text(encoding="utf-8"), end="\n" if file is None else ""
    )


def collect(arguments: Sequence[str]) -> None:
    """Roll out an expert and write a demonstration file."""
    parser = argparse.ArgumentParser(prog="lit-imitation collect", description=collect.__doc__, allow_abbrev=False)
    parser.add_argument("--env_id", required=True, help="a Gymnasium id, or module:Id-v0")
    parser.add_argument(
        "--expert",
        default="scripted",
        help="scripted, shipped, npz:PATH, checkpoint:PATH, sb3:PATH.zip, package.module:function (default: scripted)",
    )
    parser.add_argument("--episodes", type=int, default=25, help="number of trajectories (default: 25)")
    parser.add_argument("--out", required=True, help="file to write, .npz or .hdf5")
    parser.add_argument("--subsample", type=int, default=1, help="keep one transition in so many (default: 1)")
    parser.add_argument("--seed", type=int, default=0, help="the same seed gives the same file (default: 0)")
    parser.add_argument("--num_envs", type=int, default=10, help="environments that step together (default: 10)")
    parser.add_argument(
        "--backend", default="auto", choices=["auto", "vector", "envpool", "sync", "async"], help="(default: auto)"
    )
    parser.add_argument(
        "--env_kwargs", nargs="+", default=[], metavar="NAME=VALUE",
        help="passed to the environment, as max_episode_steps=1000",
    )  # fmt: skip
    parser.add_argument("--stochastic", action="store_true", help="draw actions instead of taking the expert's mode")
    parser.add_argument(
        "--trust",
        default="false",
        choices=["true", "false"],
        help="true: open expert files that can execute code (sb3), or name classes that are not of this package",
    )
    options = parser.parse_args(arguments)

    from contextlib import ExitStack

    import torch

    from lit_imitation.data.columns import Metadata
    from lit_imitation.data.demonstration_module import DemonstrationDataModule
    from lit_imitation.data.demonstrations import Demonstrations, subsample, with_return, write_demonstrations
    from lit_imitation.envs import make
    from lit_imitation.experts import load_expert
    from lit_imitation.rollout import collect as roll_out
    from lit_imitation.rollout.progress import EpisodeProgress
    from lit_imitation.utils.files import FileLock, check_local, expand_user
    from lit_imitation.utils.seeding import derive_seed

    check_local(options.out, "--out")
    out = expand_user(options.out)
    if out.suffix not in (".npz", ".hdf5", ".h5"):
        raise ConfigError(f"--out {out}: demonstrations are written as .npz or .hdf5")
    if options.episodes < 1 or options.subsample < 1:
        raise ConfigError("--episodes and --subsample must be at least 1")
    env_kwargs = _pairs(options.env_kwargs)
    out.parent.mkdir(parents=True, exist_ok=True)  # before the work, if it cannot be
    with ExitStack() as stack:
        advice = "let that process end or end it, or name another --out"
        stack.callback(FileLock(out.with_name(f".{out.name}.lock"), str(out), advice).release)
        num_envs = min(options.num_envs, options.episodes)
        envs = make(options.env_id, num_envs, options.seed, options.backend, **env_kwargs)
        stack.callback(envs.close)
        expert = load_expert(
            options.expert,
            options.env_id,
            envs.single_observation_space,
            envs.single_action_space,
            deterministic=not options.stochastic,
            trust=options.trust == "true",
        )
        with EpisodeProgress(f"{options.expert} on {options.env_id}", options.episodes) as progress:
            transitions = roll_out(envs, expert, options.episodes, options.seed, progress)
        metadata: Metadata = {"env_id": options.env_id, "expert": options.expert, "seed": options.seed}
        metadata["deterministic"] = not options.stochastic
        if options.stochastic:  # a policy is evaluated by its mode, and so is the expert
            trust = options.trust == "true"
            data = DemonstrationDataModule(
                options.env_id, expert=options.expert, trust=trust, backend=options.backend, env_kwargs=env_kwargs
            )
            metadata = with_return(metadata, data.expert_reference, True)
        demonstrations = Demonstrations(transitions, transitions.episode_returns(), metadata)
        generator = torch.Generator().manual_seed(derive_seed(options.seed, "subsample"))
        demonstrations = subsample(demonstrations, options.subsample, generator)
        write_demonstrations(out, demonstrations)
    returns = demonstrations.episode_returns
    print(
        f"{out}: {len(returns)} trajectories, {len(demonstrations.transitions)} transitions, "
        f"return {float(returns.mean()):.2f} ± {float(returns.std(correction=0)):.2f}"
    )


def _pairs(given: Sequence[str]) -> dict[str, Any]:
    """`NAME=VALUE` as a dictionary; the values are YAML, as in a recipe."""
    import yaml

    found: dict[str, Any] = {}
    for pair in given:
        name, equals, value = pair.partition("=")
        if not equals or not name.isidentifier():
            raise ConfigError(f"--env_kwargs {pair}: write NAME=VALUE, as max_episode_steps=1000")
        try:
            found[name] = yaml.safe_load(value)
        except yaml.YAMLError as error:
            raise ConfigError(f"--env_kwargs {pair}: the value is no YAML") from error
    return found


def repeat(arguments: Sequence[str]) -> None:
    """Run a recipe for several seeds and aggregate the results; options it does not know go on to `fit`."""
    from lit_imitation.training.repeat import add_repeat_arguments, run_repeat

    parser = argparse.ArgumentParser(prog="lit-imitation repeat", description=repeat.__doc__, allow_abbrev=False)
    add_repeat_arguments(parser)
    run_repeat(*parser.parse_known_args(arguments))

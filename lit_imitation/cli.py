"""The command line: Lightning's `fit`, `validate`, `test` and `predict`, and ours."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Sequence
from typing import Any

# Heavy imports are inside the functions, so that the help and a mistyped command answer at once.
from lit_imitation.errors import ConfigError, LitImitationError

USAGE = """\
usage: lit-imitation COMMAND [options]      (or: python train.py COMMAND [options])

train and evaluate:
  fit        train a policy:        fit --config bc/lunar_lander
             with your own data:    fit --config bc/hopper --data.demonstrations my.npz
             resume a run:          fit --config FILE --trainer.default_root_dir DIR --ckpt_path last
  validate   evaluate a checkpoint on held-out demonstrations and a few episodes
  test       evaluate a checkpoint over many episodes:          test --ckpt_path DIR
  predict    save a policy's trajectories as demonstrations:    predict --ckpt_path DIR

other commands:
  recipes    list the recipes with task, method, score and time; print one: recipes bc/lunar_lander
  collect    run an expert and save its episodes as demonstrations
  inspect    print what a file of demonstrations holds, and what is wrong:  inspect my.hdf5
  repeat     run a recipe with several seeds and print one table
  export     write a trained policy and a learned reward as ONNX:         export DIR

COMMAND --help lists the options of a command.
fit --model.help GAIL lists the options of a method; fit --data.help ImitationDataModule those of the data.
fit --config FILE --print_config prints every setting of a run.
"""

TRAINER_COMMANDS = ("fit", "validate", "test", "predict")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one command; an error that the user can fix ends it with a message and exit status 1.

    Args:
        arguments: Command and its options; by default those of the process.
    """
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    if not arguments or arguments[0] in ("-h", "--help"):
        print(USAGE, end="")
        return
    command, *rest = arguments
    # The user's own experts and policy classes are importable from the working directory.
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        if command in TRAINER_COMMANDS:
            from lit_imitation.training.command import run

            run(command, rest)
        elif command == "recipes":
            recipes(rest)
        elif command == "collect":
            collect(rest)
        elif command == "inspect":
            inspect(rest)
        elif command == "repeat":
            repeat(rest)
        elif command == "export":
            export(rest)
        else:
            print(f"lit-imitation: unknown command {command!r}\n\n{USAGE}", end="", file=sys.stderr)
            sys.exit(2)
        sys.stdout.flush()  # so that a closed pipe is noticed here
    except BrokenPipeError:  # the reader of a pipe, such as `head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or the flush at exit would raise again
        sys.exit(128 + signal.SIGPIPE)
    except KeyboardInterrupt:
        print("\nstopped", file=sys.stderr)
        sys.exit(128 + signal.SIGINT)
    except Exception as error:
        user_error = _find_user_error(error)
        if user_error is None:
            raise
        print(f"error: {user_error}", file=sys.stderr)
        sys.exit(getattr(user_error, "exit_status", 1))


def _find_user_error(error: Exception) -> BaseException | None:
    """Find an error of this package in a chain of causes, because the parser wraps errors of constructors.

    Otherwise, an error of the file system that names a file counts, for example a full disk. `None` for other errors.
    """
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, LitImitationError):
        cause = cause.__cause__ or cause.__context__
    if cause is None and isinstance(error, OSError) and error.filename is not None:
        return error
    return cause


def recipes(arguments: Sequence[str]) -> None:
    """List the recipes of the package, or print one."""
    parser = argparse.ArgumentParser(prog="lit-imitation recipes", description=recipes.__doc__, allow_abbrev=False)
    parser.add_argument(
        "recipe",
        nargs="?",
        default="",
        help="recipe to print, like bc/lunar_lander, or part of a name, task or method to list (default: list all)",
    )
    options = parser.parse_args(arguments)

    from lit_imitation.training.recipes import listing, recipe_files

    file = recipe_files().get(options.recipe.removesuffix(".yaml"))
    print(
        listing(options.recipe) if file is None else file.read_text(encoding="utf-8"), end="\n" if file is None else ""
    )


def collect(arguments: Sequence[str]) -> None:
    """Run an expert and save its episodes as demonstrations, or save what a policy saw while it learned."""
    parser = argparse.ArgumentParser(prog="lit-imitation collect", description=collect.__doc__, allow_abbrev=False)
    parser.add_argument("--env_id", default="", help="Gymnasium id, or module:Id-v0; required without --replay")
    parser.add_argument(
        "--replay",
        metavar="DIR",
        default="",
        help="run that recorded its rounds (lit_imitation.RoundRecorder), to save these in place of an expert's",
    )
    parser.add_argument(
        "--steps", type=int, help="with --replay: transitions from the start of training (default: all)"
    )
    parser.add_argument(
        "--expert",
        default="scripted",
        help="scripted, shipped, npz:PATH, checkpoint:PATH, sb3:PATH.zip, package.module:function (default: scripted)",
    )
    parser.add_argument("--episodes", type=int, default=25, help="number of trajectories (default: 25)")
    parser.add_argument("--out", required=True, help="file to write, .npz or .hdf5")
    parser.add_argument(
        "--subsample", type=int, default=1, help="keep every N-th transition of a trajectory (default: 1)"
    )
    parser.add_argument("--seed", type=int, default=0, help="random seed (default: 0)")
    parser.add_argument(
        "--num_envs", type=int, default=10, help="number of environments that step together (default: 10)"
    )
    parser.add_argument(
        "--backend",
        default="auto",
        choices=["auto", "vector", "envpool", "sync", "async"],
        help="how environments run (default: auto)",
    )
    parser.add_argument(
        "--env_kwargs", nargs="+", default=[], metavar="NAME=VALUE",
        help="arguments of the environment, like max_episode_steps=1000",
    )  # fmt: skip
    parser.add_argument(
        "--stochastic", action="store_true", help="sample the expert's actions instead of taking the mode"
    )
    parser.add_argument(
        "--trust",
        default="false",
        choices=["true", "false"],
        help="allow expert files that can execute code (sb3) or name classes outside this package (default: false)",
    )
    options = parser.parse_args(arguments)
    if bool(options.env_id) is bool(options.replay):
        parser.error("give either --env_id, for an expert's episodes, or --replay, for what a learner saw")
    if options.steps is not None and not options.replay:
        parser.error("--steps counts the transitions of a learner: give --replay, or --episodes for an expert's")
    if options.replay:
        _collect_replay(options)
        return

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
        raise ConfigError(f"--out {out}: the file name must end in .npz or .hdf5")
    if options.episodes < 1 or options.subsample < 1:
        raise ConfigError(
            f"--episodes is {options.episodes} and --subsample is {options.subsample}; both must be at least 1"
        )
    env_kwargs = _pairs(options.env_kwargs)
    out.parent.mkdir(parents=True, exist_ok=True)  # fails before the rollout
    with ExitStack() as stack:
        advice = "wait for that process or stop it, or choose another --out"
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
        if options.stochastic:  # policies are evaluated by their mode, so the expert's return is too
            trust = options.trust == "true"
            data = DemonstrationDataModule(
                options.env_id, expert=options.expert, trust=trust, backend=options.backend, env_kwargs=env_kwargs
            )
            metadata = with_return(metadata, data.expert_reference, True)
        demonstrations = Demonstrations(transitions, transitions.episode_returns(), metadata)
        generator = torch.Generator().manual_seed(derive_seed(options.seed, "subsample"))
        demonstrations = subsample(demonstrations, options.subsample, generator)
        write_demonstrations(out, demonstrations, envs.single_observation_space)
    returns = demonstrations.episode_returns
    print(
        f"{out}: {len(returns)} trajectories, {len(demonstrations.transitions)} transitions, "
        f"return {float(returns.mean()):.2f} ± {float(returns.std(correction=0)):.2f}"
    )


def _collect_replay(options: argparse.Namespace) -> None:
    """Save what a learner saw in one file."""
    from lit_imitation.data.demonstrations import write_demonstrations
    from lit_imitation.training.round_recorder import recorded
    from lit_imitation.utils.files import check_local, expand_user

    for name in ("out", "replay"):
        check_local(getattr(options, name), f"--{name}")
    out = expand_user(options.out)
    if out.suffix not in (".npz", ".hdf5", ".h5"):
        raise ConfigError(f"--out {out}: the file name must end in .npz or .hdf5")
    if options.steps is not None and options.steps < 1:
        raise ConfigError(f"--steps is {options.steps}; it must be at least 1")
    demonstrations, observation_space = recorded(expand_user(options.replay), options.steps)
    write_demonstrations(out, demonstrations, observation_space)
    returns = demonstrations.episode_returns
    print(
        f"{out}: {len(returns)} trajectories, {len(demonstrations.transitions)} transitions of a learner, "
        f"return {float(returns.mean()):.2f} ± {float(returns.std(correction=0)):.2f}"
    )


def inspect(arguments: Sequence[str]) -> None:
    """Print what a file of demonstrations holds: keys, shapes, ranges, episodes, returns, and what is wrong."""
    from lit_imitation.training.inspection_report import add_inspect_arguments, run_inspect

    parser = argparse.ArgumentParser(prog="lit-imitation inspect", description=inspect.__doc__, allow_abbrev=False)
    add_inspect_arguments(parser)
    run_inspect(parser.parse_args(arguments))


def _pairs(given: Sequence[str]) -> dict[str, Any]:
    """Parse `NAME=VALUE` arguments into a dictionary; values are YAML, as in a recipe."""
    import yaml

    found: dict[str, Any] = {}
    for pair in given:
        name, equals, value = pair.partition("=")
        if not equals or not name.isidentifier():
            raise ConfigError(f"--env_kwargs {pair}: write NAME=VALUE, like max_episode_steps=1000")
        try:
            found[name] = yaml.safe_load(value)
        except yaml.YAMLError as error:
            raise ConfigError(f"--env_kwargs {pair}: the value is not YAML") from error
    return found


def repeat(arguments: Sequence[str]) -> None:
    """Run a recipe with several seeds and aggregate the results; other options are passed to fit."""
    from lit_imitation.training.repeat import add_repeat_arguments, run_repeat

    parser = argparse.ArgumentParser(prog="lit-imitation repeat", description=repeat.__doc__, allow_abbrev=False)
    add_repeat_arguments(parser)
    run_repeat(*parser.parse_known_args(arguments))


def export(arguments: Sequence[str]) -> None:
    """Write a trained policy, and a learned reward, as files that run without this package."""
    from lit_imitation.training.export import add_export_arguments, run_export

    parser = argparse.ArgumentParser(prog="lit-imitation export", description=export.__doc__, allow_abbrev=False)
    add_export_arguments(parser)
    run_export(parser.parse_args(arguments))

"""The experiments' command line: studies, score tables, rendering and speed comparisons."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence

STUDIES = {
    "horizon": "cost against the length of the task for BC and DAgger",
    "finetune": "past a mediocre expert: PPO from its clone",
    "sample_efficiency": "expert labels against environment steps for BC, DAgger, GAIL and PPO",
    "transfer": "a reward learned in one environment, used in another",
    "multimodal": "demonstrations with several modes, cloned by every kind of policy",
    "inverse_rl": "true and recovered rewards, and how many demonstrations they need",
}
SPEED = {
    "bc": "a gradient step: a bare torch loop, our fit, the imitation library",
    "heads": "policies that plan ahead: a training step against a bare torch loop, and a decision",
    "rollout": "rollouts against the bare environments",
    "dagger": "DAgger on LunarLander against the imitation library",
    "rl": "PPO and SAC against Stable-Baselines3 and the bare environment",
    "rl_scaling": "PPO on two processes against one",
    "adversarial": "GAIL and AIRL against the imitation library",
    "maxent_irl": "maximum-entropy IRL against the imitation library, and up to a million states",
    "commits": "starting up, and a round of PPO, GAIL, AIRL and SAC, against an earlier commit",
}


def study(arguments: Sequence[str]) -> None:
    """Run a study: many small trainings, figures with their numbers, and a page. An interrupted study resumes."""
    parser = _parser("study", study, STUDIES)
    parser.add_argument("--out", required=True, help="folder to write")
    parser.add_argument("--quick", action="store_true", help="a miniature of the study in about a minute, for testing")
    parser.add_argument("--seeds", type=int, help="number of seeds in every part (default: the study's own)")
    parser.add_argument("--tasks", nargs="+", help="for the study of transfer: maze, ant (default: both)")
    parser.add_argument("--jobs", type=int, default=1, help="number of processes (default: 1)")
    options = parser.parse_args(arguments)

    from importlib import import_module

    from lit_imitation.errors import ConfigError, require
    from lit_imitation.utils.files import check_local, expand_user

    _check_counts(options)
    require("matplotlib", "plot", "a study, for its figures,")
    check_local(options.out, "--out")
    module = import_module(f"experiments.studies.{options.name}")
    settings = module.QUICK if options.quick else module.Settings()
    if options.seeds is not None:
        settings = settings.with_seeds(options.seeds)
    if options.tasks is not None:
        if options.name != "transfer":
            raise ConfigError(f"the study {options.name} has no --tasks")
        settings = settings.with_tasks(options.tasks)
    module.run(expand_user(options.out), settings, options.jobs)
    print(f"{options.out}: {options.name}.md, {options.name}.json, and the figures with their numbers")


def table(arguments: Sequence[str]) -> None:
    """Run a score table, or the named rows of it, and store the results. An interrupted table resumes."""
    from experiments import runner

    parser = _parser("table", table, dict.fromkeys(runner.tables(), ""))
    parser.add_argument("rows", nargs="*", help="names or patterns of rows, such as 'gail/*' (default: all)")
    parser.add_argument("--seeds", type=int, help="number of seeds (default: the table's own)")
    parser.add_argument("--jobs", type=int, default=2, help="number of processes (default: 2)")
    parser.add_argument(
        "--rescore", action="store_true", help="train nothing: measure the experts again and rescore the stored returns"
    )
    options = parser.parse_args(arguments)
    _check_counts(options)
    if options.rescore:
        from experiments.rescore import rescore

        rescore(options.name, options.rows)
    else:
        runner.run(options.name, options.rows, options.seeds, options.jobs)


def render(arguments: Sequence[str]) -> None:
    """Write all tables, pages and recipes' comments from the stored results. It trains nothing."""
    _parser("render", render).parse_args(arguments)
    from experiments.render import render as write

    write()


def speed(arguments: Sequence[str]) -> None:
    """Measure speed against other implementations in one run. `speed NAME --help` shows a comparison's options."""
    os.environ["OMP_NUM_THREADS"] = "1"  # before torch is imported
    parser = _parser("speed", speed, SPEED)
    options = parser.parse_args(arguments[:1])

    from importlib import import_module

    if options.name in ("rl", "adversarial", "maxent_irl", "commits") and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})  # one core, before torch starts its threads
    module = import_module(f"experiments.speed.{options.name}")
    sys.argv = [f"python -m experiments speed {options.name}", *arguments[1:]]
    module.main()


COMMANDS: dict[str, Callable[[Sequence[str]], None]] = {
    "study": study,
    "table": table,
    "render": render,
    "speed": speed,
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one command; an error that the user can fix ends it with one message and exit status 1."""
    parser = argparse.ArgumentParser(
        prog="python -m experiments", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("command", choices=COMMANDS, help="; ".join(f"{k}: {v.__doc__}" for k, v in COMMANDS.items()))
    given = list(sys.argv[1:] if arguments is None else arguments)
    command = parser.parse_args(given[:1]).command
    from lit_imitation.errors import LitImitationError

    try:
        COMMANDS[command](given[1:])
    except LitImitationError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)


def _parser(
    command: str, function: Callable[[Sequence[str]], None], names: dict[str, str] | None = None
) -> argparse.ArgumentParser:
    lines = [f"  {name:<20} {text}".rstrip() for name, text in (names or {}).items()]
    parser = argparse.ArgumentParser(
        prog=f"python -m experiments {command}",
        description="\n".join([function.__doc__ or "", "", *lines]),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    if names is not None:
        parser.add_argument("name", choices=list(names), metavar="NAME")
    return parser


def _check_counts(options: argparse.Namespace) -> None:
    from lit_imitation.errors import ConfigError

    if options.jobs < 1 or (options.seeds is not None and options.seeds < 1):
        raise ConfigError("--jobs and --seeds must be at least 1")


if __name__ == "__main__":
    main()

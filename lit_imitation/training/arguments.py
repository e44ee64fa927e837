"""Options of a command line that are read before the parser sees them, and checks of the files they name."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import Any

import yaml

from lit_imitation.errors import ConfigError
from lit_imitation.policies.checkpoints import find_checkpoint, read_checkpoint
from lit_imitation.training.foreign import read_config
from lit_imitation.utils.integrity import check_file
from lit_imitation.utils.trust import refuse_url

NO_CHECKPOINT = "{} needs a trained policy: add --ckpt_path FILE, or --ckpt_path DIR with the directory of a run"


def option(arguments: Sequence[str], name: str) -> str | None:
    """Last value of `--name value` or `--name=value`; `None` if the option is missing."""
    value = None
    for i, argument in enumerate(arguments):
        if argument == name and i + 1 < len(arguments):
            value = arguments[i + 1]
        elif argument.startswith(f"{name}="):
            value = argument.partition("=")[2]
    return value


def flag(arguments: Sequence[str], name: str) -> bool:
    """Value of the option `--name true` or `--name=false`; false if it is missing.

    Raises:
        ConfigError: The value is neither true nor false.
    """
    value = option(arguments, name)
    if value is None and name in arguments:
        value = ""
    if value is not None and value.lower() not in ("true", "false"):
        raise ConfigError(f"{name} is {value!r}; write {name} true or {name} false")
    return value is not None and value.lower() == "true"


def options_with_values(arguments: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Options of a command line with their values; the value is empty if there is none."""
    for i, argument in enumerate(arguments):
        key, equals, value = argument.partition("=")
        if key.startswith("-"):
            yield key, value if equals else "".join(arguments[i + 1 : i + 2])


def add_checkpoint_config(command: str, arguments: list[str]) -> list[str]:
    """Put the checkpoint's configuration first, if the arguments have a checkpoint and no `--config`.

    Raises:
        ConfigError: There is neither a checkpoint nor a `--config`, or the checkpoint has no configuration.
    """
    path = option(arguments, "--ckpt_path")
    given = any(a.split("=")[0] in ("--config", "-c", "--print_config", "--help", "-h") for a in arguments)
    if path is None and not given:
        raise ConfigError(NO_CHECKPOINT.format(command))
    if path is None or given or path in ("last", "best"):
        return arguments
    file = find_checkpoint(path)
    checkpoint = read_checkpoint(file)
    if "config" not in checkpoint:
        raise ConfigError(f"{file} has no configuration; add --config with the recipe of its run")
    config = read_config(checkpoint["config"], file)
    _keep_choices(config, checkpoint)
    return ["--config", yaml.safe_dump(config), *arguments]


def _keep_choices(config: dict[str, Any], checkpoint: dict[str, Any]) -> None:
    """Without an environment, set the spaces with choices to the policy's: other files may lack the last choice."""
    data, policy = config.get("data"), checkpoint.get("policy")
    if not isinstance(data, dict) or not isinstance(policy, dict):
        return
    arguments = data.get("init_args")
    ours = str(data.get("class_path")).endswith(".DemonstrationDataModule")
    if not ours or not isinstance(arguments, dict) or arguments.get("env_id"):
        return
    for name in ("observation_space", "action_space"):
        space = policy.get(name)
        if arguments.get(name) is not None or not isinstance(space, dict):
            continue
        if space.get("type") in ("Discrete", "MultiDiscrete"):
            counts = {key: space[key] for key in ("n", "nvec", "start") if _are_integers(space.get(key))}
            arguments[name] = {"type": space["type"], **counts}


def _are_integers(value: Any) -> bool:
    """Whether a value is a whole number or a list of them."""
    return isinstance(value, int) or (isinstance(value, list) and all(isinstance(one, int) for one in value))


def add_save_dir(arguments: list[str]) -> list[str]:
    """Add a directory, the run's own, for loggers that need one if the arguments give none."""
    logger = (option(arguments, "--trainer.logger") or "").rpartition(".")[2]
    if logger in ("TensorBoardLogger", "CSVLogger") and option(arguments, "--trainer.logger.save_dir") is None:
        return [*arguments, "--trainer.logger.save_dir", "."]
    return arguments


def refuse_urls(arguments: Sequence[str]) -> None:
    """Raise `ConfigError` if data, model, recipe or checkpoint is a URL, or a recipe is not a regular file."""
    for key, value in options_with_values(arguments):
        if "env_kwargs" in key or not key.startswith(("--config", "-c", "--ckpt_path", "--model", "--data")):
            continue
        if not value.lstrip().startswith("{"):
            refuse_url(value, key)
        if key in ("--config", "-c"):
            _check_recipe(value)


def _check_recipe(value: str) -> None:
    if "\n" in value or value.startswith(("/dev/fd/", "/proc/self/fd/")) or not os.path.exists(value):
        return  # YAML text, a pipe of the shell, or a missing file, which the parser reports
    try:
        recipe = yaml.safe_load(check_file(value).read_bytes())
    except (OSError, yaml.YAMLError, ValueError, RecursionError):
        return  # the parser reports this too
    for part in ("model", "data"):
        if isinstance(recipe, dict):
            for key, text in _texts(recipe.get(part), part):
                refuse_url(text, f"{value}: {key}")


def _texts(value: Any, where: str) -> Iterator[tuple[str, str]]:
    """Strings of a recipe that may name files or classes, each with its dotted path."""
    if isinstance(value, dict):
        for key, one in value.items():
            if key != "env_kwargs":
                yield from _texts(one, f"{where}.{key}")
    elif isinstance(value, list):
        for one in value:
            yield from _texts(one, where)
    elif isinstance(value, str):
        yield where, value

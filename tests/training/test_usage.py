"""Explanations of parser errors on one line."""

import textwrap

import pytest

from lit_imitation.errors import UsageError
from lit_imitation.training.usage import explain, list_classes, read_recipes

CALLABLE = "collections.abc.Callable[[gymnasium.spaces.space.Space], lit_imitation.policies.base.Policy]"
TREE = textwrap.dedent(
    f"""\
    Parser key "model":
      Does not validate against any of the Union subtypes
      Subtypes: [<class 'lightning.pytorch.core.module.LightningModule'>, <class 'NoneType'>]
      Errors:
        - Problem with given class_path 'lit_imitation.BC':
            Parser key "policy":
              Does not validate against any of the Union subtypes
              Subtypes: [{CALLABLE}, <class 'NoneType'>]
              Errors:
                - Type {CALLABLE} expects a function or a callable class: CAUSE
                - Expected a <class 'NoneType'>
              Given value type: <class 'str'>
              Given value: VALUE
        - Expected a <class 'NoneType'>
      Given value type: <class 'jsonargparse._util.NestedArg'>
      Given value: NestedArg(key='policy', val='VALUE')
    """
)


@pytest.mark.parametrize(
    ("cause", "line"),
    [
        (
            "Option 'hiden_sizes' is not accepted. Got value: Namespace(class_path='lit_imitation.GaussianPolicy')",
            "model.policy.hiden_sizes: GaussianPolicy has no such option; did you mean hidden_sizes?",
        ),
        ("Expected a dot import path string: Gausian", "there is no class 'Gausian'; did you mean GaussianPolicy?"),
        (
            "Dict must include a class_path, but got NestedArg(key='hidden_sizes', val=[3]). Got value: N(3)",
            "model.policy.hidden_sizes: model.policy has no class yet; put --model.policy CLASS before this option",
        ),
        ("a message of a later version", "model.policy: a message of a later version"),
    ],
)
def test_deepest_leaf_is_the_cause(cause, line):
    text = explain(TREE.replace("CAUSE", cause))
    assert line in text
    assert "\n" not in text


@pytest.mark.parametrize(
    ("message", "line"),
    [
        ("unrecognized arguments: --learning_rate 1", "there is no option learning_rate; did you mean model.learning"),
        ("unrecognized arguments: --env_id=X", "there is no option env_id; did you mean data.env_id?"),
        ("unrecognized arguments: extra", "unexpected argument 'extra'; write options as --name value"),
        ("the following arguments are required: fit.data", "data is missing: add --data CLASS, one of "),
        ("of a\n  form that\n\n  is unknown", "of a form that is unknown"),
        ("", ""),
    ],
)
def test_other_messages_become_one_line(message, line):
    text = explain(message)
    assert text.startswith(line)
    assert "\n" not in text


def test_line_of_recipe_is_named_unless_overridden(tmp_path):
    first, second = tmp_path / "first.yaml", tmp_path / "second.yaml"
    first.write_text("model: BC\ntrainer:\n  max_epochs: x\n")
    second.write_text("data:\n  init_args:\n    seed: 1\n")
    recipes = read_recipes(["--config", str(first), f"--config={second}"])
    message = "Parser key \"trainer.max_epochs\":\n  Expected a <class 'int'>. Got value: x"
    wanted = "trainer.max_epochs is x; it must be a whole number"
    assert explain(message, [], recipes) == f"{wanted} ({first}, line 3)"
    assert explain(message, ["--trainer.max_epochs=x"], recipes) == wanted
    assert explain(message.replace("trainer.max_epochs", "data.seed"), [], recipes).endswith(f"({second}, line 3)")


@pytest.mark.parametrize(
    ("content", "line"),
    [
        (b"model: BC\nmodel: GAIL\n", "r.yaml, line 2: model is already set in line 1"),
        (b"a:\n  init_args:\n    b: 1\n    b: 2\n", "r.yaml, line 4: a.b is already set in line 3"),
        (b"a:\n  - b: {c: 1, c: 2}\n", "r.yaml, line 2: a.b.c is already set in line 2"),
        (b"a: b: c\n", "r.yaml, line 1, column 5: not YAML: mapping values are not allowed here"),
        (b"a: [1\n", "r.yaml, line 2, column 1: not YAML: "),
        (b"\xff\xfe\x00", "r.yaml is not UTF-8 text"),
        (b"", "r.yaml is empty"),
        (b"- 1\n", "r.yaml is a list"),
        (b"text\n", "r.yaml is a single value"),
    ],
)
def test_invalid_recipe_is_named_with_its_line(tmp_path, content, line):
    file = tmp_path / "r.yaml"
    file.write_bytes(content)
    with pytest.raises(UsageError) as error:
        read_recipes(["-c", str(file)])
    assert f"{tmp_path}/{line}" in str(error.value)
    assert "\n" not in str(error.value)


def test_merged_mappings_are_not_duplicates(tmp_path):
    (tmp_path / "r.yaml").write_text("a: &a {b: 1}\nc:\n  <<: *a\n  b: 2\n")
    assert read_recipes(["--config", str(tmp_path / "r.yaml")])[0].lines["c.b"] == 4
    assert read_recipes(["--config", "a: 1\nb: 2", "--config", str(tmp_path), "--config"]) == []


def test_classes_that_train_nothing_are_not_suggested():
    assert "GAIL" in list_classes("model")
    assert "Method" not in list_classes("model")
    assert "ImitationDataModule" in list_classes("data")
    assert "EnvironmentDataModule" not in list_classes("data")

"""`mixlab fields`: what it says of a field is what the field does."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import mixlab
from backends.models import FAMILIES
from backends.models.config import ModelConfig
from experiments.spec import fields, reference
from experiments.spec.config import TrialConfig
from experiments.spec.reference import BY_CONTENT, BY_NAME, BY_RESULT, NOT, FieldRow, comments
from experiments.spec.resolve import resolve
from experiments.spec.trial import Trial

ROWS = {row.name: row for row in reference.rows()}


@pytest.fixture(scope="module")
def trials() -> list[Trial]:
    """A trial of each family."""
    configs = [fields.set_fields(TrialConfig(), {"model.family": family}) for family in FAMILIES]
    return [resolve(config, reference.EXAMPLE, "test") for config in configs]


def changed(trial: Trial, name: str) -> Trial | None:
    """The trial with another value in a field; None: a resolved trial has no value there."""
    try:
        value = fields.get_field(trial, name)
    except AttributeError:
        return None
    if name.startswith("model.") and fields.short(name) not in (f.name for f in dataclasses.fields(trial.model)):
        return None  # a property
    if value is None and name.startswith(("model.", "train.")) and name != "train.init_from":
        return None
    other = not value if isinstance(value, bool) else value + 1 if isinstance(value, (int, float)) else "another"
    other = (*value, 1) if isinstance(value, tuple) else other
    return fields.set_fields(trial, {name: other})  # type: ignore[no-any-return]


def another(field: Any) -> Any:
    """A value of a field that is not its default."""
    if words := field.metadata["allowed"]:
        return next(word for word in words if word != field.default)
    if isinstance(field.default, bool):
        return not field.default
    kind = str(field.type)
    return (2, 1) if "tuple" in kind else 0.25 if "float" in kind else 2


@pytest.mark.parametrize("family", FAMILIES)
def test_what_is_set_comes_into_the_spec_of_the_family(family: str) -> None:
    of, base = FAMILIES[family], {"family": family, **({"depth": (1, 1)} if family == "resnet" else {})}
    for field in dataclasses.fields(of.Config):
        value = another(field)
        spec = of.make(ModelConfig(**base | {field.name: value}), 32, 3, 10)
        assert getattr(spec, field.name) == value, field.name


@pytest.mark.parametrize("row", ROWS.values(), ids=lambda row: row.name)
def test_an_id_changes_with_a_field_if_and_only_if_the_table_says_so(row: FieldRow, trials: list[Trial]) -> None:
    others = [(one, other) for one in trials if (other := changed(one, row.name)) is not None]
    if row.in_id == BY_RESULT:
        assert not others  # what it stands for is in the trial, and it is not
    else:
        assert others and all((other.id != one.id) == (row.in_id == BY_NAME) for one, other in others)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("model.hidden_dim", BY_NAME),
        ("model.variant", BY_RESULT),
        ("train.epochs", BY_RESULT),
        ("train.steps", BY_NAME),
        ("data.source", BY_CONTENT),
        ("data.layout", BY_CONTENT),
        ("data.split_seed", BY_NAME),
        ("data.augment.mixup", BY_NAME),
        ("backend", BY_NAME),
        ("run.threads", NOT),
    ],
)
def test_a_field_acts_on_the_id_as_the_table_says(name: str, said: str) -> None:
    assert ROWS[name].in_id == said


def test_every_field_has_a_row_with_its_default_and_its_comment() -> None:
    assert tuple(ROWS) == fields.names()
    row = ROWS["train.weight_decay"]
    assert (row.default, row.allowed) == ("0", "a number (at least 0, at most 1000)")
    assert row.meaning.startswith("decoupled")
    assert [ROWS[name].default for name in ("run.deterministic", "model.num_blocks", "seed")] == ["true", "null", "0"]
    unsaid = [name for name, row in ROWS.items() if not row.meaning and not row.allowed.startswith(("one of", "true"))]
    assert len(unsaid) < 15  # whose name is all that there is to say
    assert not [name for name, row in ROWS.items() if name.startswith("model.") and not row.meaning]


@dataclass(frozen=True)
class Above:
    """Not a # comment."""

    first: int = 1  # one, e.g. #rrggbb
    second: str = "# no comment"


@dataclass(frozen=True)
class Below(Above):
    third: int = dataclasses.field(
        default=3,  # three
        metadata={"a": "b"},
    )  # and more
    second: str = "2"  # another

    def method(self) -> int:
        first: int = 2  # of a method
        return first


def test_comments_are_those_beside_the_fields_those_of_bases_too() -> None:
    assert comments(Below) == {"first": "one, e.g. #rrggbb", "second": "another", "third": "three and more"}
    assert comments(Above)["second"] == ""


def printed(capsys: pytest.CaptureFixture[str], *words: str) -> list[str]:
    assert mixlab.main(["fields", *words]) == 0
    return [line.split(" | ")[0].removeprefix("| ") for line in capsys.readouterr().out.splitlines()[2:]]


def test_a_section_or_a_field_is_printed_alone(capsys: pytest.CaptureFixture[str]) -> None:
    assert printed(capsys) == list(fields.names())
    assert printed(capsys, "data.augment", "seed") == [
        *(name for name in fields.names() if name.startswith("data.augment.")),
        "seed",
    ]
    assert printed(capsys, "data.augment.crop") == ["data.augment.crop"]


@pytest.mark.parametrize(("word", "hint"), [("modle", "did you mean 'model'?"), ("", "allowed: "), ("model.", "model")])
def test_an_unknown_section_is_refused_with_the_nearest(
    word: str, hint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert mixlab.main(["fields", word]) == mixlab.USER_ERROR
    said = capsys.readouterr().err
    assert f"{word!r} is no field or section" in said and hint in said and len(said) < 350


def test_descriptions_are_read_from_the_code_that_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert comments(TrialConfig)["seed"].startswith("of initial weights")

"""Variables of the environment and home folders in paths: expanded everywhere, or refused; never a folder's name."""

import contextlib
import pwd
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import analysis
from backends.errors import MixlabError
from experiments.design.ablation import load_ablation
from experiments.parity.pair import read_pair, read_pythons
from experiments.spec import fields
from experiments.spec.expand import expand
from tests.conftest import Ended, base, planned, write_yaml
from tests.sources import noise_folder

PATHS = ("data.source", "data.labels_real", "run.compile_cache", "run.data_cache", "train.init_from")


@pytest.fixture(autouse=True)
def variables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("SCRATCH", "/scratch/me")
    monkeypatch.setenv("a_1", "small")
    monkeypatch.setenv("EMPTY", "")
    monkeypatch.setenv("IN_HOME", "~/x")
    monkeypatch.setenv("NESTED", "$SCRATCH")
    monkeypatch.delenv("UNSET", raising=False)


@pytest.mark.parametrize(
    ("text", "expanded"),
    [
        ("$SCRATCH/runs", "/scratch/me/runs"),
        ("${SCRATCH}runs", "/scratch/meruns"),
        ("x/$a_1/y", "x/small/y"),
        ("$SCRATCH:$SCRATCH", "/scratch/me:/scratch/me"),
        ("~", "HOME"),
        ("~/runs", "HOME/runs"),
        ("$HOME/runs", "HOME/runs"),
        ("$IN_HOME/y", "HOME/x/y"),
        ("$NESTED/y", "$SCRATCH/y"),
        ("a~b/~/c", "a~b/~/c"),
        ("cost in $$", "cost in $"),
        ("$$SCRATCH", "$SCRATCH"),
        ("5$", "5$"),
        ("$5 or $-", "$5 or $-"),
        ("data[1]/*?#: \N{SNOWMAN}", "data[1]/*?#: \N{SNOWMAN}"),
        ("digits", "digits"),
        ("", ""),
    ],
)
def test_a_text_is_expanded(tmp_path: Path, text: str, expanded: str) -> None:
    assert expand(text, "x") == expanded.replace("HOME", str(tmp_path / "home"))


def test_the_home_of_a_user_is_that_of_the_system() -> None:
    user = pwd.getpwuid(0)
    assert expand(f"~{user.pw_name}/x", "a") == f"{user.pw_dir}/x"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("$UNSET/runs", "the variable UNSET is not set"),
        ("x/${UNSET}", "the variable UNSET is not set"),
        ("$EMPTY/runs", "the variable EMPTY is empty"),
        ("~nobody_of_this_name/x", "no user 'nobody_of_this_name'"),
        ("${UNSET:-/tmp}/x", "only $NAME, ${NAME} and ~"),
        ("${SCRATCH", "only $NAME, ${NAME} and ~"),
        ("$(whoami)/x", "only $NAME, ${NAME} and ~"),
    ],
)
def test_what_cannot_be_expanded_is_refused(text: str, words: str) -> None:
    with pytest.raises(MixlabError) as caught:
        expand(text, "a.yaml: data.source")
    said = str(caught.value)
    assert said.startswith(f"a.yaml: data.source: {text!r}: ") and words in said and len(said) <= 300


def test_a_home_that_is_not_known_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HOME")
    monkeypatch.setattr("os.path.expanduser", lambda path: path)  # as where the system knows no such user
    with pytest.raises(MixlabError, match="the home folder is not known"):
        expand("~/x", "a")


# --- where it is done ---------------------------------------------------------------------------------------------


def test_paths_alone_are_expanded() -> None:
    read = {}
    for name in fields.names():
        with contextlib.suppress(MixlabError):  # a number
            read |= fields.typed({name: "$SCRATCH"}, "x")
    assert {name for name, value in read.items() if value == "/scratch/me"} == set(PATHS)
    assert {value for name, value in read.items() if name not in PATHS} == {"$SCRATCH"}


@pytest.mark.parametrize("name", PATHS)
def test_a_path_of_a_trial_is_expanded(tmp_path: Path, name: str) -> None:
    path = write_yaml(tmp_path / "one.yaml", base={name: "${SCRATCH}/$a_1"}, grid={"seed": [0]})
    assert load_ablation(path).base[name] == "/scratch/me/small"
    path = write_yaml(tmp_path / "one.yaml", grid={"seed": [0]})
    assert load_ablation(path, [f"{name}=${{SCRATCH}}/$a_1"]).base[name] == "/scratch/me/small"


def test_the_sources_of_an_axis_are_expanded(tmp_path: Path) -> None:
    path = write_yaml(tmp_path / "one.yaml", grid={"data.source": ["$SCRATCH/a", "${SCRATCH}/b", "digits"]})
    assert load_ablation(path).axes == {"data.source": ["/scratch/me/a", "/scratch/me/b", "digits"]}
    again = load_ablation(path, ["data.source=[$SCRATCH/c, ~/d]"])
    assert again.axes == {"data.source": ["/scratch/me/c", str(tmp_path / "home" / "d")]}


@pytest.mark.parametrize("source", ["$UNSET/set", "~nobody_of_this_name/set"])
def test_what_cannot_be_expanded_names_its_field(tmp_path: Path, source: str) -> None:
    path = write_yaml(tmp_path / "one.yaml", base=base(data={"source": source}), grid={"seed": [0]})
    with pytest.raises(MixlabError, match=r"one\.yaml: base: data\.source: "):
        load_ablation(path)


def test_a_base_may_lie_at_home(tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "b.yaml").write_text("train: {steps: 7}\n")
    for name in ("~/b.yaml", "$HOME/b.yaml"):
        path = write_yaml(tmp_path / "one.yaml", base=name, grid={"seed": [0]})
        assert load_ablation(path).base["train.steps"] == 7
    write_yaml(tmp_path / "one.yaml", base="$UNSET/b.yaml")
    with pytest.raises(MixlabError, match=r"one\.yaml: base: '\$UNSET/b\.yaml'"):
        load_ablation(tmp_path / "one.yaml")


def test_a_source_that_was_expanded_is_the_same_trial(tmp_path: Path, cache: Path) -> None:
    noise_folder(tmp_path / "home" / "set")
    given: dict[str, Any] = {key: value for key, value in base().items() if key != "data"}
    path = write_yaml(tmp_path / "one.yaml", base=given, grid={"seed": [0]})
    words = (f"{tmp_path}/home/set", "~/set", "$HOME/set", "${HOME}/set")
    ids = {planned(path, cache, f"data.source={word}")[0].trial.id for word in words}
    assert len(ids) == 1


def test_the_store_of_a_command_is_expanded(tmp_path: Path, run: Callable[..., Ended]) -> None:
    write_yaml(tmp_path / "one.yaml", base=base(), grid={"seed": [0]})
    (tmp_path / "home").mkdir()
    for store in ("~/runs", "$HOME/runs"):
        assert run("plan", "one.yaml", f"--store={store}").code == 0
    assert not (tmp_path / "~").exists() and not (tmp_path / "$HOME").exists()
    for store, words in (("$UNSET/runs", "UNSET is not set"), ("~nobody_of_this_name/runs", "no user")):
        ended = run("plan", "one.yaml", "--store", store)
        assert ended.code == 2 and "store" in ended.err and words in ended.err


@pytest.mark.parametrize("store", ["~/runs", "$HOME/runs"])
def test_a_notebook_may_name_a_store_and_an_ablation_at_home(tmp_path: Path, store: str) -> None:
    (tmp_path / "home").mkdir()
    write_yaml(tmp_path / "home" / "one.yaml", base=base(), grid={"seed": [0, 1]})
    assert list(analysis.load(store, "~/one.yaml")["seed"]) == [0, 1]
    assert (tmp_path / "home" / "runs").is_dir()
    for given in (("$UNSET/runs", "~/one.yaml"), (store, "$UNSET/one.yaml")):
        with pytest.raises(MixlabError, match=r"load: .*: the variable UNSET is not set"):
            analysis.load(*given)


def test_the_interpreter_of_a_side_may_lie_at_home(tmp_path: Path) -> None:
    python = tmp_path / "home" / "env" / "python"
    python.parent.mkdir(parents=True)
    python.write_text("#!/bin/sh\n")
    python.chmod(0o755)
    sides = read_pair("torch,jax")
    for given in ("~/env/python", "$HOME/env/python"):
        assert read_pythons([f"jax={given}"], sides) == {"jax": str(python)}
    with pytest.raises(MixlabError, match=r"--python: '\$UNSET/python': the variable UNSET is not set"):
        read_pythons(["jax=$UNSET/python"], sides)


def test_stores_and_ablations_that_are_named_in_quotes_are_expanded(tmp_path: Path, run: Callable[..., Ended]) -> None:
    (tmp_path / "home" / "runs").mkdir(parents=True)
    write_yaml(tmp_path / "home" / "one.yaml", base=base(), grid={"seed": [0]})
    assert run("report", "~/one.yaml", "--format", "text").code == 0
    ended = run("compare", "~/runs", "$HOME/runs")
    assert ended.code == 0 and ended.out.count(f"{tmp_path}/home/runs: 0") == 2
    for words in (("report", "$UNSET/one.yaml"), ("compare", "$UNSET/runs", "~/runs")):
        ended = run(*words)
        assert ended.code == 2 and "the variable UNSET is not set" in ended.err

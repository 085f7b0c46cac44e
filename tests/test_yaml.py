"""Scalars of YAML are texts that their fields type: nothing becomes another number than it looks like."""

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Optional

import pytest
import yaml

from backends.errors import MixlabError
from backends.specs import option
from experiments.design.ablation import Ablation, load_ablation
from experiments.spec.values import typed
from experiments.spec.yaml_files import parse, read_mapping
from tests.conftest import base, planned, write_yaml

SECTIONS = "base: {model: {hidden_dim: 8, num_blocks: 1}, train: {steps: 4}, data: {source: synthetic}}\n"


@dataclass(frozen=True)
class Spec:
    """A field of each kind."""

    whole: int = option(1, low=-9)
    number: float = option(1.0, high=1e9)
    flag: bool = option(False)
    text: str = option("x")
    word: str = option("a", allowed=("a", "b"))
    maybe: Optional[int] = option(None)
    maybe_text: Optional[str] = option(None)
    words: list[str] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)
    command: str | list[str] = field(default="")


def read(name: str, scalar: str) -> Any:
    """The field of that name, as `name: scalar` in YAML gives it."""
    return typed(Spec, name, parse(f"{name}: {scalar}", "a.yaml")[name], f"a.yaml: {name}")


def sentence(name: str, scalar: str) -> str:
    with pytest.raises(MixlabError) as caught:
        read(name, scalar)
    text = str(caught.value)
    assert text.startswith(f"a.yaml: {name}: ") and len(text.splitlines()) == 1
    return text


# What YAML 1.1 (PyYAML) reads as another number than a reader does; and what it reads.
TWO_READINGS = {
    "010": 8,
    "-017": -15,
    "0123": 83,
    "1_000": 1000,
    "2024_01_05": 20240105,
    "1:00:00": 3600,
    "1:30": 90,
    "-1:30": -90,
    "0x10": 16,
    "0b11": 3,
    "1_0.5": 10.5,
    "1:30.5": 90.5,
}


@pytest.mark.parametrize(("scalar", "by_yaml"), TWO_READINGS.items(), ids=list(TWO_READINGS))
@pytest.mark.parametrize("name", ["whole", "number", "maybe"])
@pytest.mark.parametrize("quotes", ["", "'"])
def test_a_number_that_yaml_reads_otherwise_is_refused_with_both_readings(
    name: str, scalar: str, by_yaml: float, quotes: str
) -> None:
    assert yaml.safe_load(scalar) == by_yaml
    said = sentence(name, f"{quotes}{scalar}{quotes}")
    looks = str(int(scalar)) if scalar.lstrip("-").isdigit() else "text"
    assert scalar in said and f"is {by_yaml} to YAML 1.1 and {looks} to others" in said


def test_a_leading_zero_is_refused_where_yaml_reads_a_text() -> None:
    assert isinstance(yaml.safe_load("08"), str)
    assert "text to YAML 1.1 and 8 to others" in sentence("whole", "08")


@pytest.mark.parametrize(
    "scalar", [*TWO_READINGS, "2024-01-05", "yes", "Off", "08", "1e3", "0o17", "=", ".5", "+5", "<<"]
)
@pytest.mark.parametrize("name", ["text", "maybe_text"])
def test_a_text_stays_as_it_is_written(name: str, scalar: str) -> None:
    found = read(name, scalar)
    assert found == scalar and type(found) is str
    assert read(name, f'"{scalar}"') == scalar


@pytest.mark.parametrize(
    ("name", "scalar", "value"),
    [
        *(("whole", scalar, int(scalar)) for scalar in ("0", "7", "+5", "-3", "20240105")),
        *(("number", scalar, float(scalar)) for scalar in ("0", "7", "+5", "1e3", "1e-3", ".5e3", "5.", "0.1", "01.5")),
        *(("flag", scalar, True) for scalar in ("true", "True", "yes", "on", "ON")),
        *(("flag", scalar, False) for scalar in ("false", "no", "Off")),
        *((name, scalar, None) for name in ("maybe", "maybe_text") for scalar in ("null", "~", "", "Null")),
        ("maybe_text", "'null'", "null"),
        ("maybe", "3", 3),
        ("words", "[010, 'a b', yes]", ["010", "a b", "yes"]),
        ("counts", "{a: 1, no: 2}", {"a": 1, "no": 2}),
        ("command", "uv run python", "uv run python"),
        ("command", "[uv, run, 3]", ["uv", "run", "3"]),
    ],
)
def test_what_has_one_reading_is_read(name: str, scalar: str, value: Any) -> None:
    found = read(name, scalar)
    assert found == value and type(found) is type(value)


@pytest.mark.parametrize(
    ("name", "scalar", "words"),
    [
        ("whole", "2024-01-05", "expected a whole number (at least -9), got 2024-01-05"),
        ("whole", "many", "expected a whole number (at least -9), got 'many'"),
        ("whole", "5.0", "write 5"),
        ("whole", "1e3", "write 1000"),
        ("whole", "0.5", "a whole number"),
        ("whole", "0,1,2", "several values are a list: [0,1,2]"),
        ("whole", "[1]", "expected a whole number (at least -9), got [1]"),
        ("whole", "null", "expected a whole number (at least -9), got null"),
        ("whole", "true", "expected a whole number (at least -9), got true"),
        ("whole", "9" * 5000, "5000 letters"),
        ("whole", "\N{FULLWIDTH DIGIT THREE}", "a whole number"),
        ("maybe", "None", "for none write null"),
        ("number", "1e999", "no float holds"),
        ("number", "1e-999", "no float holds"),
        ("number", ".nan", "a number"),
        ("number", "-.inf", "a number"),
        ("number", "nan", "a number"),
        ("number", "yes", "a number"),
        ("number", "1 000", "a number"),
        ("flag", "1", "expected true or false, got 1"),
        ("flag", "y", "true or false"),
        ("text", "null", "expected text, got null"),
        ("text", "[a]", "expected text, got ['a']"),
        ("text", "{a: 1}", "expected text, got {'a': 1}"),
        ("words", "a b", "a list of text"),
        ("counts", "{a: 010}", "8 to YAML 1.1"),
        ("counts", "3", "a mapping of whole numbers"),
        ("command", "{a: b}", "text or a list of text"),
    ],
)
def test_what_does_not_fit_its_field_is_refused(name: str, scalar: str, words: str) -> None:
    assert words in sentence(name, scalar)


def test_minus_zero_is_zero() -> None:
    for given in (read("number", "-0.0"), read("number", "-0"), typed(Spec, "number", -0.0, "x")):
        assert str(given) == "0.0"


def test_a_value_of_the_right_type_stays_as_it_is() -> None:
    """From JSON, in which a store keeps what was read."""
    spec = Spec(2, 0.5, True, "y", "b", 3, None, ["a"], {"a": 1}, ["b"])
    for name, value in dataclasses.asdict(spec).items():
        assert typed(Spec, name, value, "x") == value
    for name, value in (("whole", 1.0), ("whole", True), ("flag", 1), ("text", 5), ("number", True), ("words", [1])):
        with pytest.raises(MixlabError):
            typed(Spec, name, value, "x")


# --- files --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "place", "words"),
    [
        ("seed: 1\nseed: 2\n", "line 2, column 1", "duplicate key 'seed'"),
        ("a: {b: 1, 'b': 2}\n", "line 1, column 11", "duplicate key 'b'"),
        ("1: a\n'1': b\n", "line 2", "duplicate key '1'"),
        ("a:\n\tb: 1\n", "line 2", "a tab"),
        ("a: 1\n---\nb: 2\n", "line 2", "several documents"),
        ("a: &x [*x]\n", "line 1", "stands inside of what it names"),
        ("[a, b]: 1\n", "line 1, column 1", "expected a text as a key, got a list or a mapping"),
        ("a: !!set {b}\n", "line 1", "'!!set' is not read"),
        ("a: !mine b\n", "line 1", "'!mine' is not read"),
        ("a: !!int x\nb: !!binary aGk=\n", "line 2", "'!!binary'"),
        ("<<: [1]\n", "line 1", "expected a mapping behind '<<'"),
        ("a: [${b}]\n", "line 1", "needs quotes"),
        ("a: *nothing\n", "line 1", "undefined alias"),
        ("a: 'x\n", "line 2", "not YAML"),
        ("a: \0\n", "", "not YAML"),
        ("[" * 5000, "", "too deep"),
        ("a: ${b}\n", "", "'b' not found; a variable of the environment is written $NAME"),
        ("a: ${A:-b}\n", "", "A"),
        ("- a\n", "", "expected a mapping, got a list"),
        ("a\n", "", "expected a mapping, got text"),
    ],
)  # fmt: skip
def test_what_is_no_mapping_of_yaml_is_refused_with_its_place(
    tmp_path: Path, text: str, place: str, words: str
) -> None:
    path = tmp_path / "a.yaml"
    path.write_text(text)
    with pytest.raises(MixlabError) as caught:
        read_mapping(path)
    said = str(caught.value).removeprefix(str(path))
    assert said.startswith((f", {place}", ": ") if place else ": ") and words in said
    assert len(said.splitlines()) == 1 and len(said) <= 300


def test_a_file_of_windows_is_read(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_bytes(b"\xef\xbb\xbfname: a\r\nseed: 1\r\n")
    assert read_mapping(tmp_path / "a.yaml") == {"name": "a", "seed": "1"}
    assert ablation(tmp_path, "\ufeffgrid: {seed: [0]}\n").text == "grid: {seed: [0]}\n"


def test_anchors_and_merges_are_read_and_own_keys_win() -> None:
    text = (
        "a: &a {x: 1, y: 2}\nb: &b {y: 3, z: 4}\nc: {<<: *a, y: 5}\nd: {y: 6, <<: [*a, *b]}\ne: *a\nf: {<<: [*a, *b]}\n"
    )
    tree, plain = parse(text, "x"), yaml.safe_load(text)
    assert tree == {key: {name: str(value) for name, value in one.items()} for key, one in plain.items()}


def test_an_alias_that_doubles_itself_again_and_again_takes_no_time() -> None:
    lines = ["a0: &a0 [x, x]", *(f"a{i}: &a{i} [*a{i - 1}, *a{i - 1}]" for i in range(1, 60))]
    assert parse("\n".join(lines), "x")["a1"] == [["x", "x"], ["x", "x"]]


def test_interpolations_keep_the_text_of_what_they_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEEDS", "011")
    text = "a: 010\nb: ${a}\nc: x${a}\nd: {e: '${oc.env:SEEDS}'}\nf: [null, 2024_01_05]\ng: ${f}\nh: 'lit\\${a}'\n"
    tree = parse(text, "x")
    assert tree["b"] == "010" and repr(tree["b"]) == "010" and tree["c"] == "x010" and tree["d"] == {"e": "011"}
    assert tree["g"] == [None, "2024_01_05"] and tree["h"] == "lit${a}"


def test_a_variable_in_capitals_is_left_to_the_field_that_holds_it() -> None:
    tree = parse("a: 1\nb: ${SCRATCH}/x${a}/${MY_2}\nquestion: What are ${USD}?\n", "x")
    assert tree == {"a": "1", "b": "${SCRATCH}/x1/${MY_2}", "question": "What are ${USD}?"}


# --- ablations ----------------------------------------------------------------------------------------------------


def ablation(folder: Path, text: str, *overrides: str) -> Ablation:
    (folder / "one.yaml").write_text(text)
    return load_ablation(folder / "one.yaml", overrides)


@pytest.mark.parametrize(
    "text",
    [
        "grid: {seed: [010, 011]}\n" + SECTIONS,
        "grid: {setting: [{seed: 010}]}\n" + SECTIONS,
        "grid: {seed: [8]}\nexclude: [{seed: 010}]\n" + SECTIONS,
        "grid: {seed: [1, 2]}\nbase: {train: {steps: 010}}\n",
        "grid: {train.steps: [8]}\nreport: {rows: [train.steps], baseline: {train.steps: 010}}\n" + SECTIONS,
        "grid: {backend: [torch, jax]}\nreport: {equivalence: {margin: 010}}\n" + SECTIONS,
    ],
)
def test_no_number_of_an_ablation_is_octal(tmp_path: Path, text: str) -> None:
    with pytest.raises(MixlabError, match=r"one\.yaml: .*010 is 8 to YAML 1\.1 and 10 to others"):
        ablation(tmp_path, text)


def test_texts_of_an_ablation_stay_as_they_are_written(tmp_path: Path) -> None:
    text = "name: 2024_01_05\nquestion: 1:00:00\ngrid: {data.subset: [010, 'null', null, yes]}\n"
    found = ablation(tmp_path, text + "base: {data: {source: 2024_01_05, train_split: 2024-01-05}}\n")
    assert (found.name, found.question) == ("2024_01_05", "1:00:00")
    assert found.base["data.source"] == "2024_01_05" and found.base["data.train_split"] == "2024-01-05"
    assert found.axes == {"data.subset": ["010", "null", None, "yes"]}


@pytest.mark.parametrize("question", ["", "null", "''"])
def test_a_question_left_empty_is_none(tmp_path: Path, question: str) -> None:
    assert ablation(tmp_path, f"question: {question}\ngrid: {{seed: [0]}}\n").question == ""


def test_a_question_is_a_text(tmp_path: Path) -> None:
    with pytest.raises(MixlabError, match=r"question: expected text, got .*; put it in quotes"):
        ablation(tmp_path, "question: [why]\ngrid: {seed: [0]}\n")


@pytest.mark.parametrize(
    "base",
    [
        "{train.steps: 3, train: {steps: 4}}",
        "{train: {steps: 3}, train.steps: 3}",
        "{data: {augment.crop: 1, augment: {crop: 1}}}",
        "{data.augment: {crop: 1}, data: {augment: {crop: 2}}}",
    ],
)
def test_a_field_that_is_set_twice_is_refused(tmp_path: Path, base: str) -> None:
    with pytest.raises(MixlabError, match=r"(train\.steps|data\.augment\.crop) is set twice"):
        ablation(tmp_path, f"grid: {{seed: [0]}}\nbase: {base}\n")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            "grid: {train.learning_rate: log(1e-3, 1e-2, 3), seed: [0]}",
            ', line 1, column 29: inside of braces write "log(1e-3, 1e-2, 3)" in quotes: a comma ends a value there',
        ),
        ("tune: {over: {train.learning_rate: log(1e-3, 1e-2, 3)}}", 'write "log(1e-3, 1e-2, 3)" in quotes'),
        ("grid: {seed: 0,1,2}", "grid: '1' is not a field of a trial; inside of braces a comma ends a value: several"),
        ("grid: {seed: [0]}\nbase: {train: {learning_rate: 0,5}}", "base: 'train.5' is not a field of a trial; inside"),
        ("grid: {seed: '(0, 1)'}", "several values are a list: [0, 1]"),
        ("grid: {seed: [0]}\nreport: {metric: }", "report: metric: expected a metric, got null"),
        ("grid: {seed: [0]}\nreport: {rows: [null]}", "report: rows: expected the name of a field, got null"),
        ("grid: {seed: [0]}\nreport: {rows: [seed, seed]}", "report: seed is named twice"),
        (
            "grid: {backend: [torch, jax]}\nreport: {rows: [backend], columns: [backend]}",
            "report: backend is named twice",
        ),
        (
            "grid: {seed: [0]}\nname: [a]",
            "name: expected a name for a folder, of letters, digits, '.', '_' and '-', got ['a']",
        ),
    ],
)
def test_a_sentence_shows_what_was_written_and_the_way_out(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(MixlabError) as caught:
        ablation(tmp_path, text)
    assert words in str(caught.value)


LONG = "x" * 1000


@pytest.mark.parametrize(
    "text",
    [
        f"{LONG}: 1\n",
        f"grid: {{{LONG}: [0]}}\n",
        f"grid: {{seed: [{LONG}]}}\n",
        f"grid: {{seed: [0]}}\nbase: {{model.token_mixing: {LONG}}}\n",
        f"name: '{LONG} '\ngrid: {{seed: [0]}}\n",
        f"grid: {{seed: [0]}}\nbase: {{model: {list(range(1000))}}}\n",
        f"grid: {{seed: [0]}}\nbase: {{model: {{{LONG}: 1}}}}\n",
        f"grid: {{seed: [0]}}\nreport: {{metric: {LONG}}}\n",
        f"grid: {{data.subset: [a]}}\nreport: {{rows: [data.subset], baseline: {{data.subset: {LONG}}}}}\n",
        f"grid: {{seed: {list(range(1000))}}}\nreport: {{rows: [seed], baseline: {{seed: 1000}}}}\n",
    ],
)
def test_a_sentence_has_at_most_300_letters(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.chdir(tmp_path)
    Path("one.yaml").write_text(text)
    with pytest.raises(MixlabError) as caught:
        load_ablation(Path("one.yaml"))
    assert len(str(caught.value)) <= 300


@pytest.mark.parametrize("name", ["backend", "data.background", "data.train_split", "data.test_split"])
def test_a_sentence_on_a_word_of_any_length_is_short(tmp_path: Path, cache: Path, name: str) -> None:
    path = write_yaml(tmp_path / "one.yaml", base={**base(), name: LONG}, grid={"seed": [0]})
    with pytest.raises(MixlabError) as caught:
        planned(path, cache)
    assert len(str(caught.value).removeprefix(str(tmp_path))) <= 300

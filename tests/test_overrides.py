"""Words `key=value` of the command line: a text field takes what follows `=` as it is."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from backends.errors import MixlabError
from backends.models.mixer_spec import MixerSpec
from experiments.design.ablation import load_ablation
from experiments.evaluation import read_data
from experiments.spec import fields
from experiments.spec.overrides import read_override
from mixlab import main
from tests.conftest import Ended, base, write_yaml

FREE = ("data.source", "data.subset", "data.train_split", "data.test_split", "data.image_column", "run.data_cache")
# As a shell hands them over.
TEXTS = (
    *("my set #2", "#2", "a # b", "scans: v2", "a: b", "[v2] set", "set [v2]", "data[1]", "x]", "{a}", "{a: 1}", "- a"),
    *("2024_01_05", "010", "1:00:00", "1e3", "yes", "off", "true", "None", "=", "a=b", "?", "*", "*.png", "&a", "!x"),
    *("!!int 5", "@a", "`a`", "%a", "a, b", "a,b", "'a' and 'b'", "it's", '"', "'", " a", "a ", "<<", "|", ">", "a\tb"),
    *("[[a]]", "[a: b]", "[a, b", "[a] [b]", "---", "...", "\N{SNOWMAN}", "null set", "a\\b", "[*a, b]"),
)


def value(word: str) -> Any:
    """What the field holds in the end."""
    name, given = read_override(word, "here")
    return fields.typed({name: given}, "here")[name]


@pytest.mark.parametrize(
    ("word", "words"),
    [
        ("data.augment={inception: tf}", "data.augment.inception=tf"),
        ("data.augment={randaugment: {num: 2}, flip: true}", "data.augment.randaugment.num=2 data.augment.flip=true"),
    ],
)
def test_a_section_of_fields_is_set_field_by_field_by_words_that_work(word: str, words: str) -> None:
    with pytest.raises(MixlabError) as told:
        read_override(word, "here")
    said = str(told.value)
    name = word.partition("=")[0]
    assert said == f"here: {name!r} is not a field of a trial, but a section of them; write {words}"
    for one in words.split():
        value(one)
    with pytest.raises(MixlabError, match=r"did you mean 'data.augment.flip'"):
        read_override("data.augment={flipp: true}", "here")


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("name", FREE)
def test_a_text_is_taken_as_it_is(name: str, text: str) -> None:
    found = value(f"{name}={text}")
    assert found == text and type(found) is str


@pytest.mark.parametrize(
    ("text", "content"),
    [
        ("'data[1]'", "data[1]"),
        ('"data[1]"', "data[1]"),
        ("'[v2]'", "[v2]"),
        ("'[a, b]'", "[a, b]"),
        ("'null'", "null"),
        ("'it''s'", "it's"),
        ('"a\\tb"', "a\tb"),
        ("''", ""),
    ],
)
def test_quotes_around_a_whole_text_fall_away(text: str, content: str) -> None:
    assert value(f"data.subset={text}") == content


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("seed=3", 3),
        ("seed= 3 ", 3),
        ("seed='3'", 3),
        ("train.learning_rate=1e-3", 1e-3),
        ("train.learning_rate=-0.0", 0.0),
        ("model.share_blocks=true", True),
        ("model.share_blocks=off", False),
        ("model.token_mixing=tied", "tied"),
        ("model.num_classes=null", None),
        ("data.subset=null", None),
        ("data.subset=~x", "~x"),
    ],
)
def test_a_value_has_the_type_of_its_field(word: str, expected: Any) -> None:
    found = value(word)
    assert found == expected and type(found) is type(expected)


@pytest.mark.parametrize(
    ("word", "words"),
    [
        ("seed=0,1,2", "seed: expected one value, got '0,1,2'; write a list as 'seed=[0,1,2]'"),
        ("backend=torch,jax", "'backend=[torch,jax]'"),
        ("model.token_mixing=tied,untied", "'model.token_mixing=[tied,untied]'"),
        ("model.share_blocks=true,false", "'model.share_blocks=[true,false]'"),
        ("train.learning_rate=0,5", "'train.learning_rate=[0,5]'"),
        ("seed=(0,1)", "write a list as 'seed=[0,1]'"),
        ("seed=choice(0,1)", "write a list as 'seed=[0,1]'"),
        ("seed='[0,1]'", "several values are a list: [0,1]"),
        ("seed=0..4", "got '0..4'; several values are a list: [0, 1, 2, 3, 4]"),
        ("seed=4..0", "several values are a list: [4, 3, 2, 1, 0]"),
        ("seed=0..99", "several values are a list: [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, ...]"),
        ("seed=range(3)", "a call is not read: write its values, several as a list such as [0, 1]"),
        ("seed=range(0,3)", "a call is not read"),
        ("seed=010", "seed: 010 is 8 to YAML 1.1 and 10 to others"),
        ("seed=1_000", "1000 to YAML 1.1"),
        ("seed=3 # three", "seed: expected a whole number (at least 0), got '3 # three'"),
        ("seed=", "expected a value behind '=', got nothing; for none write seed=null"),
        ("data.source= ", "expected a value behind '=', got nothing"),
        ("seed=null", "expected a whole number (at least 0), got null"),
        ("data.source=null", "expected text, got null"),
        ("data.source=''", "data.source: expected a path, got an empty text"),
        ("run.data_cache=''", "run.data_cache: expected a path or null, got an empty text"),
        ("train.ema_decay=x", "at most 0.99999999)"),
        ("seed=[0,1", "expected a list of YAML such as 'seed=[0, 1]', in quotes, got '[0,1'"),
        ("seed={a: 1}", "expected a whole number (at least 0), got '{a: 1}'"),
        ("seed", "expected key=value, got 'seed'"),
        ("sede=1", "did you mean 'seed'?"),
        ("model={hidden_dim: 8}", "'model' is not a field"),
        ("data.source=[v2]", "write data.source=v2 for the value, or \"data.source='[v2]'\" for the text"),
        ("data.source=[]", "a list of nothing and a text in brackets; write \"data.source='[]'\""),
        ("data.source=[it's]", "\"data.source='[it''s]'\""),
    ],
)
def test_what_can_be_meant_otherwise_is_refused(word: str, words: str) -> None:
    with pytest.raises(MixlabError) as caught:
        value(word)
    said = str(caught.value)
    assert said.startswith("here: ") and words in said and len(said) <= 300


@pytest.mark.parametrize("name", ["x" * 1000, f"data.{'x' * 1000}"])
def test_a_long_word_makes_no_long_sentence(name: str) -> None:
    for word in (name, f"{name}=1", f"seed={name}", f"seed=1,{name}", f"seed=[{name}", f"backend=[{name}]"):
        with pytest.raises(MixlabError) as caught:
            found = value(word)
            fields.typed({"seed": found}, "here")
        assert len(str(caught.value)) <= 300


# --- in an ablation -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("word", "values"),
    [
        ("seed=[0,1,2]", [0, 1, 2]),
        ("seed=[3]", [3]),
        ("seed=[ 0, 1 ]", [0, 1]),
        ("backend=[torch]", ["torch"]),
        ("model.token_mixing=[tied,untied]", ["tied", "untied"]),
        ("data.source=[a,b]", ["a", "b"]),
        ("data.source=['a, b', c d, 010]", ["a, b", "c d", "010"]),
        ("data.subset=[null, a]", [None, "a"]),
        ("data.subset=['[v2]', x]", ["[v2]", "x"]),
        ("train.learning_rate=[1e-3, 0.1]", [1e-3, 0.1]),
    ],
)
def test_a_list_makes_an_axis(tmp_path: Path, word: str, values: list[Any]) -> None:
    path = write_yaml(tmp_path / "one.yaml", grid={"model.num_blocks": [1]}, base=base())
    assert load_ablation(path, [word]).axes[word.partition("=")[0]] == values


def test_a_text_is_the_base_of_all_trials(tmp_path: Path) -> None:
    path = write_yaml(tmp_path / "one.yaml", grid={"seed": [0]}, base=base())
    found = load_ablation(path, ["data.source=[v2] set #3", "data.subset=a, b"])
    assert (found.base["data.source"], found.base["data.subset"]) == ("[v2] set #3", "a, b")
    assert found.axes == {"seed": [0]}


@pytest.mark.parametrize("word", ["--multirun", "-m", "--seed=1"])
def test_a_word_with_dashes_is_told_how_fields_are_set(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], word: str
) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["plan", str(write_yaml(tmp_path / "one.yaml")), word])
    said = capsys.readouterr().err
    assert f"unrecognized arguments: {word}; a field is set as key=value, several values as 'key=[a, b]'" in said


def test_minus_zero_is_the_same_trial(tmp_path: Path, run: Callable[..., Ended]) -> None:
    write_yaml(tmp_path / "one.yaml", base=base(), grid={"seed": [0]})
    ended = [run("plan", "one.yaml", f"train.weight_decay={zero}") for zero in ("0.0", "-0.0", "-0", "0")]
    assert len({one.out.splitlines()[0].split()[0] for one in ended}) == 1 and all(one.code == 0 for one in ended)


def test_long_overrides_do_not_fill_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_yaml(tmp_path / "one.yaml", grid={"seed": [0, 1]}, base=base(), exclude=[{"seed": 0}])
    with pytest.raises(MixlabError) as caught:
        load_ablation(Path("one.yaml"), ["seed=0", f"data.subset={'x' * 500}"])
    assert "exclude takes out every trial" in str(caught.value) and len(str(caught.value)) <= 300


# --- of mixlab evaluate -------------------------------------------------------------------------------------------


MODEL = MixerSpec(8, 1, 2, 4, 8, 1, 4, 32)


@pytest.mark.parametrize("source", ["[a, b]", "[v2]", "runs/lr=0.1/set", "my set=2"])
def test_a_source_that_is_evaluated_is_a_text(source: str) -> None:
    assert read_data([source], MODEL).source == source
    assert read_data([f"data.source={source}"], MODEL).source == source


def test_a_field_of_the_data_that_is_misspelt_is_no_source() -> None:
    with pytest.raises(MixlabError, match=r"data\.source"):
        read_data(["data.sorce=x"], MODEL)

"""What the READMEs say is so: every command works, every table is current, every link leads somewhere."""

import itertools
import re
import shutil
import subprocess
import tomllib
import webbrowser
from importlib.metadata import metadata
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

import mixlab
from backends.models import folds
from experiments.bench import data, limit, step
from experiments.design import archive
from experiments.design.ablation import GridTrial, load_ablation
from experiments.design.trials import trials
from experiments.results.metrics import EXCHANGE_SECONDS, WAIT_SECONDS
from experiments.results.record import RECORD_SCHEMA
from experiments.results.store import Store
from slurm.cluster_file import read_cluster
from tests.conftest import ROOT
from tests.documents import DOCUMENTS, blocks, commands, links, spans, text_of
from tests.kept_models import keep, random_params
from tests.peers import SMALL_MIXER, write_timm
from tests.test_report_files import Bench, record

MAX_LINES = 160  # of the README
MAX_ROOM_LINES = 160  # of the others: a screen or two, and a table
LANGUAGES = {"bash", "yaml", "bibtex", ""}
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
EXTRAS = PYPROJECT["project"]["optional-dependencies"]
INDEXES = {"https://download.pytorch.org/whl/cpu"}  # beside the default one
OFFICIAL = ROOT / "tests" / "fixtures" / "official_mixer_small.npz"
ON_A_CLUSTER = ("cluster", "submit", "logs", "retry", "cancel")  # tests/test_readmes_slurm.py runs them
# Commands that are neither Mixlab's, nor make's, nor pip's: what the shell itself or a file of the testbed does.
SHELL = {
    ("python3", "-m", "venv", ".venv"),
    ("source", ".venv/bin/activate"),
    ("python3", "-m", "venv", "jax-env"),
    ("source", "jax-env/bin/activate"),
    ("source", "/tmp/mixlab-slurm-$(id", "-u)/env.sh"),
    ("git", "clone", "REPOSITORY", "mixlab"),
    ("cd", "mixlab"),
}
DATA = {  # what a reader has, and its stand-in here
    "data.source=path/to/cifar10": ["data.source=synthetic", "data.num_examples=6000", "data.image_size=8"],
    "path/to/cifar10": ["synthetic", "data.num_examples=40"],
    "path/to/imagenet": ["synthetic", "data.num_classes=7", "data.num_examples=40"],
}
QUICKLY = {"backend": "quick", "seed": "0", "train.steps": "2", "train.warmup_steps": "0"}  # fields of a run


def test_the_readme_and_those_of_the_rooms_are_of_a_size_to_read() -> None:
    assert {"README.md", ".github/CONTRIBUTING.md"} < set(DOCUMENTS) and len(DOCUMENTS) >= 6
    assert len(text_of("README.md").splitlines()) <= MAX_LINES
    assert [name for name in DOCUMENTS if len(text_of(name).splitlines()) > MAX_ROOM_LINES] == []


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_link_leads_to_a_file(document: str) -> None:
    assert [link for link in links(document) if not (ROOT / link).exists()] == []


def test_the_readme_leads_to_every_shipped_ablation_and_every_room() -> None:
    shipped = {path.relative_to(ROOT).as_posix() for path in (ROOT / "experiments" / "ablations").glob("*.yaml")}
    rooms = {name for name in DOCUMENTS if name != "README.md" and Path(name).name in ("README.md", "CONTRIBUTING.md")}
    assert shipped | rooms <= set(links("README.md"))


def test_every_other_page_is_led_to_by_its_room() -> None:
    others = [name for name in DOCUMENTS if Path(name).name not in ("README.md", "CONTRIBUTING.md")]
    assert [name for name in others if name not in links(f"{Path(name).parent}/README.md")] == []


def test_the_version_that_is_cited_is_that_of_the_project() -> None:
    (cited,) = blocks("README.md", "bibtex")
    assert f"version = {{{PYPROJECT['project']['version']}}}" in cited


# --- commands ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_command_of_a_document_is_of_a_kind_that_is_tested(document: str) -> None:
    unknown = [words for words in commands(document) if words[0] not in ("mixlab", "make", "pip")]
    assert [words for words in unknown if tuple(words) not in SHELL] == []
    languages = set(re.findall(r"^```(\w*)$", text_of(document), re.MULTILINE))
    assert languages <= LANGUAGES  # a block of another name would escape
    plain = [line for block in blocks(document, "") for line in block.splitlines()]
    assert [line for line in plain if re.match(r"[$>] |(mixlab|make|pip|git|python3?) ", line)] == []


@pytest.mark.parametrize("document", DOCUMENTS)
def test_commands_within_the_text_name_what_there_is(document: str, capsys: pytest.CaptureFixture[str]) -> None:
    for words in (span.split() for span in spans(document)):
        if words[0] == "make" and len(words) > 1:
            check_target(words[1])
        if words[0] == "mixlab" and len(words) > 1:
            with pytest.raises(SystemExit):
                mixlab.main([words[1], "--help"])
            help_text = capsys.readouterr().out
            options = [word for word in words if word.startswith("--")]
            assert help_text and [word for word in options if word not in help_text] == [], words


def check_target(name: str) -> None:
    rules = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert name in rules or (name == "parity-float64" and "parity" in rules)


@pytest.mark.parametrize("document", DOCUMENTS)
def test_make_knows_its_targets(document: str) -> None:
    for words in (words for words in commands(document) if words[0] == "make"):
        done = subprocess.run([*words, "--dry-run"], cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("document", DOCUMENTS)
def test_what_pip_installs_is_declared(document: str) -> None:
    pins = dict(line.split("==") for line in (ROOT / "constraints.txt").read_text().splitlines() if "==" in line)
    for words in (words for words in commands(document) if words[0] == "pip"):
        assert words[1] == "install"
        for option, value in itertools.pairwise(words):
            assert option != "-c" or (ROOT / value).exists()
            assert option != "--index-url" or value in INDEXES
            assert option != "-e" or set(re.fullmatch(r"\.\[(.+)\]", value)[1].split(",")) <= set(EXTRAS)  # type: ignore[index]
        pinned = [word.split("==") for word in words if "==" in word]
        assert [name for name, version in pinned if pins[name] != version] == []


@pytest.mark.parametrize("extra", [name for name in EXTRAS if name.startswith("jax-")])
def test_an_extra_for_an_accelerator_is_one_of_jax(extra: str) -> None:
    own, of_jax = EXTRAS[extra]
    assert own == "mixlab[jax]"
    assert re.fullmatch(r"jax\[(\w+)\]", of_jax)[1] in (metadata("jax").get_all("Provides-Extra") or [])  # type: ignore[index]


def test_a_clone_holds_what_make_needs(tmp_path: Path) -> None:
    if not (ROOT / ".git").exists():
        pytest.skip("not a git repository")
    (clone,) = [words for words in commands("README.md") if words[0] == "git"]
    words = [str(ROOT) if word == "REPOSITORY" else word for word in clone]
    subprocess.run(words, cwd=tmp_path, check=True, capture_output=True)
    done = subprocess.run(
        ["make", "--dry-run", "demo", "test"], cwd=tmp_path / "mixlab", capture_output=True, text=True
    )
    assert done.returncode == 0 and "mixlab run experiments/ablations/demo.yaml" in done.stdout


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, quick: Path) -> Path:
    """The folder in which a reader types: the repository's files, and a store after `make demo`."""
    for name in ("experiments/ablations", "experiments/bases", "experiments/parity", "slurm/clusters"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).symlink_to(ROOT / name)
    (tmp_path / "path" / "to" / "their" / "runs").mkdir(parents=True)
    np.save(tmp_path / "images.npy", np.zeros((2, 32, 32, 3), np.uint8))
    (tmp_path / "my_cluster.yaml").write_text(cluster_of_the_readme())
    shutil.copy(OFFICIAL, tmp_path / "Mixer-B_16.npz")
    write_timm(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(webbrowser, "open", lambda address: True)
    for part in (data, limit, step):
        monkeypatch.setattr(part, "TURN_S", 0.05)
    store, demo = Store(Path("runs")), load_ablation(Path("experiments/ablations/demo.yaml"))
    planned = trials(demo, store.data)
    for one in planned:
        store.finish(one.trial.id, {"schema": RECORD_SCHEMA, "id": one.trial.id, **record(0.9)})
    keep(store, planned[0].trial, random_params(planned[0].trial), **record(0.9))  # `make demo` keeps those of all
    archive.keep(store, demo, planned)
    return tmp_path


def typed(words: list[str]) -> list[str]:
    """A command of Mixlab's, made one of seconds, with stand-ins for what a reader has."""
    words = [part for word in words[1:] for part in DATA.get(word, [word])]
    words = [file for word in words for file in (sorted(map(str, Path().glob(word))) if "*" in word else [word])]
    named = {word.partition("=")[0] for word in words}
    if words[0] == "run":
        quickly = {name: value for name, value in QUICKLY.items() if name not in named}
        if "train.epochs" in named:
            del quickly["train.steps"]
        words += [f"{name}={value}" for name, value in quickly.items()]
    if words[0] == "parity":
        words += ["--steps", "2", "model.num_blocks=1", "model.hidden_dim=8", "data.image_size=8"]
    if words[:2] == ["bench", "grid"]:
        words += ["model.num_blocks=1", "train.steps=2", "train.warmup_steps=1", "train.batch_size=8"]
        words += ["data.num_examples=200"]
    elif words[:2] == ["bench", "tokens"]:
        words += ["--sizes", "8,16", "--rounds", "1", "--backend", "torch", *SMALL_MIXER]
    elif words[:2] == ["bench", "data"]:
        words += ["train.batch_size=8", "--rounds", "1"]
    elif words[0] == "bench":
        words += ["--rounds", "1", "--backend", "torch", *(SMALL_MIXER if words[1] == "step" else [])]
    return words


@pytest.mark.usefixtures("desk")
@pytest.mark.parametrize("document", [name for name in DOCUMENTS if commands(name)])
def test_the_commands_of_a_document_work_in_their_order(
    document: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    submitted = False
    for line in (words for words in commands(document) if words[0] == "mixlab"):
        words = typed(line)
        submitted = submitted or words[0] == "submit"
        if words[0] in ON_A_CLUSTER or (submitted and words[0] == "status"):
            with monkeypatch.context() as here:
                here.setenv("PATH", str(tmp_path))
                assert mixlab.main(words) == mixlab.USER_ERROR, words  # understood; here there is no cluster
            said = capsys.readouterr().err
            assert ("slurm: " if words[0] in ("cluster", "submit") else "store: ") in said, (words, said)
        else:
            assert mixlab.main(words) == 0, (words, capsys.readouterr().err)


# --- examples and tables ----------------------------------------------------------------------------------------------


def expand(text: str, folder: Path) -> list[GridTrial]:
    """The trials of an example as if it stood among the ablations."""
    path = folder / "example.yaml"
    path.write_text(text.replace("../bases", str(ROOT / "experiments" / "bases")))
    return trials(load_ablation(path), folder)


def example(document: str, begins: str) -> str:
    return next(block for block in blocks(document, "yaml") if block.startswith(begins))


def cluster_of_the_readme() -> str:
    return example("README.md", "partition:")


def test_the_example_of_the_readme_is_an_ablation(tmp_path: Path) -> None:
    assert len(expand(example("README.md", "name:"), tmp_path)) == 2 * 2 * 3


def test_the_example_of_all_keys_makes_the_grid_that_it_says(tmp_path: Path) -> None:
    found = expand(example("experiments/design/README.md", "name: wide"), tmp_path)
    of_one_seed = [one for one in found if one.trial.seed == 0]
    assert [(one.settings["axis.mixing"], one.settings["train.learning_rate"]) for one in of_one_seed] == [
        *[(name, rate) for name in ("tied", "untied") for rate in (0.0005, 0.001, 0.002)],
        *[("four", 0.001), ("four", 0.002)],
    ]
    assert {(one.trial.model.tokens_mlp_dim, one.trial.train.steps) for one in found} == {(4, 300)}
    counts = {one.settings["axis.mixing"]: folds.count(one.trial.model) for one in found}
    assert all(abs(count / counts["tied"] - 1) <= 0.01 for count in counts.values()) and len(set(counts.values())) > 1


def test_the_cluster_files_are_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCRATCH", "/scratch/me")
    monkeypatch.setenv("USER", "me")
    path = tmp_path / "cluster.yaml"
    path.write_text(cluster_of_the_readme())
    assert read_cluster(path).needs("jax").time == 30 and len(yaml.safe_load(cluster_of_the_readme())) == 4
    path.write_text(example("slurm/README.md", "time:"))
    found = read_cluster(path)
    assert (found.needs("jax").time, found.store, len(found.when)) == (90, "/scratch/me/runs", 3)


@pytest.mark.usefixtures("desk")
def test_the_table_of_the_readme_is_laid_out_as_the_demo_prints_it(capsys: pytest.CaptureFixture[str]) -> None:
    """Its numbers are those of `make demo`, which takes minutes; these trials are written by hand."""
    (shown,) = [block.splitlines() for block in blocks("README.md", "") if block.startswith("demo: ")]
    assert mixlab.main(["report", "demo", "--format", "text"]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert [line for line in shown[:3] if line not in printed] == []
    head, rows = printed.index(""), shown.index("")
    assert shown[rows + 1].split() == printed[head + 1].split()
    assert [line.split()[:2] for line in shown[rows + 3 : rows + 7]] == [
        line.split()[:2] for line in printed[head + 3 : head + 7]
    ]
    assert shown[rows + 7] == "" and shown[-1].startswith("Differences: ")  # as of trials that keep predictions


def test_the_difference_that_the_readme_quotes_is_in_the_committed_table() -> None:
    table = (ROOT / "analysis" / "results" / "cifar10" / "tying" / "table.md").read_text()
    quoted = re.findall(r"[-+]\d+\.\d+ points \[[^]]+\]", text_of("README.md"))
    assert len(quoted) == 1 and quoted[0] in table
    (alternative,) = re.findall(r"!\[([^]]+)\]", text_of("README.md"))
    assert quoted[0].split()[0].removeprefix("+") in alternative


def test_the_trial_that_the_readme_shows_is_one_of_the_demo(tmp_path: Path) -> None:
    (shown,) = [words[2] for words in commands("README.md") if words[:2] == ["mixlab", "show"]]
    demo = trials(load_ablation(ROOT / "experiments" / "ablations" / "demo.yaml"), tmp_path)
    assert sum(one.trial.id.startswith(shown) for one in demo) == 1


def test_the_table_of_fields_is_what_mixlab_fields_prints(capsys: pytest.CaptureFixture[str]) -> None:
    assert mixlab.main(["fields"]) == 0
    assert capsys.readouterr().out in text_of("experiments/fields.md"), "put in the table that `mixlab fields` prints"


def test_the_columns_of_the_tidy_frame_are_those_of_a_frame(tmp_path: Path, cache: Path) -> None:
    table = text_of("analysis/README.md").partition("| column |")[2].partition("\n\n")[0]
    named = {name for row in table.splitlines() for span in re.findall(r"`([^`]+)`", row.split(" | ")[0]) for name in
             alternatives(span)}  # fmt: skip
    grid = {"setting": [{"model.num_blocks": 2}], "seed": [0]}
    trained = record(0.5)
    trained["seconds"] |= {WAIT_SECONDS: 0.1}  # of a trial that reads its pixels as it trains
    trained["seconds"] |= {EXCHANGE_SECONDS: 0.1}  # of one on several devices
    frame = Bench(tmp_path, cache, grid=grid, report={}).put(trained).report().frame
    sections = tuple(name.removesuffix("*") for name in named if name.endswith("*"))
    assert {name for name in frame if not name.startswith(sections)} == {n for n in named if not n.endswith("*")}
    assert [section for section in sections if not any(name.startswith(section) for name in frame)] == []


def alternatives(span: str) -> list[str]:
    """`a.{b,c}` as a.b and a.c."""
    match = re.search(r"\{([^}]+)\}", span)
    if match is None:
        return [span]
    return [name for word in match[1].split(",") for name in alternatives(span.replace(match[0], word, 1))]


def test_what_contributing_names_is_there() -> None:
    table = text_of(".github/CONTRIBUTING.md").partition("| for |")[2].partition("\n\n")[0]
    paths = [span for span in re.findall(r"`([^`]+)`", table) if "/" in span]
    assert len(paths) >= 20 and [path for path in paths if not (ROOT / path).exists()] == []


def test_the_workflow_runs_lint_and_tests() -> None:
    (path,) = (ROOT / ".github" / "workflows").glob("*.yml")
    workflow: Any = yaml.safe_load(path.read_text())
    steps = [step for job in workflow["jobs"].values() for step in job["steps"]]
    made = [step["run"].split()[1:] for step in steps if step.get("run", "").startswith("make ")]
    assert made == [["lint", "test"]]
    for name in made[0]:
        check_target(name)
    assert all(job["runs-on"] == "ubuntu-latest" for job in workflow["jobs"].values())

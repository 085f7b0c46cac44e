"""Who imports what: commands that do not train are quick on a login node, and frameworks stay in their folders."""

import ast
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import MIXLAB, ROOT, TIMEOUT_S, base, environment, records, write_yaml

FRAMEWORKS = ("torch", "jax", "jaxlib", "flax", "optax")
HEAVY = (*FRAMEWORKS, "datasets")  # the library of data sets, which digits do not need
HELP_NEEDS_NONE = (*HEAVY, "numpy", "pandas", "scipy", "matplotlib", "omegaconf", "yaml", "rich", "safetensors")
PACKAGES = ("analysis", "backends", "experiments", "mixlab", "slurm")
SOURCES = [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]
EXAMPLE = str(ROOT / "slurm" / "clusters" / "example.yaml")
REFUSED = ("nowhere.yaml", "submit", "cluster", "logs", "cancel", "retry")  # without a cluster, and nothing submitted
OFFICIAL = "tests/fixtures/official_mixer_small.npz"

PROBE = """
import sys
import mixlab
try:
    code = mixlab.main(sys.argv[1:])
except SystemExit as ended:
    code = ended.code or 0
print("modules:", *sorted(name for name in sys.modules if "." not in name))
sys.exit(code)
"""


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an ablation on digits for both frameworks, and a trial in its store."""
    folder = tmp_path_factory.mktemp("imports")
    digits = base(data={"source": "digits", "image_size": None, "image_channels": None})
    write_yaml(folder / "digits.yaml", base=digits, grid={"backend": ["torch", "jax"]})
    (folder / "runs" / "trials" / "3f9c00000000").mkdir(parents=True)
    return folder


@pytest.mark.parametrize(
    "arguments",
    [
        ("--help",),
        ("run", "--help"),
        ("plan", "digits.yaml"),
        ("run", "digits.yaml", "--dry-run"),
        ("status",),
        ("status", "digits.yaml"),
        ("report", "digits.yaml"),
        ("report", "digits.yaml", "--format", "json"),
        ("export", "digits.yaml", "--to", "tensorboard", "exported"),
        ("show", "3f9c"),
        ("submit", "digits.yaml", "--cluster", EXAMPLE),
        ("logs", "digits"),
        ("cancel", "digits"),
        ("retry", "digits"),
        ("cluster", "check", EXAMPLE),
        ("plan", "nowhere.yaml"),
        ("weights", "inspect", OFFICIAL),
        ("weights", "convert", OFFICIAL, "timm.safetensors", "--to", "timm"),
        ("weights", "convert", OFFICIAL, "own.safetensors"),
        ("weights", "inspect", "own.safetensors"),
    ],
    ids=" ".join,
)
def test_a_command_that_does_not_train_imports_no_framework(store: Path, arguments: tuple[str, ...]) -> None:
    words = [str(ROOT / word) if word == OFFICIAL else word for word in arguments]
    command = [sys.executable, "-c", PROBE, *words]
    ended = subprocess.run(command, cwd=store, env=environment(), capture_output=True, text=True)
    assert ended.returncode == (2 if any(word in REFUSED for word in arguments) else 0), ended.stderr
    modules = ended.stdout.splitlines()[-1].split()
    assert modules[0] == "modules:" and "mixlab" in modules
    assert [name for name in (HELP_NEEDS_NONE if "--help" in words else HEAVY) if name in modules] == []


def imported(path: Path) -> set[str]:
    """Top-level names of what a file imports, anywhere in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            found.add(node.module or "")
        elif isinstance(node, ast.Call) and getattr(node.func, "attr", getattr(node.func, "id", "")) in (
            "import_module",
            "__import__",
        ):
            found |= {str(word.value) for word in node.args if isinstance(word, ast.Constant)}
    return found


@pytest.mark.parametrize("path", SOURCES, ids=[str(path.relative_to(ROOT)) for path in SOURCES])
def test_frameworks_are_imported_in_their_folders_alone(path: Path) -> None:
    own = {"torch": ("torch",), "jax": ("jax", "jaxlib", "flax", "optax")}
    folder = path.relative_to(ROOT).parts[1] if path.relative_to(ROOT).parts[0] == "backends" else ""
    allowed = own.get(folder, ())
    names = imported(path)
    assert [
        name for name in names if name.partition(".")[0] in FRAMEWORKS and name.partition(".")[0] not in allowed
    ] == []
    others = [f"backends.{name}" for name in own if name != folder]
    assert [name for name in names if name.startswith(tuple(others))] == []


def test_layers_import_downwards_only() -> None:
    below = {
        "backends": {"backends"},
        "experiments": {"backends", "experiments"},
        "analysis": {"backends", "experiments", "analysis"},
        "slurm": {"backends", "experiments", "slurm"},
        "mixlab": {*PACKAGES},
    }
    for path in SOURCES:
        package = path.relative_to(ROOT).parts[0]
        ours = {name.partition(".")[0] for name in imported(path)} & {*PACKAGES, "tests"}
        assert ours <= below[package], f"{path.relative_to(ROOT)} imports {ours - below[package]}"


def test_all_packages_come_from_one_root() -> None:
    script = f"import importlib; print(*(importlib.import_module(name).__file__ for name in {PACKAGES}))"
    command = [sys.executable, "-c", script]
    ended = subprocess.run(command, cwd=ROOT, env=environment(), capture_output=True, text=True, check=True)
    assert {Path(file).parent.parent for file in ended.stdout.split()} == {ROOT}


def test_a_copy_of_the_tree_runs_itself(tmp_path: Path) -> None:
    """A job starts from a snapshot: what is installed elsewhere must not creep in."""
    for name in PACKAGES:
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    script = f"import importlib; print(*(importlib.import_module(name).__file__ for name in {PACKAGES}))"
    command = [sys.executable, "-c", script]
    variables = environment(PYTHONPATH=str(tmp_path))
    ended = subprocess.run(command, cwd=ROOT, env=variables, capture_output=True, text=True, check=True)
    assert all(Path(file).is_relative_to(tmp_path) for file in ended.stdout.split())


def test_a_copy_of_the_project_trains_with_its_own_code_and_not_with_the_installed_one(tmp_path: Path) -> None:
    """The record's loss shows a change that only the copy has."""
    copy = tmp_path / "copy"
    for name in ("analysis", "backends", "experiments", "mixlab"):
        shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    plan = copy / "experiments" / "training" / "plan.py"
    changed = plan.read_text().replace("train.learning_rate * rising", "0.0 * rising")
    assert changed != plan.read_text()
    plan.write_text(changed)
    write_yaml(tmp_path / "one.yaml", base=base(), grid={"seed": 0, "backend": "torch"})
    command, variables = [*MIXLAB, "run", "one.yaml", "--store", "runs"], environment(PYTHONPATH=str(copy))
    subprocess.run(command, cwd=tmp_path, env=variables, check=True, capture_output=True, timeout=TIMEOUT_S)
    (record,) = records(tmp_path / "runs").values()
    losses = [point["train"]["loss"] for point in record["curve"]]
    assert len(losses) > 1 and len(set(losses)) == 1  # with a rate of 0 nothing is learnt

"""A first ablation: from answers to a few questions, or like one that Mixlab ships."""

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

import backends
from backends.errors import MixlabError, choices
from experiments.design import axes, grid
from experiments.design.ablation import load_ablation
from experiments.design.report_spec import BACKEND, SEED
from experiments.spec import fields
from experiments.spec.values import shown
from experiments.spec.yaml_files import parse, read_text

SHIPPED = Path(__file__).parent.parent / "ablations"
BASES = Path(__file__).parent.parent / "bases"
WHERE = "answer"
BASE = re.compile(r"(?<=base: )\.\./bases/(?=\w)")


@dataclass(frozen=True)
class Answers:
    """What an ablation is made from."""

    question: str
    field: str  # that is compared
    values: list[Any]  # of the field's type; the first is the baseline
    base: str
    source: str  # of the data
    frameworks: list[str]
    seeds: int


@dataclass(frozen=True)
class Question:
    """A question, and how its answer is read; that raises a MixlabError if the answer cannot be used."""

    name: str  # of the Answers
    text: str
    default: str
    read: Callable[[str, Mapping[str, Any]], Any]  # with the answers before it
    follows: str = ""  # a field: only where it is compared the default means something

    def default_after(self, given: Mapping[str, Any]) -> str:
        """The default after these answers; empty: there is none."""
        return self.default if self.follows in ("", given.get("field")) else ""


def _text(answer: str, given: Mapping[str, Any]) -> str:
    if not answer.strip():
        raise MixlabError(f"{WHERE}: expected text, got nothing")
    return answer.strip()


def _field(answer: str, given: Mapping[str, Any]) -> str:
    name = answer.strip()
    fields.check_name(name, WHERE)
    grid.check_varies(name, WHERE)
    if name in (SEED, BACKEND):
        raise MixlabError(f"{WHERE}: {name} is asked for below; name another field")
    return name


def _values(answer: str, given: Mapping[str, Any]) -> list[Any]:
    is_list = axes.read_call(answer, given["field"]) is None
    written = parse(answer if answer.strip().startswith("[") else f"[{answer}]", WHERE) if is_list else answer
    found = axes.values(written, given["field"], WHERE)
    if len(found) < 2 or len(set(found)) < len(found):
        raise MixlabError(f"{WHERE}: expected two different values or more, such as tied, untied, got {shown(answer)}")
    return found


def _base(answer: str, given: Mapping[str, Any]) -> str:
    names = [path.stem for path in sorted(BASES.glob("*.yaml"))]
    if answer.strip() not in names:
        raise MixlabError(f"{WHERE}: {shown(answer)} is no base; {choices(answer, names)}")
    return answer.strip()


def _frameworks(answer: str, given: Mapping[str, Any]) -> list[str]:
    found = re.split(r"[,\s]+", answer.strip())
    for name in found:
        backends.check(name)
    return list(dict.fromkeys(found))


def _seeds(answer: str, given: Mapping[str, Any]) -> int:
    if not re.fullmatch(r"[1-9][0-9]{0,2}", answer.strip()):
        raise MixlabError(f"{WHERE}: expected a number of seeds from 1 to 999, got {shown(answer)}")
    return int(answer)


QUESTIONS = (
    Question("question", "What is the question?", "Does untying the token-mixing MLP help?", _text),
    Question("field", "Which field is compared? (mixlab fields lists them)", "model.token_mixing", _field),
    Question(
        "values", "Which values has it? The first one is the baseline", "tied, untied", _values, "model.token_mixing"
    ),
    Question("base", f"Which base? ({', '.join(path.stem for path in sorted(BASES.glob('*.yaml')))})", "small", _base),
    Question("source", "Which data? (digits, synthetic, a folder, or the id of a data set)", "digits", _text),
    Question("frameworks", "Which frameworks?", "torch, jax", _frameworks),
    Question("seeds", "How many seeds?", "5", _seeds),
)


def text(answers: Answers, path: Path) -> str:
    """The YAML of an ablation."""
    listed = [_written(value) for value in answers.values]
    base = os.path.relpath(BASES / f"{answers.base}.yaml", path.absolute().parent)
    lines = [
        f"name: {_name(path)}",
        f"question: {_written(answers.question)}",
        f"base: {_written(base)}   # what it and the lines below leave out has a default: mixlab fields",
        f"data.source: {_written(answers.source)}",
        "grid:",
        f"  {answers.field}: [{', '.join(listed)}]",
        f"  backend: [{', '.join(answers.frameworks)}]",
        f"  seed: [{', '.join(map(str, range(answers.seeds)))}]",
        "report:",
        f"  rows: [{answers.field}]",
        *(["  columns: [backend]"] if len(answers.frameworks) > 1 else []),
        f"  baseline: {{{answers.field}: {listed[0]}}}",
    ]
    return "\n".join(lines) + "\n"


def _written(value: Any) -> str:
    """A value as a scalar of YAML inside of brackets, in quotes where it needs them."""
    if isinstance(value, float):
        return repr(value)
    dumped = yaml.safe_dump([value], default_flow_style=True, allow_unicode=True, width=10**6)
    return dumped.strip()[1:-1]


def _name(path: Path) -> str:
    """A name for the ablation, which names a folder of the store."""
    return re.sub(r"[^A-Za-z0-9_.-]+", "_", path.stem).lstrip("_.-") or "first"


def shipped() -> list[str]:
    """Names of the ablations in the folder of those that Mixlab ships; a user's own may be among them."""
    return [path.stem for path in sorted(SHIPPED.glob("*.yaml"))]


def like(name: str, path: Path) -> str:
    """The text of a shipped ablation, with the name of the new file, and its base as the new file reaches it.

    Raises: MixlabError: there is no such ablation.
    """
    if name not in shipped():
        raise MixlabError(f"command line: --like: {SHIPPED} has no {shown(name)}; {choices(name, shipped())}")
    found = read_text(SHIPPED / f"{name}.yaml")
    folder = os.path.relpath(BASES, path.absolute().parent)
    lines = [line for line in found.splitlines() if not line.startswith("#")]
    text = "\n".join([f"# Begun like {name}.", *lines]) + "\n"
    text = BASE.sub(lambda _: f"{folder}/", text)
    return re.sub(rf"^name: {re.escape(name)}$", f"name: {_name(path)}", text, flags=re.M)


def write(path: Path, text: str) -> None:
    """Write an ablation under a name that no file has.

    Raises: MixlabError: a file has it, or the ablation does not load; nothing is left of it then.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with path.open("xb") as file:
            file.write(text.encode())
    except FileExistsError as error:
        raise MixlabError(f"{path}: it is there already, and is left as it is; give another name") from error
    try:
        load_ablation(path)
    except MixlabError:
        path.unlink()
        raise

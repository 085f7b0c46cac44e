"""YAML files as text. PyYAML says where a scalar begins and ends; what it means is for the field that holds it.

Every scalar comes as the text that is written, in quotes or not (values.py types it by its field), but for `null`, `~`
and nothing at all, which are None. `${key.of.file}` and OmegaConf's resolvers such as `${oc.env:NAME}` are resolved;
`${NAME}` in capitals is a variable of the environment, and stays for expand.py. Nothing in a file can run code.
"""

import re
from pathlib import Path
from typing import Any

import yaml

from backends.errors import MixlabError, choices
from experiments.spec.scalars import Written
from experiments.spec.values import shown

YAML = "tag:yaml.org,2002:"
TEXT = tuple(YAML + name for name in ("str", "int", "float", "bool", "timestamp", "value", "merge"))
CALL_BEGINS = re.compile(r"\w+\([^()]*")  # such as log(1e-4: inside of braces its first comma ends the value
ENVIRONMENT = re.compile(r"(?<!\\)\$\{(?=[A-Z_][A-Z0-9_]*\})")


def read_mapping(path: Path) -> dict[str, Any]:
    """The mapping that a file holds: texts, lists and mappings of them, None.

    Raises: MixlabError: there is no such file, or it is not such YAML; says where.
    """
    return parse_mapping(read_text(path), str(path))


def parse_mapping(text: str, where: str) -> dict[str, Any]:
    """The mapping that the text of a file holds; see `read_mapping`."""
    tree = parse(text, where)
    if tree is None:
        return {}
    if not isinstance(tree, dict):
        raise MixlabError(f"{where}: expected a mapping, got {'a list' if isinstance(tree, list) else 'text'}")
    return tree


def read_text(path: Path) -> str:
    """The text of a file, without its mark of byte order.

    Raises: MixlabError: there is no such file, or it is not text.
    """
    try:
        return path.read_text(encoding="utf-8-sig")
    except FileNotFoundError as error:
        raise MixlabError(f"{path}: there is no such file; {_files_in(path.parent, path.name)}") from error
    except IsADirectoryError as error:
        raise MixlabError(f"{path}: it is a folder, not a file; {_files_in(path, '')}") from error
    except (OSError, UnicodeDecodeError) as error:
        raise MixlabError(f"{path}: it cannot be read as text ({shown(str(error))})") from error


def parse(text: str, where: str) -> Any:
    """What a document of YAML holds: a text, a list, a mapping or None.

    Raises: MixlabError: it is not such YAML; says where.
    """
    try:
        node, reader = yaml.compose(text, yaml.SafeLoader), _Tree(where)
        tree = None if node is None else reader.value(node)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f"{where}, line {mark.line + 1}, column {mark.column + 1}" if mark else where
        problem = str(getattr(error, "problem", None) or str(error).splitlines()[0])
        raise MixlabError(f"{place}: it is not YAML: {_explained(problem)}") from error
    except RecursionError as error:
        raise MixlabError(f"{where}: its lists and mappings are nested too deep") from error
    return _interpolated(tree, where) if reader.has_interpolation else tree


def _explained(problem: str) -> str:
    """A problem in PyYAML's words, with what to do about it where that is clear."""
    if problem == "but found another document":
        return "it holds several documents, separated by '---'; expected one"
    if problem.endswith("got '{'"):
        return f"{problem}; inside of brackets, a text that holds '${{' needs quotes"
    return f"{problem} (a tab); YAML indents by spaces" if "'\\t'" in problem else problem


class _Tree:
    """Reads the values of nodes. A node that stands at several places, by an alias, is read once."""

    def __init__(self, where: str):
        self.where = where
        self.done: dict[int, Any] = {}
        self.has_interpolation = False

    def value(self, node: yaml.Node) -> Any:
        if id(node) not in self.done:
            self.done[id(node)] = ...
            self.done[id(node)] = self._read(node)
        if self.done[id(node)] is ...:
            raise self._mistake(node, "an alias stands inside of what it names")
        return self.done[id(node)]

    def _read(self, node: yaml.Node) -> Any:
        if isinstance(node, yaml.ScalarNode):
            return self._scalar(node)
        if isinstance(node, yaml.SequenceNode) and node.tag == YAML + "seq":
            return [self.value(item) for item in node.value]
        if isinstance(node, yaml.MappingNode) and node.tag == YAML + "map":
            return self._mapping(node)
        raise self._mistake(node, f"the tag {node.tag.replace(YAML, '!!')!r} is not read")

    def _scalar(self, node: yaml.ScalarNode) -> str | None:
        if node.tag == YAML + "null" and node.style is None:
            return None
        if node.tag not in TEXT:
            raise self._mistake(node, f"the tag {node.tag.replace(YAML, '!!')!r} is not read")
        self.has_interpolation |= "${" in node.value
        return node.value if node.style or node.tag == YAML + "str" else Written(node.value)

    def _mapping(self, node: yaml.MappingNode) -> dict[str, Any]:
        """A mapping with its keys as texts; its own win over those that `<<` brings."""
        if node.flow_style:
            self._check_calls(node)
        own: dict[str, Any] = {}
        merged: dict[str, Any] = {}
        for key, inner in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise self._mistake(key, "expected a text as a key, got a list or a mapping")
            if key.tag == YAML + "merge":
                merged = {**self._merged(inner), **merged}
            elif key.value in own:
                raise self._mistake(key, f"duplicate key {shown(key.value)}")
            else:
                own[key.value] = self.value(inner)
        return merged | own

    def _check_calls(self, node: yaml.MappingNode) -> None:
        """Raises: MixlabError: a call such as log(1e-4, 1e-2, 5) stands without quotes, and its commas have cut it."""
        for i, (_, inner) in enumerate(node.value):
            if isinstance(inner, yaml.ScalarNode) and not inner.style and CALL_BEGINS.fullmatch(inner.value):
                rest = [key.value for key, _ in node.value[i + 1 :] if isinstance(key, yaml.ScalarNode)]
                end = next((j for j, word in enumerate(rest) if word.endswith(")")), None)
                if end is not None:
                    call = ", ".join([inner.value, *rest[: end + 1]])
                    raise MixlabError(
                        f'{self._place(inner)}: inside of braces write "{call}" in quotes: a comma ends a value there'
                    )

    def _merged(self, node: yaml.Node) -> dict[str, Any]:
        """The keys and values that `<<` brings from one mapping or several, of which the first wins."""
        value = self.value(node)
        mappings = value if isinstance(value, list) else [value]
        if not all(isinstance(one, dict) for one in mappings):
            raise self._mistake(node, "expected a mapping behind '<<', or a list of them")
        return {key: value for one in reversed(mappings) for key, value in one.items()}

    def _mistake(self, node: yaml.Node, what: str) -> MixlabError:
        return MixlabError(f"{self._place(node)}: it is not YAML: {what}")

    def _place(self, node: yaml.Node) -> str:
        return f"{self.where}, line {node.start_mark.line + 1}, column {node.start_mark.column + 1}"


def _interpolated(tree: Any, where: str) -> Any:
    """The tree with OmegaConf's `${...}` resolved.  Raises: MixlabError: one cannot be."""
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    if not isinstance(tree, (dict, list)):
        return tree  # one scalar has nothing beside it to name
    try:
        # Without the flag OmegaConf refuses a `Written`, which is a str of another class.
        config = OmegaConf.create(_escaped(tree), flags={"allow_objects": True})
        return OmegaConf.to_container(config, resolve=True)
    except OmegaConfBaseException as error:
        problem = str(error).splitlines()[0]
        raise MixlabError(f"{where}: {problem[:200]}; a variable of the environment is written $NAME") from error


def _escaped(tree: Any) -> Any:
    """The tree with the variables of the environment put out of OmegaConf's reach."""
    if isinstance(tree, dict):
        return {key: _escaped(value) for key, value in tree.items()}
    if isinstance(tree, list):
        return [_escaped(item) for item in tree]
    return ENVIRONMENT.sub(r"\\${", tree) if isinstance(tree, str) and ENVIRONMENT.search(tree) else tree


def _files_in(folder: Path, name: str) -> str:
    """The end of an error sentence: the YAML files of a folder, and the one that is nearest to the name."""
    files = sorted(other.name for other in folder.glob("*.y*ml")) if folder.is_dir() else []
    return choices(name, files) if files else f"the folder {folder.absolute()} holds no YAML file or is not there"

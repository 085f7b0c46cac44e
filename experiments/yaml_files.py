"""YAML files as plain data. Nothing in a file can run code: OmegaConf reads with PyYAML's safe loader."""

from pathlib import Path
from typing import Any

import yaml
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from backends.errors import MixlabError, choices


def read_mapping(path: Path) -> dict[str, Any]:
    """The mapping that a file holds, its interpolations resolved.

    Raises: MixlabError: there is no such file, or it is not such YAML; says where.
    """
    try:
        tree = OmegaConf.to_container(OmegaConf.load(path), resolve=True)
    except FileNotFoundError as error:
        raise MixlabError(f"{path}: there is no such file; {_files_in(path.parent, path.name)}") from error
    except IsADirectoryError as error:
        raise MixlabError(f"{path}: it is a folder, not a file; {_files_in(path, '')}") from error
    except (PermissionError, UnicodeDecodeError) as error:
        raise MixlabError(f"{path}: it cannot be read as text ({error})") from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        problem = getattr(error, "problem", None) or str(error).splitlines()[0]
        raise MixlabError(f"{path}{place}: it is not YAML: {problem}") from error
    except OSError as error:  # OmegaConf's word for a file that holds one number, too
        raise MixlabError(f"{path}: it cannot be read as a mapping ({error})") from error
    except OmegaConfBaseException as error:
        raise MixlabError(f"{path}: {str(error).splitlines()[0]}") from error
    if not isinstance(tree, dict):
        raise MixlabError(f"{path}: {type(tree).__name__} came where a mapping is allowed")
    return {str(key): value for key, value in tree.items()}


def _files_in(folder: Path, name: str) -> str:
    found = sorted(other.name for other in folder.glob("*.y*ml")) if folder.is_dir() else []
    return choices(name, found) if found else f"the folder {folder.absolute()} holds no YAML file or is not there"

"""Files that torch.save wrote, read without running anything in them."""

import pickle
import re
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from backends.contract import State
from backends.errors import MixlabError

NUMPY_TYPES = (torch.float16, torch.float32, torch.float64)


def read(path: Path) -> State:
    """The arrays of a file by name, those of nested mappings as `outer/inner`; what is no array is left out.

    Raises: MixlabError: the file is damaged, or holds more than arrays.
    """
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as file:  # torch.load does not look at the checksums
            if (damaged := file.testzip()) is not None:
                raise MixlabError(f"{path}: the checksum of {damaged!r} does not match its content; fetch it again")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what torch warns of, the sentence below says
            loaded = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if found := re.search(r"GLOBAL (\S+)", str(error)):
            raise MixlabError(
                f"{path}: it is a pickle that asks for {found[1]}, and nothing in a pickle is run; allowed: arrays "
                f"alone, as in torch.save(model.state_dict(), {path.name!r})"
            ) from None
        raise MixlabError(f"{path}: it is not a whole file of torch.save; fetch it again") from None
    return _flat(loaded, "")


def _flat(tree: Any, prefix: str) -> State:
    if isinstance(tree, torch.Tensor):
        floating = tree.is_floating_point() and tree.dtype not in NUMPY_TYPES  # bfloat16: exact in float32
        return {prefix: (tree.float() if floating else tree).detach().numpy()}
    if not isinstance(tree, Mapping):
        return {}
    found: State = {}
    for key, value in tree.items():
        found |= _flat(value, f"{prefix}/{key}" if prefix else str(key))
    return found

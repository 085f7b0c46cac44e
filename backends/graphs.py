"""Protocol of what a backend offers to `mixlab export --to onnx`: a model as a graph that other programs run."""

from collections.abc import Mapping
from typing import Protocol

from backends.arrays import Array
from backends.specs import ModelSpec

IMAGES, LOGITS = "images", "logits"  # names of the input and the output


class Graphs(Protocol):
    """The attributes of the module `backends/<name>/onnx.py`."""

    def write_graph(
        self, model: ModelSpec, params: Mapping[str, Array], pixel_order: Array | None, about: Mapping[str, str]
    ) -> bytes:
        """The content of an ONNX file, which computes in float32 what `Program.predict` does.

        Its input IMAGES is uint8 (batch, h, w, channels), before the input permutation, with a batch of any length;
        its output LOGITS is float32 (batch, num_classes). The same arguments give the same bytes.

        Args:   params: by canonical name, rounded to float32.   pixel_order: see contract.ArrayDataset.
                about: what the file says of itself, by key.
        Raises: MixlabError: the file would be larger than the format allows.
        """

"""What JAX sees of a machine: its versions, and the devices with their memory."""

from importlib.metadata import entry_points
from importlib.util import find_spec

import flax
import jax
import jaxlib
import optax

from backends.bench import DeviceSeen
from backends.errors import first_line
from backends.jax.device import check, open_device, set_numerics
from backends.specs import RunSpec


def versions() -> dict[str, str]:
    """Versions of the framework and of what it runs on; see bench.Devices."""
    found = {"jax": jax, "jaxlib": jaxlib, "flax": flax, "optax": optax}
    return {name: module.__version__ for name, module in found.items()}


def seen(run: RunSpec) -> list[DeviceSeen]:
    """The run's device, then the others of its kind; see bench.Devices."""
    set_numerics(run)
    check(run)
    first = open_device(run.device)
    others = [device for device in jax.devices(first.platform) if device != first]
    return [_seen(device) for device in (first, *others)]


def _seen(device: jax.Device) -> DeviceSeen:
    stats = device.memory_stats() or {}
    if "bytes_limit" not in stats:
        return DeviceSeen(device.device_kind)
    return DeviceSeen(device.device_kind, stats["bytes_limit"] - stats["bytes_in_use"], stats["bytes_limit"])


def reason(run: RunSpec) -> str:
    """Why the run's device is not there; see bench.Devices."""
    kind = run.device.partition(":")[0]
    plugins = [point for point in entry_points(group="jax_plugins") if "cuda" in point.name]
    if not (find_spec("libtpu") if kind == "tpu" else plugins):
        extra = "jax-tpu" if kind == "tpu" else "jax-cuda"
        return f"this jax has no code for it; install that with: pip install -e '.[{extra}]'"
    try:
        if kind != "tpu":
            plugins[0].load().initialize()  # JAX has tried it, and has only printed why it failed
        jax.devices(kind)
    except Exception as error:  # of a plugin's own kind
        return first_line(error)
    return ""

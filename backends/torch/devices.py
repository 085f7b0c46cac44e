"""What PyTorch sees of a machine: its versions, and the devices with their memory."""

import torch

from backends.bench import DeviceSeen
from backends.errors import first_line
from backends.specs import RunSpec
from backends.torch.device import check, open_device


def versions() -> dict[str, str]:
    """Versions of the framework and of what it runs on; see bench.Devices."""
    found = {"torch": torch.__version__, "CUDA": torch.version.cuda}
    if torch.version.cuda and torch.backends.cudnn.is_available():
        found["cuDNN"] = str(torch.backends.cudnn.version())
    return {name: str(version) for name, version in found.items() if version}


def seen(run: RunSpec) -> list[DeviceSeen]:
    """The run's device, then the others of its kind; see bench.Devices."""
    check(run)
    first = open_device(run.device)
    if first.type != "cuda":
        return [DeviceSeen("cpu")]
    others = [torch.device("cuda", i) for i in range(torch.cuda.device_count()) if i != (first.index or 0)]
    return [_seen(device) for device in (first, *others)]


def _seen(device: torch.device) -> DeviceSeen:
    free, total = torch.cuda.mem_get_info(device)
    return DeviceSeen(torch.cuda.get_device_name(device), free, total)


def reason(run: RunSpec) -> str:
    """Why the run's device is not there; see bench.Devices."""
    if torch.version.cuda is None:
        again = "pip uninstall -y torch && pip install -c constraints.txt -e '.[torch-cuda]'"  # pip keeps what fits
        return f"this torch is built without CUDA; install one with it: {again}"
    try:
        torch.cuda.init()
    except (RuntimeError, AssertionError) as error:
        return first_line(error)
    return ""

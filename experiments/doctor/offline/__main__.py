"""The program behind `make gpu`: python -m experiments.doctor.offline FOLDER."""

import sys
from pathlib import Path

from backends.errors import MixlabError
from experiments.doctor.offline import make

try:
    folder = Path(sys.argv[1])
    wheels = make(folder)
except MixlabError as error:
    sys.exit(f"mixlab: {error}")
size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
print(f"{folder}: {size / 2**20:.1f} MiB; wheels: {', '.join(wheels)}")
print(f"copy it to the machine, and there: for i in 1 2 3; do bash {folder.name}/doctor.sh $i out; done")

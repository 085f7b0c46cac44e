"""Layout of a cluster's files, all of them inside one directory."""

import os
import re
import tempfile
from dataclasses import dataclass
from pathlib import Path

from backends.errors import MixlabError

MAX_SOCKET_PATH = 107  # bytes of sockaddr_un.sun_path, less the closing zero
FOLDERS = ("etc", "log", "run", "munge", "state", "spool", "dev")


@dataclass(frozen=True)
class Layout:
    """The paths inside a cluster's directory, which is absolute and free of links."""

    directory: Path

    @classmethod
    def of(cls, directory: Path | str) -> "Layout":
        return cls(Path(directory).resolve())

    @property
    def slurm_conf(self) -> Path:
        return self.directory / "etc/slurm.conf"

    @property
    def slurmdbd_conf(self) -> Path:
        return self.directory / "etc/slurmdbd.conf"

    @property
    def gres_conf(self) -> Path:
        return self.directory / "etc/gres.conf"

    @property
    def munge_key(self) -> Path:
        return self.directory / "munge/key"

    @property
    def munge_socket(self) -> Path:
        return self.directory / "munge/socket"

    @property
    def database(self) -> Path:
        return self.directory / "database"

    @property
    def database_socket(self) -> Path:
        return self.directory / "run/database.sock"

    @property
    def env_sh(self) -> Path:
        return self.directory / "env.sh"

    @property
    def marker(self) -> Path:
        """The file that marks the directory as a cluster's, which may be removed; locked while a start is at work."""
        return self.directory / ".mixlab-testbed"

    def console(self, daemon: str) -> Path:
        """The file with a daemon's standard output and error since it was last started."""
        return self.directory / f"log/{daemon}.console"

    def check(self, nodes: tuple[str, ...]) -> None:
        """Raise MixlabError unless the directory can hold a cluster with these nodes."""
        directory = str(self.directory)
        if not re.fullmatch(r"[\w./+-]+", directory, re.ASCII):
            raise MixlabError(
                f"{directory}: expected a path of letters, digits and . _ - + / alone, as Slurm's files need it"
            )
        # slurmstepd's socket is the longest: job ids have 8 digits at most, the numbers of special steps 10.
        longest = max(len(f"{directory}/spool/{node}/{node}_{10**7}.{10**9}") for node in nodes)
        if longest > MAX_SOCKET_PATH:
            raise MixlabError(
                f"{directory}: it is {longest - MAX_SOCKET_PATH} characters too long, since the path of a unix socket "
                f"inside it would pass {MAX_SOCKET_PATH} bytes; give a shorter directory, such as {default_directory()}"
            )
        self.check_owner(os.geteuid())
        if self.directory.is_dir():
            self._check_contents()
        elif self.directory.exists():
            raise MixlabError(f"{directory}: expected a directory, got a file; give a new or empty directory")

    def check_owner(self, *users: int) -> None:
        """Raise MixlabError if the directory belongs to none of these users."""
        if self.directory.exists() and self.directory.stat().st_uid not in users:
            raise MixlabError(f"{self.directory}: it belongs to another user; give a directory of your own")

    def _check_contents(self) -> None:
        contents = sorted(path.name for path in self.directory.iterdir())
        if contents and self.marker.name not in contents:
            raise MixlabError(f"{self.directory}: it holds other files ({contents[0]}); give a new or empty directory")

    def make(self) -> None:
        for path in [self.directory, *(self.directory / folder for folder in FOLDERS)]:
            path.mkdir(parents=True, exist_ok=True)
            path.chmod(0o755)  # munge trusts no key and no socket in a folder that others may write
            self.marker.touch()  # before the first folder: a directory with folders and no marker is somebody's


def default_directory() -> Path:
    return Path(tempfile.gettempdir()) / f"mixlab-slurm-{os.geteuid()}"

"""Daemons of a cluster: how each is started, and when it answers."""

import os
import pwd
import re
import shutil
import subprocess
from collections.abc import Iterable

from backends.errors import MixlabError
from slurm.testbed import processes
from slurm.testbed.layout import Layout
from slurm.testbed.network import listens, listens_at

START_TIMEOUT_S = 60.0
CLIENT_TIMEOUT_S = 30.0
LOAD_TIMEOUT_S = 1.0
OTHER_CLUSTERS = ("SLURM", "SBATCH", "SRUN", "SQUEUE", "SINFO", "SACCT")  # their clients' variables begin so
SYSTEM_PATH = "/usr/sbin:/sbin"  # where the daemons are; a plain user's PATH often lacks it
PROGRAMS = ("slurmctld", "slurmd", "sbatch", "munged")
ACCOUNTING_PROGRAMS = ("slurmdbd", "mariadbd", "mariadb-install-db", "my_print_defaults")
PACKAGES = "slurmctld slurmd slurm-client munge"
ACCOUNTING_PACKAGES = "slurmdbd mariadb-server-core mariadb-client-core"
DATABASE_MEMORY = ("--innodb-buffer-pool-size=64M", "--innodb-log-file-size=8M")


class DaemonFailed(Exception):
    """A daemon of the testbed ended or does not answer; its text names the daemon and what it wrote last."""


def missing(accounting: bool) -> str | None:
    """The sentence that says which programs are not installed and how to get them; None if all are there."""
    needed = PROGRAMS + ACCOUNTING_PROGRAMS * accounting
    absent = [program for program in needed if shutil.which(program, path=search_path()) is None]
    if not absent:
        return None
    packages = f"{PACKAGES} {ACCOUNTING_PACKAGES}" if accounting else PACKAGES
    return f"Slurm's testbed needs {', '.join(absent)}; to install: apt-get install --no-install-recommends {packages}"


def search_path() -> str:
    return f"{os.environ.get('PATH', os.defpath)}:{SYSTEM_PATH}"


def user() -> str:
    """The name of the user who runs the cluster and, unless root, is the only one who can run jobs on it."""
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError as error:
        raise MixlabError(
            f"user {os.geteuid()} has no name in /etc/passwd, and Slurm needs one; run it as a user who has one"
        ) from error


def environment(layout: Layout) -> dict[str, str]:
    """The environment of the clients that the testbed itself calls."""
    own = {key: value for key, value in os.environ.items() if not key.startswith(OTHER_CLUSTERS)}
    return own | {"PATH": search_path(), "SLURM_CONF": str(layout.slurm_conf)}


def _marked_environment(layout: Layout, daemon: str) -> dict[str, str]:
    return environment(layout) | {
        "MYSQL_UNIX_PORT": str(layout.database_socket),  # slurmdbd.conf has no key for the database's socket
        processes.DIRECTORY_MARK: str(layout.directory),
        processes.DAEMON_MARK: daemon,
    }


def ask(layout: Layout, *command: str) -> str:
    """The standard output of a client of Slurm; empty if it fails."""
    try:
        ended = subprocess.run(
            command, env=environment(layout), capture_output=True, text=True, timeout=CLIENT_TIMEOUT_S, check=False
        )
    except subprocess.TimeoutExpired:
        return ""
    return ended.stdout if ended.returncode == 0 else ""


def nodes(layout: Layout) -> tuple[str, ...]:
    return tuple(re.findall(r"^NodeName=(\S+)", layout.slurm_conf.read_text(), re.MULTILINE))


def start(layout: Layout, daemon: str, sockets: Iterable[int] = ()) -> None:
    marked = _marked_environment(layout, daemon)
    processes.start(_command(layout, daemon), marked, layout.console(daemon), sockets)


def wait_for(layout: Layout, daemon: str) -> None:
    """Return when the daemon answers.

    Raises: DaemonFailed: it has ended, or START_TIMEOUT_S have passed.
    """

    def answers() -> bool:
        if _answers(layout, daemon):
            return True
        if _ended(layout, daemon):
            raise DaemonFailed(f"{daemon} has ended{_last_words(layout, daemon)}")
        return False

    if not processes.wait_until(answers, START_TIMEOUT_S):
        raise DaemonFailed(f"{daemon} does not answer after {START_TIMEOUT_S:.0f} s{_last_words(layout, daemon)}")


def wait_until_idle(layout: Layout) -> None:
    """Return when slurmctld counts every node as idle."""
    wanted = {f"{node} idle" for node in nodes(layout)}

    def idle() -> bool:
        return set(ask(layout, "sinfo", "--noheader", "--Node", "--format=%N %T").splitlines()) == wanted

    if not processes.wait_until(idle, START_TIMEOUT_S):
        raise DaemonFailed(f"the nodes are not idle after {START_TIMEOUT_S:.0f} s{_last_words(layout, 'slurmctld')}")


def create_database(layout: Layout) -> None:
    """Make the empty database, unless it is there."""
    if (layout.database / "mysql").is_dir():
        return
    command = [
        "mariadb-install-db",
        "--no-defaults",
        f"--user={user()}",
        f"--datadir={layout.database}",
        f"--tmpdir={layout.directory}/run",  # a second server in one folder removes the first one's temporary tables
        "--skip-test-db",
        "--skip-name-resolve",
        "--auth-root-authentication-method=socket",
        f"--auth-root-socket-user={user()}",
        *DATABASE_MEMORY,
    ]
    with layout.console("database").open("wb") as output:
        marked = _marked_environment(layout, "mariadbd")
        ended = subprocess.run(command, env=marked, stdout=output, stderr=output, check=False)
    if ended.returncode:
        shutil.rmtree(layout.database, ignore_errors=True)  # half a database would be taken for one next time
        raise DaemonFailed(f"mariadb-install-db failed{_last_words(layout, 'database')}")


def _command(layout: Layout, daemon: str) -> list[str]:
    run, log = layout.directory / "run", layout.directory / "log"
    match daemon:
        case "munged":
            return [
                *(
                    "munged",
                    "--foreground",
                    "--force",
                ),  # --force: let a folder above, such as /tmp, be others' to write
                f"--key-file={layout.munge_key}",
                f"--socket={layout.munge_socket}",
                f"--pid-file={run}/munged.pid",
                f"--log-file={log}/munged.log",
                f"--seed-file={layout.directory}/munge/seed",
            ]
        case "mariadbd":
            return [
                *("mariadbd", "--no-defaults", f"--user={user()}", f"--datadir={layout.database}"),
                *(f"--socket={layout.database_socket}", "--skip-networking", f"--pid-file={run}/mariadbd.pid"),
                f"--tmpdir={run}",
                *("--skip-log-bin", "--performance-schema=OFF", "--innodb-flush-log-at-trx-commit=0"),
                *("--innodb-lock-wait-timeout=900", *DATABASE_MEMORY),
            ]
        case "slurmdbd":
            return ["slurmdbd", "-D"]
        case "slurmctld":
            return ["slurmctld", "-D", "-i"]  # -i: start although a killed predecessor's state is torn
        case _:
            return ["slurmd", "-D", "-N", daemon]


def _answers(layout: Layout, daemon: str) -> bool:
    match daemon:
        case "munged":
            return listens_at(layout.munge_socket)
        case "mariadbd":
            return listens_at(layout.database_socket)
        case "slurmdbd":
            return listens(_number(r"^DbdPort=(\d+)", layout.slurmdbd_conf.read_text()))
        case "slurmctld":
            return bool(ask(layout, "scontrol", "ping"))
        case _:
            return listens(_number(rf"^NodeName={re.escape(daemon)} .*Port=(\d+)", layout.slurm_conf.read_text()))


def _number(pattern: str, text: str) -> int:
    match = re.search(pattern, text, re.MULTILINE)
    if match is None:
        raise ValueError(f"no line {pattern}")
    return int(match[1])


def _ended(layout: Layout, daemon: str) -> bool:
    # Not at the first look: while a program is being loaded, the kernel shows an empty environment.
    return not processes.wait_until(lambda: daemon in processes.daemons(layout), LOAD_TIMEOUT_S)


def _last_words(layout: Layout, daemon: str) -> str:
    lines = layout.console(daemon).read_text(errors="replace").strip().splitlines()
    return f"; its last words, in {layout.console(daemon)}: {' / '.join(lines[-3:])}" if lines else ""

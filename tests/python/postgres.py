"""Real PostgreSQL servers for the tests, run by scripts/postgres: databases, kill -9, restart, standbys and promotion."""

import os
import re
import signal
import subprocess
import time
from pathlib import Path

import psycopg
from harness import ROOT, wait_until

SCRIPT = ROOT / "scripts" / "postgres"
DATABASE = "bellwire"


class Postgres:
    """One server. It ends with this process, and its folder goes with it unless one was given."""

    def __init__(self, folder: Path | None = None, settings: dict[str, str] | None = None):
        self.folder = folder
        self.settings = settings or {}
        self.port = 0
        self._script: subprocess.Popen | None = None
        # The last start: when it was asked for, and when the server answered.
        self.starting_at = self.ready_at = 0.0

    def __enter__(self) -> "Postgres":
        return self.start()

    def __exit__(self, *_):
        self.close()

    def start(self, standby_of: "Postgres | None" = None, name: str = "") -> "Postgres":
        """Starts it and returns when it answers; again on the same port if it ran before."""
        command = [str(SCRIPT), "run"]
        if self.folder:
            command += ["--dir", str(self.folder)]
        if self.port:
            command += ["--port", str(self.port)]
        if standby_of:
            command += ["--standby-of", standby_of.url("postgres"), "--name", name]
        for setting, value in self.settings.items():
            command += ["--set", f"{setting}={value}"]
        self.starting_at = time.monotonic()
        # What the script runs on is the pipe: it ends the server when this process is gone.
        self._script = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        url = self._script.stdout.readline()
        assert url.endswith("\n"), f"scripts/postgres did not start a server (see above); it printed {url!r}"
        self.ready_at = time.monotonic()
        self.port = int(re.search(r":(\d+)/", url).group(1))
        return self

    def url(self, database: str = DATABASE) -> str:
        return f"postgres://bellwire@127.0.0.1:{self.port}/{database}"

    def connect(self, database: str = DATABASE) -> psycopg.Connection:
        return psycopg.connect(self.url(database), autocommit=True, connect_timeout=5)

    def query(self, statement: str, *values, database: str = DATABASE) -> list[tuple]:
        """Runs one statement on a connection of its own."""
        with self.connect(database) as connection:
            cursor = connection.execute(statement, values or None)
            return cursor.fetchall() if cursor.description else []

    def create_database(self, name: str = DATABASE) -> str:
        """Makes an empty database. Returns its URL."""
        self.query(f'CREATE DATABASE "{name}" TEMPLATE template0 ENCODING \'UTF8\'', database="postgres")
        return self.url(name)

    def processes(self) -> list[int]:
        """The postmaster and its children."""
        postmaster = self._postmaster()
        return [postmaster] + [pid for pid in _all_pids() if _parent(pid) == postmaster]

    def _postmaster(self) -> int:
        assert self.folder, "only a server in a folder of ours can be killed"
        return int((self.folder / "data" / "postmaster.pid").read_text().split("\n", 1)[0])

    def kill(self) -> float:
        """kill -9 of all its processes; returns when they are gone. The time of the kill."""
        victims = self.processes()
        at = time.monotonic()
        for pid in victims:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass  # A child that saw its postmaster go.
        wait_until(lambda: not any(_is_running(pid) for pid in victims), 20, "the killed processes of PostgreSQL are gone")
        self._script.wait(20)
        self._script.stdin.close()
        return at

    def close(self):
        if self._script is None:
            return
        if not self._script.stdin.closed:
            self._script.stdin.close()
        try:
            self._script.wait(20)
        except subprocess.TimeoutExpired:
            self._script.kill()
            self._script.wait(10)


def _all_pids() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


def _stat(pid: int) -> list[str]:
    """State, parent and so on: what follows the name, which may hold anything."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []


def _parent(pid: int) -> int:
    stat = _stat(pid)
    return int(stat[1]) if stat else 0


def _is_running(pid: int) -> bool:
    stat = _stat(pid)
    return bool(stat) and stat[0] not in "ZX"

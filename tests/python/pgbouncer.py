"""The whole tour with the official svix client on PostgreSQL: directly, and through PgBouncer in transaction mode.

PgBouncer hands each transaction to the next of its server connections in turn, so that whatever lived in a session would be
missed at once.
"""

import argparse
import os
import pwd
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from harness import ROOT, STORAGE_ADDRESS_VARIABLE, STORAGE_ADMIN_VARIABLE, free_port, wait_until
from postgres import Postgres

CONFIGURATION = """
[databases]
* = host=127.0.0.1 port={server_port}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = trust
auth_file = {folder}/users
pool_mode = transaction
server_round_robin = 1
default_pool_size = 20
max_client_conn = 400
max_db_connections = 20
logfile =
pidfile =
admin_users = bellwire
"""


class PgBouncer:
    """A pooler in transaction mode before a server."""

    def __init__(self, server: Postgres):
        program = shutil.which("pgbouncer", path=os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/sbin")
        assert program, "pgbouncer is missing: apt-get install pgbouncer"
        self.folder = Path(tempfile.mkdtemp(prefix="bellwire-pgbouncer-"))
        self.folder.chmod(0o755)
        self.port = free_port()
        configuration = self.folder / "pgbouncer.ini"
        configuration.write_text(CONFIGURATION.format(server_port=server.port, port=self.port, folder=self.folder))
        (self.folder / "users").write_text('"bellwire" ""\n')
        # It refuses to run as root, and its own way of becoming somebody else would let it outlive this process.
        as_somebody = ["setpriv", "--pdeathsig", "TERM"]
        if os.geteuid() == 0:
            nobody = pwd.getpwnam("nobody")
            as_somebody += ["--reuid", str(nobody.pw_uid), "--regid", str(nobody.pw_gid), "--clear-groups"]
        self.log = open(self.folder / "log", "wb")
        command = [*as_somebody, program, str(configuration)]
        self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log)

    def __enter__(self) -> "PgBouncer":
        import psycopg

        def answers() -> bool:
            assert self.process.poll() is None, f"pgbouncer ended: {(self.folder / 'log').read_text()[-1000:]}"
            try:
                psycopg.connect(f"postgres://bellwire@127.0.0.1:{self.port}/postgres", connect_timeout=2).close()
                return True
            except psycopg.OperationalError:
                return False

        try:
            wait_until(answers, 15, "pgbouncer answers")
        except AssertionError as problem:
            log = (self.folder / "log").read_text()[-1000:]
            self.__exit__()
            raise AssertionError(f"{problem}\n{log}") from None
        return self

    def __exit__(self, *_):
        self.process.terminate()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait(10)
        self.log.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    def transactions(self) -> int:
        """How many transactions it has passed on."""
        import psycopg

        with psycopg.connect(
            f"postgres://bellwire@127.0.0.1:{self.port}/pgbouncer", autocommit=True, connect_timeout=5, cursor_factory=psycopg.ClientCursor
        ) as connection:
            cursor = connection.execute("SHOW STATS_TOTALS")
            names = [column.name for column in cursor.description]
            return sum(int(dict(zip(names, row, strict=True))["xact_count"]) for row in cursor.fetchall())


def tour(server: Postgres, port: int, arguments: list[str]) -> int:
    """Runs the tour with its servers on databases of this server, reached through this port. The exit code of pytest."""
    environment = {**os.environ, STORAGE_ADMIN_VARIABLE: server.url("postgres"), STORAGE_ADDRESS_VARIABLE: f"127.0.0.1:{port}"}
    command = [sys.executable, "-m", "pytest", "-c", "tests/python/pytest.ini", *(arguments or ["tests/python/tour"])]
    return subprocess.run(command, env=environment, cwd=ROOT).returncode


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=["direct", "pgbouncer"], help="one of the two")
    options, arguments = parser.parse_known_args()
    failed = 0
    with Postgres() as server:
        if options.only != "pgbouncer":
            print("on PostgreSQL:", flush=True)
            failed |= tour(server, server.port, arguments)
        if options.only != "direct":
            print("through PgBouncer in transaction mode:", flush=True)
            with PgBouncer(server) as pooler:
                began = time.monotonic()
                failed |= tour(server, pooler.port, arguments)
                passed_on = pooler.transactions()
                is_used = passed_on > 500
                print(f"{'ok' if is_used else 'FAILED'}      {passed_on} transactions went through it in {time.monotonic() - began:.0f} s")
                print(f"{int(is_used)} passed, {int(not is_used)} failed")
                failed |= not is_used
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())

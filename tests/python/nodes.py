"""Several `bellwire serve` on one PostgreSQL database, and who of them owns what."""

import base64
import time
from pathlib import Path

from harness import Server, wait_until
from postgres import Postgres

SHARDS = 256
LEASE_SECONDS = 3.0
# Of nobody's interest, but the same on every node.
MASTER_KEY = base64.b64encode(bytes(range(32))).decode()
# Deliveries that may be in flight (sent and not yet recorded) at once on one node, as it is told: what a kill may repeat.
DELIVERIES_IN_FLIGHT_MAX = 256
SETTINGS = {
    "BELLWIRE_SECURITY__MASTER_KEY": MASTER_KEY,
    "BELLWIRE_NODE__LEASE": f"{LEASE_SECONDS:.0f}s",
    "BELLWIRE_DELIVERY__RETRY_SCHEDULE": "1s,1s,1s,2s,2s,4s,4s",
    "BELLWIRE_DELIVERY__IN_FLIGHT_MAX": str(DELIVERIES_IN_FLIGHT_MAX),
    "BELLWIRE_DELIVERY__ENDPOINT_IN_FLIGHT_MAX": str(DELIVERIES_IN_FLIGHT_MAX),
}


class Nodes:
    """Servers that share a database, named `node-0`, `node-1` and so on."""

    def __init__(self, database: Postgres, url: str, folder: Path, count: int, name: str, settings: dict | None = None):
        self.database = database
        self.servers = [
            Server(
                {**SETTINGS, "BELLWIRE_STORAGE__URL": url, "BELLWIRE_NODE__NAME": f"node-{n}", **(settings or {})},
                data_dir=folder / f"node-{n}",
                name=f"{name}-{n}",
            )
            for n in range(count)
        ]
        for server in self.servers:
            server.data_dir.mkdir(parents=True, exist_ok=True)

    @property
    def ports(self) -> list[int]:
        return [server.port for server in self.servers]

    @property
    def key(self) -> str:
        return self.servers[0].key

    def start(self) -> "Nodes":
        """Starts all. The first one makes the schema and prints the first key; the others take it as it is."""
        first, *others = self.servers
        first.start(60)
        for server in others:
            server.key = first.key
            server.spawn()
        for server in others:
            server.wait_ready(60)
        return self

    def epochs(self) -> dict[str, int]:
        """The newest epoch of each node by its name, of those that have a row."""
        return dict(self.database.query("SELECT name, max(epoch) FROM node GROUP BY name"))

    def owners(self) -> dict[int, int | None]:
        """Each shard's owner by its epoch."""
        return dict(self.database.query("SELECT id, owner FROM shard"))

    def shares(self) -> dict[str, int]:
        """How many shards each node owns."""
        return dict(self.database.query("SELECT n.name, count(s.id) FROM node n LEFT JOIN shard s ON s.owner = n.epoch GROUP BY n.name"))

    def is_balanced(self) -> bool:
        """Whether everybody lives, and owns its share of the shards."""
        shares, fair = self.shares(), SHARDS // len(self.servers)
        return sum(shares.values()) == SHARDS and len(shares) == len(self.servers) and all(n in (fair, fair + 1) for n in shares.values())

    def wait_balanced(self, seconds: float = 30.0):
        """Returns when each has its share and nobody dead has a row."""
        try:
            wait_until(self.is_balanced, seconds, "each node owns its share", every=0.1)
        except AssertionError as problem:
            raise AssertionError(f"{problem}: {self.shares()}") from None

    def endpoints_of(self, epoch: int) -> set[str]:
        """The endpoints (last part of their URL) whose shard this epoch owns. A shard is the last byte of the endpoint's id."""
        rows = self.database.query(
            "SELECT e.url FROM endpoint e JOIN shard s ON s.id = get_byte(e.tail, length(e.tail) - 1)"
            " WHERE s.owner = %s AND e.deleted_at IS NULL",
            epoch,
        )
        return {url.rpartition("/")[2] for (url,) in rows}

    def unfinished(self) -> dict[str, int]:
        """What waits in the tables of unfinished deliveries."""
        return {table: self.database.query(f"SELECT count(*) FROM {table}")[0][0] for table in ("queue", "retry", "handover")}

    def wait_finished(self, seconds: float = 30.0):
        """Returns when everything delivered is recorded, too."""
        deadline = time.monotonic() + seconds
        while any((rows := self.unfinished()).values()):
            assert time.monotonic() < deadline, f"not everything is recorded within {seconds} s: {rows}"
            time.sleep(0.05)

    def totals(self) -> tuple[int, int, int]:
        """Messages stored, deliveries with a successful attempt, deliveries counted as successful."""
        with self.database.connect() as connection:
            # With the default, a million attempts are sorted on disk for minutes.
            connection.execute("SET work_mem = '256MB'")
            [row] = connection.execute(
                "SELECT (SELECT count(*) FROM message),"
                " (SELECT count(*) FROM (SELECT DISTINCT message, endpoint FROM attempt WHERE response_status = 204) delivered),"
                " (SELECT coalesce(sum(success), 0)::bigint FROM counter)"
            ).fetchall()
        return row

    def ended(self) -> list[str]:
        """Nodes whose process ended by itself."""
        return [f"{s.log_path.name}: {s.process.returncode}" for s in self.servers if s.process and s.process.poll() is not None]

    def stop(self) -> list[int]:
        """Asks each to end, one after the other; their exit codes."""
        return [server.stop(30) for server in self.servers if server.process and server.process.poll() is None]

    def close(self):
        for server in self.servers:
            server.close()

"""The primary dies under load (kill -9), its synchronous standby is promoted: nothing acknowledged is lost, again and again.

Real streaming replication: the standby is made by `pg_basebackup`, and a commit is answered when it is on the standby's disk
(`synchronous_standby_names`). Nodes know both addresses. After a promotion the dead primary's folder is thrown away and becomes
the new primary's standby; the next kill comes when that one is synchronous.
"""

import argparse
import asyncio
import random
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from harness import wait_until
from load import Findings, Loader, ReceiverProcess, Record, set_up_streams
from nodes import DELIVERIES_IN_FLIGHT_MAX, LEASE_SECONDS, Nodes
from outage import Outage, judge, wait_for_return
from postgres import DATABASE, Postgres

NODES = 2
APPS = 4
IN_FLIGHT = 24
# A new standby reads from where its copy began: that much has to be there still.
SETTINGS = {"wal_keep_size": "512MB"}


class Pair:
    """A primary and its synchronous standby."""

    def __init__(self, folder: Path):
        self.primary, self.standby = (Postgres(folder / name, SETTINGS) for name in ("one", "two"))

    def start(self) -> "Pair":
        self.primary.start()
        self.primary.create_database()
        self._add_standby()
        return self

    def url(self) -> str:
        """Both addresses, always in the same order: the driver has to find the one that takes writes."""
        hosts = ",".join(f"127.0.0.1:{port}" for port in sorted([self.primary.port, self.standby.port]))
        return f"postgres://bellwire@{hosts}/{DATABASE}"

    def _add_standby(self):
        """Makes the standby from the primary, and has the primary wait for it with every commit."""
        self.standby.start(standby_of=self.primary, name="standby")
        self._set_on(self.primary, "standby")

        def is_synchronous() -> bool:
            rows = self.primary.query("SELECT sync_state FROM pg_stat_replication WHERE state = 'streaming'", database="postgres")
            return rows == [("sync",)]

        wait_until(is_synchronous, 30, "the standby is synchronous")

    @staticmethod
    def _set_on(server: Postgres, names: str):
        with server.connect("postgres") as connection:
            connection.execute(f"ALTER SYSTEM SET synchronous_standby_names = '{names}'")
            connection.execute("SELECT pg_reload_conf()")

            def is_set() -> bool:
                return connection.execute("SHOW synchronous_standby_names").fetchall() == [(names,)]

            wait_until(is_set, 10, f"synchronous_standby_names is {names!r}")

    def fail_over(self, seconds: float) -> Outage:
        """Kills the primary and, when somebody has noticed after these seconds, promotes the standby, which then waits for nobody
        until it has a standby of its own."""
        outage = Outage(self.primary.kill())
        time.sleep(seconds)
        self.primary, self.standby = self.standby, self.primary
        self._set_on(self.primary, "")
        outage.returning_at = time.monotonic()
        [(is_promoted,)] = self.primary.query("SELECT pg_promote(true, 60)", database="postgres")
        assert is_promoted, "the standby was not promoted within 60 s"
        outage.back_at = time.monotonic()
        return outage

    def replace_standby(self):
        """Throws the dead primary away and makes it the new standby."""
        shutil.rmtree(self.standby.folder)
        self._add_standby()

    def close(self):
        self.standby.close()
        self.primary.close()


async def run(promotions: int, seed: int) -> int:
    rng = random.Random(seed)
    folder = Path(tempfile.mkdtemp(prefix="bellwire-promotion-"))
    folder.chmod(0o755)
    print(f"seed {seed}, folder {folder}")
    record, receiver, findings = Record(folder / "arrived"), ReceiverProcess(folder / "arrived"), Findings()
    outages: list[Outage] = []
    pair, loader, nodes = Pair(folder), None, None
    try:
        pair.start()
        nodes = Nodes(pair.primary, pair.url(), folder, NODES, "promotion").start()
        await asyncio.to_thread(nodes.wait_balanced)
        streams = set_up_streams(nodes.servers[0], receiver.url, APPS)
        loader = Loader(nodes.ports, nodes.key, streams, folder / "acknowledged")
        loader.start(IN_FLIGHT)
        for n in range(promotions):
            if n:
                await asyncio.to_thread(pair.replace_standby)
            receiver.delay(rng.choice([0, 0.005, 0.05, 0.25]))
            await asyncio.sleep(rng.uniform(0.5, 3))
            loader.check()
            outages.append(outage := await asyncio.to_thread(pair.fail_over, rng.uniform(0.7, 2 * LEASE_SECONDS)))
            nodes.database = pair.primary
            await wait_for_return(outage, record, loader)
            record.next_life()
            if ended := nodes.ended():
                raise AssertionError(f"nodes ended by themselves: {ended}")
            print(f"{n + 1} promotions, {len(loader.acked)} acknowledged, {len(record.arrivals)} arrivals", flush=True)
        receiver.delay(0)
        await loader.stop()
        await record.wait_for_all(loader, 60)
        await asyncio.to_thread(nodes.wait_finished)
        await asyncio.to_thread(nodes.wait_balanced)
        [(stored,)] = pair.primary.query("SELECT count(*) FROM message")
        findings.check(stored >= len(loader.acked), f"{stored} messages are on the last primary, {len(loader.acked)} were acknowledged")
    except AssertionError as problem:
        findings.check(False, str(problem))
    findings.nothing_lost(loader, record)
    findings.check(len(outages) == promotions, f"{len(outages)} of {promotions} promotions done")
    judge(findings, outages, loader)
    most = max(record.repeated().values(), default=0)
    findings.check(most <= NODES * DELIVERIES_IN_FLIGHT_MAX, f"repeated after a promotion: at most {most}")
    try:
        if nodes:
            codes = nodes.stop()
            findings.check(codes == [0] * NODES, f"the nodes end with 0 when asked to: {codes}")
    finally:
        if nodes:
            nodes.close()
        pair.close()
        receiver.close()
    if not findings.failed:
        subprocess.run(["rm", "-rf", str(folder)], check=True)
    return findings.finish()


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--promotions", type=int, default=2)
    arguments.add_argument("--seed", type=int, default=None, help="repeat the times of a run")
    options = arguments.parse_args()
    return asyncio.run(run(options.promotions, options.seed if options.seed is not None else random.SystemRandom().getrandbits(32)))


if __name__ == "__main__":
    sys.exit(main())

"""kill -9 of PostgreSQL itself (the postmaster and all its children) under load, again and again.

Two nodes publish and deliver; the server is killed after a random time, and started again after another one, sometimes longer than
a lease. No acknowledged message may be lost; while the database is away nothing is acknowledged and publishing is answered
503 with `Retry-After`; within 5 s of its return service is back by itself.
"""

import argparse
import asyncio
import random
import subprocess
import sys
import tempfile
from pathlib import Path

from load import Findings, Loader, ReceiverProcess, Record, set_up_streams
from nodes import DELIVERIES_IN_FLIGHT_MAX, LEASE_SECONDS, Nodes
from outage import Outage, judge, wait_for_return
from postgres import Postgres

NODES = 2
APPS = 4
IN_FLIGHT = 24
# One outage in so many is longer than a lease, so that ownership has to be sorted out afterwards.
LONG_ONE_IN = 3


async def one_kill(database: Postgres, nodes: Nodes, record: Record, loader: Loader, rng: random.Random, receiver, is_long: bool) -> Outage:
    receiver.delay(rng.choice([0, 0.005, 0.05, 0.25]))
    await asyncio.sleep(rng.uniform(0.3, 2.5))
    loader.check()
    outage = Outage(await asyncio.to_thread(database.kill))
    await asyncio.sleep(LEASE_SECONDS + rng.uniform(0.5, 2.5) if is_long else rng.uniform(0.8, 2))
    await asyncio.to_thread(database.start)
    outage.returning_at, outage.back_at = database.starting_at, database.ready_at
    await wait_for_return(outage, record, loader)
    record.next_life()
    if ended := nodes.ended():
        raise AssertionError(f"nodes ended by themselves: {ended}")
    return outage


async def run(kills: int, seed: int) -> int:
    rng = random.Random(seed)
    folder = Path(tempfile.mkdtemp(prefix="bellwire-pgcrash-"))
    folder.chmod(0o755)
    print(f"seed {seed}, folder {folder}")
    record, receiver, findings = Record(folder / "arrived"), ReceiverProcess(folder / "arrived"), Findings()
    outages: list[Outage] = []
    loader = nodes = None
    with Postgres(folder / "database") as database:
        try:
            nodes = Nodes(database, database.create_database(), folder, NODES, "pgcrash").start()
            await asyncio.to_thread(nodes.wait_balanced)
            streams = set_up_streams(nodes.servers[0], receiver.url, APPS)
            loader = Loader(nodes.ports, nodes.key, streams, folder / "acknowledged")
            loader.start(IN_FLIGHT)
            for n in range(kills):
                outages.append(await one_kill(database, nodes, record, loader, rng, receiver, n % LONG_ONE_IN == LONG_ONE_IN - 1))
                if (n + 1) % 5 == 0:
                    print(f"{n + 1} kills, {len(loader.acked)} acknowledged, {len(record.arrivals)} arrivals", flush=True)
            receiver.delay(0)
            await loader.stop()
            await record.wait_for_all(loader, 60)
            await asyncio.to_thread(nodes.wait_finished)
            await asyncio.to_thread(nodes.wait_balanced)
        except AssertionError as problem:
            findings.check(False, str(problem))
        findings.nothing_lost(loader, record)
        findings.check(len(outages) == kills, f"{len(outages)} of {kills} kill -9 of PostgreSQL done")
        judge(findings, outages, loader)
        # Nodes keep what they could not record; only ownership that was lost meanwhile makes another one send it again.
        most = max(record.repeated().values(), default=0)
        findings.check(most <= NODES * DELIVERIES_IN_FLIGHT_MAX, f"repeated after an outage: at most {most}")
        try:
            if nodes:
                codes = nodes.stop()
                findings.check(codes == [0] * NODES, f"the nodes end with 0 when asked to: {codes}")
        finally:
            if nodes:
                nodes.close()
            receiver.close()
    if not findings.failed:
        subprocess.run(["rm", "-rf", str(folder)], check=True)
    return findings.finish()


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--kills", type=int, default=5)
    arguments.add_argument("--seed", type=int, default=None, help="repeat the times of a run")
    options = arguments.parse_args()
    return asyncio.run(run(options.kills, options.seed if options.seed is not None else random.SystemRandom().getrandbits(32)))


if __name__ == "__main__":
    sys.exit(main())

"""Three nodes on one PostgreSQL database under load: kill -9 of any node, again and again. No acknowledged message may be lost.

A loader publishes through all nodes; what was not acknowledged is repeated with its idempotency key, at the next node. After a
random time a random node is killed, and started again when the others have taken over. Sometimes the next kill comes while
shards are still being handed over.
At the end: every acknowledged message has arrived at its endpoints (0 lost) and is recorded; each event became one message; the
others own all the dead node's shards within 5 s of the kill, and its endpoints get messages again; what arrived twice is, for
each kill, no more than the killed node may have in flight, and only at endpoints that were its own.
"""

import argparse
import asyncio
import random
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

from load import Findings, Loader, ReceiverProcess, Record, set_up_streams
from nodes import DELIVERIES_IN_FLIGHT_MAX, SHARDS, Nodes
from postgres import Postgres

NODES = 3
APPS = 8
# Half of them for one endpoint: so many of one node's that the others accept what is for it where it comes, eight and more at a time.
IN_FLIGHT = 60
TAKEOVER_SECONDS_MAX = 5.0
# A request that the killed node had sent is taken at most this long after the kill: longer than the receiver's longest delay.
SENT_BEFORE_KILL_SECONDS = 0.4
# One kill in so many comes while shards are still being handed over.
UNSETTLED_ONE_IN = 4


@dataclass
class Kill:
    """One kill and what followed. Times are seconds after it; `None`: not seen, because nothing was the node's."""

    node: int
    life: int
    was_balanced: bool
    shards: int
    endpoints: set[str] = field(default_factory=set)
    takeover: float | None = None
    first_delivery: float | None = None


async def kill_one(nodes: Nodes, record: Record, loader: Loader, rng: random.Random, receiver: ReceiverProcess) -> Kill:
    """Kills a random node, waits for the others to take over, starts it again."""
    was_balanced = rng.randrange(UNSETTLED_ONE_IN) != 0
    if was_balanced:
        await asyncio.to_thread(nodes.wait_balanced)
    receiver.delay(rng.choice([0, 0.005, 0.05, 0.25]))
    await asyncio.sleep(rng.uniform(0.05, 1.5))
    if ended := nodes.ended():
        raise AssertionError(f"nodes ended by themselves: {ended}")
    loader.check()
    victim = rng.randrange(NODES)
    server = nodes.servers[victim]
    epoch = nodes.epochs().get(f"node-{victim}", -1)
    owners, endpoints = nodes.owners(), nodes.endpoints_of(epoch)
    kill = Kill(victim, record.life, was_balanced, sum(owner == epoch for owner in owners.values()), endpoints)
    server.kill()
    killed_at = time.monotonic()
    await asyncio.sleep(SENT_BEFORE_KILL_SECONDS)
    record.next_life()

    deadline, waiting = killed_at + 3 * TAKEOVER_SECONDS_MAX, set(endpoints)
    with nodes.database.connect() as connection:
        while time.monotonic() < deadline and (kill.takeover is None or waiting):
            if kill.takeover is None:
                # Owned by somebody else who lives; shards that were on their way between the living may be nobody's for a moment.
                rows = connection.execute(
                    "SELECT count(*) FROM shard s JOIN node n ON n.epoch = s.owner WHERE s.owner <> %s", (epoch,)
                ).fetchall()
                if rows[0][0] == SHARDS:
                    kill.takeover = time.monotonic() - killed_at
            for arrival in record.update():
                if arrival.endpoint in waiting and arrival.at > killed_at + SENT_BEFORE_KILL_SECONDS:
                    waiting.discard(arrival.endpoint)
                    if not waiting:
                        kill.first_delivery = arrival.at - killed_at
            await asyncio.sleep(0.02)
    server.spawn()
    await asyncio.to_thread(server.wait_ready, 30)
    return kill


async def run(kills: int, seed: int) -> int:
    rng = random.Random(seed)
    folder = Path(tempfile.mkdtemp(prefix="bellwire-cluster-"))
    print(f"seed {seed}, folder {folder}")
    record, receiver, findings = Record(folder / "arrived"), ReceiverProcess(folder / "arrived"), Findings()
    results: list[Kill] = []
    loader = nodes = None
    with Postgres() as database:
        try:
            nodes = Nodes(database, database.create_database(), folder, NODES, "cluster").start()
            nodes.wait_balanced()
            streams = set_up_streams(nodes.servers[0], receiver.url, APPS, has_busy=True)
            loader = Loader(nodes.ports, nodes.key, streams, folder / "acknowledged", answer_seconds_max=10)
            loader.start(IN_FLIGHT)
            for n in range(kills):
                results.append(await kill_one(nodes, record, loader, rng, receiver))
                if (n + 1) % 10 == 0:
                    worst = max(record.repeated().values(), default=0)
                    print(
                        f"{n + 1} kills, {len(loader.acked)} acknowledged, {len(record.arrivals)} arrivals, at most {worst} repeated",
                        flush=True,
                    )
            receiver.delay(0)
            await asyncio.to_thread(nodes.wait_balanced)
            await asyncio.sleep(1)
            await loader.stop()
            await record.wait_for_all(loader, 60)
            await asyncio.to_thread(nodes.wait_finished)
        except AssertionError as problem:
            findings.check(False, str(problem))
        findings.nothing_lost(loader, record)
        findings.check(len(results) == kills, f"{len(results)} of {kills} kill -9 of a node done")
        judge(findings, record, results)
        try:
            if nodes:
                check_rows(findings, nodes, loader, record)
                codes = nodes.stop()
                findings.check(codes == [0] * NODES, f"the nodes end with 0 when asked to: {codes}")
                [left] = database.query("SELECT (SELECT count(*) FROM node), (SELECT count(*) FROM shard WHERE owner IS NOT NULL)")
                findings.check(left == (0, 0), f"nodes that stopped leave nothing: {left[0]} rows of nodes, {left[1]} owned shards")
        finally:
            if nodes:
                nodes.close()
            receiver.close()
    if not findings.failed:
        subprocess.run(["rm", "-rf", str(folder)], check=True)
    return findings.finish()


def judge(findings: Findings, record: Record, results: list[Kill]):
    """Takeover times and repeats."""
    if not results:
        return
    for name, times in (
        ("the others own all its shards", [k.takeover for k in results if k.shards]),
        ("all its endpoints are delivered to again", [k.first_delivery for k in results if k.endpoints]),
    ):
        seen = sorted(t for t in times if t is not None)
        text = f"p50 {statistics.median(seen):.2f} s, max {seen[-1]:.2f} s" if seen else "never"
        findings.check(
            len(seen) == len(times) and all(t <= TAKEOVER_SECONDS_MAX for t in seen),
            f"after a kill {name}: {text} ({len(seen)} of {len(times)} kills)",
        )
    for k in results:
        if max(k.takeover or 0, k.first_delivery or 0) > TAKEOVER_SECONDS_MAX:
            print(f"        late: kill {k.life} of node-{k.node}, balanced before: {k.was_balanced}, shards {k.shards},"
                  f" endpoints {len(k.endpoints)}, owned by others after {k.takeover} s, all delivered to after {k.first_delivery} s")  # fmt: skip
    repeated = record.repeated()
    counts = [repeated[k.life] for k in results]
    findings.check(
        max(counts) <= DELIVERIES_IN_FLIGHT_MAX,
        f"repeated after a kill: at most {max(counts)}, mean {statistics.mean(counts):.1f}, allowed {DELIVERIES_IN_FLIGHT_MAX}",
    )
    of = {k.life: k for k in results}
    strays = [r for r in record.repeats if r.life in of and of[r.life].was_balanced and r.endpoint not in of[r.life].endpoints]
    findings.check(not strays, f"{len(strays)} repeated at endpoints that were not the killed node's {strays[:3]}")
    findings.check(not repeated[record.life], f"{repeated[record.life]} repeated that were taken after the last kill")


def check_rows(findings: Findings, nodes: Nodes, loader: Loader | None, record: Record):
    """What the tables say of it: every delivery has its successful attempt, and was counted once."""
    messages, delivered, counted = nodes.totals()
    expected = len(record.taken)
    findings.check(
        messages >= len(loader.acked) and delivered == expected,
        f"{messages} messages stored; {delivered} deliveries recorded as delivered, {expected} were taken",
    )
    findings.check(counted == delivered, f"{counted} deliveries counted as delivered, {delivered} are")


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--kills", type=int, default=10)
    arguments.add_argument("--seed", type=int, default=None, help="repeat the times of a run")
    options = arguments.parse_args()
    return asyncio.run(run(options.kills, options.seed if options.seed is not None else random.SystemRandom().getrandbits(32)))


if __name__ == "__main__":
    sys.exit(main())

"""A node that is stopped with SIGSTOP for three lease times and continued changes nothing that it no longer owns.

Three nodes deliver under load to a slow receiver, so that the node has deliveries in flight when it is stopped. The others take
over; then publishing pauses until everything is delivered and recorded, by the others. What the tables of deliveries hold is
remembered, and the node is continued: it reads the answers to what it had sent, and wants to record them. When it has
joined again with a new epoch, the tables must be what they were, to the row version: a write that changes a row, even to the
same values, leaves another `xmin`. At the end it works again as one of three, and nothing was lost.
"""

import argparse
import asyncio
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

from harness import Server, wait_until
from load import Findings, Loader, ReceiverProcess, Record, set_up_streams
from nodes import DELIVERIES_IN_FLIGHT_MAX, LEASE_SECONDS, SHARDS, Nodes
from postgres import Postgres

NODES = 3
APPS = 8
IN_FLIGHT = 48
RECEIVER_DELAY_SECONDS = 0.4
PAUSE_SECONDS = 3 * LEASE_SECONDS
TAKEOVER_SECONDS_MAX = 5.0
# What deliveries are made of. Of `shard`, `node` and `fence` the continued node changes its own, by joining again.
TABLES = ("message", "queue", "retry", "outcome", "attempt", "counter", "handover", "idempotency")


def picture(database: Postgres) -> dict[str, tuple]:
    """Each table as its number of rows, and a hash over all of them with the transactions that wrote them."""
    rows = "string_agg(t.xmin::text || t::text, ',' ORDER BY t::text)"
    return {table: database.query(f"SELECT count(*), md5(coalesce({rows}, '')) FROM {table} t")[0] for table in TABLES}


def fenced_attempts(server: Server) -> int:
    """Attempts that the node wanted to record and that counted for nothing, as its metrics say."""
    with urllib.request.urlopen(f"{server.url}/metrics", timeout=5) as answer:
        return int(re.search(r"^bellwire_record_attempts_fenced_total (\d+)", answer.read().decode(), re.M).group(1))


async def one_round(findings: Findings, nodes: Nodes, record: Record, loader: Loader, receiver: ReceiverProcess, victim: int):
    database, server = nodes.database, nodes.servers[victim]
    await asyncio.to_thread(nodes.wait_balanced)
    loader.go_on()
    receiver.delay(RECEIVER_DELAY_SECONDS)
    await asyncio.sleep(3)
    loader.check()
    epoch = nodes.epochs()[f"node-{victim}"]
    endpoints, fenced = nodes.endpoints_of(epoch), fenced_attempts(server)
    assert endpoints, f"node-{victim} owns no endpoint's shard, of {APPS * 2}"
    os.kill(server.process.pid, signal.SIGSTOP)
    stopped_at = time.monotonic()
    # The receiver still answers what the node had sent; the answers wait in its sockets.
    await asyncio.sleep(RECEIVER_DELAY_SECONDS + 0.2)
    record.next_life()

    def is_taken_over() -> bool:
        rows = database.query("SELECT count(*) FROM shard s JOIN node n ON n.epoch = s.owner WHERE s.owner <> %s", epoch)
        return rows[0][0] == SHARDS

    await asyncio.to_thread(wait_until, is_taken_over, 15, "the others own all shards")
    took = time.monotonic() - stopped_at
    findings.check(took <= TAKEOVER_SECONDS_MAX, f"the others own its shards {took:.2f} s after the stop")

    receiver.delay(0)
    await loader.pause()
    await record.wait_for_all(loader, 60)
    await asyncio.to_thread(nodes.wait_finished)
    await asyncio.sleep(max(0.0, stopped_at + PAUSE_SECONDS - time.monotonic()))
    repeats = [r for r in record.repeats if r.life == record.life - 1]
    strays = [r for r in repeats if r.endpoint not in endpoints]
    findings.check(
        len(repeats) <= DELIVERIES_IN_FLIGHT_MAX and not strays,
        f"{len(repeats)} repeated by the others, allowed {DELIVERIES_IN_FLIGHT_MAX}; {len(strays)} at endpoints it did not own",
    )

    before, arrivals = picture(database), len(record.arrivals)
    os.kill(server.process.pid, signal.SIGCONT)
    continued_at = time.monotonic()
    await asyncio.to_thread(
        wait_until, lambda: nodes.epochs().get(f"node-{victim}", epoch) > epoch, 15, f"node-{victim} joins again\n{server.log_tail()}"
    )
    rejoined = time.monotonic() - continued_at
    await asyncio.to_thread(nodes.wait_balanced)
    # Whatever it wanted to record it has tried by now: a record is retried within moments or given up.
    await asyncio.sleep(2)
    after, tried = picture(database), fenced_attempts(server) - fenced
    findings.check(
        tried >= len(repeats) > 0, f"continued, it wanted to record {tried} attempts, of them {len(repeats)} that others repeated"
    )
    changed = {table: (before[table][0], after[table][0]) for table in TABLES if before[table] != after[table]}
    findings.check(not changed, f"continued, it changed no row of {', '.join(TABLES)} {changed or ''}")
    record.update()
    late = record.arrivals[arrivals:]
    findings.check(not late, f"continued, it sent {len(late)} deliveries that others had done {late[:3]}")
    findings.check(rejoined <= TAKEOVER_SECONDS_MAX, f"it joined again after {rejoined:.2f} s")


async def run(rounds: int, seed: int) -> int:
    rng = random.Random(seed)
    folder = Path(tempfile.mkdtemp(prefix="bellwire-zombie-"))
    print(f"seed {seed}, folder {folder}")
    record, receiver, findings = Record(folder / "arrived"), ReceiverProcess(folder / "arrived"), Findings()
    loader = nodes = None
    with Postgres() as database:
        try:
            nodes = Nodes(database, database.create_database(), folder, NODES, "zombie").start()
            await asyncio.to_thread(nodes.wait_balanced)
            streams = set_up_streams(nodes.servers[0], receiver.url, APPS)
            # The stopped node answers nobody: callers go elsewhere soon.
            loader = Loader(nodes.ports, nodes.key, streams, folder / "acknowledged", answer_seconds_max=3)
            loader.start(IN_FLIGHT)
            for _ in range(rounds):
                await one_round(findings, nodes, record, loader, receiver, rng.randrange(NODES))
            loader.go_on()
            await asyncio.sleep(2)
            await loader.stop()
            await record.wait_for_all(loader, 60)
            await asyncio.to_thread(nodes.wait_finished)
            findings.check(not nodes.ended(), f"no node ended by itself {nodes.ended() or ''}")
            _, delivered, counted = nodes.totals()
            findings.check(
                delivered == len(record.taken) == counted, f"{delivered} deliveries recorded, {counted} counted, {len(record.taken)} taken"
            )
        except AssertionError as problem:
            findings.check(False, str(problem))
        finally:
            # A stopped process does not end when asked to.
            for server in nodes.servers if nodes else []:
                if server.process and server.process.poll() is None:
                    os.kill(server.process.pid, signal.SIGCONT)
        findings.nothing_lost(loader, record)
        try:
            if nodes:
                nodes.close()
        finally:
            receiver.close()
    if not findings.failed:
        subprocess.run(["rm", "-rf", str(folder)], check=True)
    return findings.finish()


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--rounds", type=int, default=2)
    arguments.add_argument("--seed", type=int, default=None, help="repeat the choices of a run")
    options = arguments.parse_args()
    return asyncio.run(run(options.rounds, options.seed if options.seed is not None else random.SystemRandom().getrandbits(32)))


if __name__ == "__main__":
    sys.exit(main())

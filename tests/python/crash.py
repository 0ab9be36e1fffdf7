"""Acceptance 6: kill -9 under load, again and again. No acknowledged message may be lost.

A loader publishes with 64 requests in flight and writes every acknowledged id to a log that it syncs; the server is killed
after a random 20 to 1,500 ms and started again. A request whose connection broke is repeated with its idempotency key.
Two endpoints take every message, and one request in fifty is answered 500, so that retries are killed as well.
At the end: every acknowledged id has arrived at both endpoints (0 lost); each event became one message although publishing was
repeated; what arrived again after it had been taken is, per kill, no more than may be in flight; and a restart with work
pending delivers within a second. The receiver is a process of its own, so that its speed is not the loader's.
"""

import argparse
import asyncio
import random
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from harness import Server
from load import Findings, Loader, ReceiverProcess, Record, set_up_streams

IN_FLIGHT = 64
# Deliveries that may be in flight (sent and not yet recorded) at once, as the server is told: what a kill may repeat.
DELIVERIES_IN_FLIGHT_MAX = 256
SETTINGS = {
    "BELLWIRE_DELIVERY__RETRY_SCHEDULE": "1s,1s,1s,2s,2s",
    "BELLWIRE_DELIVERY__IN_FLIGHT_MAX": str(DELIVERIES_IN_FLIGHT_MAX),
    "BELLWIRE_DELIVERY__ENDPOINT_IN_FLIGHT_MAX": str(DELIVERIES_IN_FLIGHT_MAX),
}
FIRST_DELIVERY_SECONDS_MAX = 1.0


async def cycle(server: Server, record: Record, loader: Loader, rng: random.Random, receiver: ReceiverProcess) -> dict:
    """Starts the server, lets it run for a random time, kills it; says what it repeated and how soon it delivered."""
    record.next_life()
    is_pending = bool(record.missing(loader))
    receiver.delay(rng.choice([0, 0.005, 0.05, 0.25]))
    server.spawn()
    life = rng.uniform(0.02, 1.5)
    await asyncio.sleep(life)
    if server.process.poll() is not None:
        raise AssertionError(f"the server ended by itself with {server.process.returncode}\n{server.log_tail()}")
    server.kill()
    fresh = await record.settle()
    first = fresh[0].at - server.started_at if is_pending and fresh else None
    return {"life": life, "is_pending": is_pending, "first": first}


async def run(cycles: int, seed: int) -> int:
    rng = random.Random(seed)
    folder = Path(tempfile.mkdtemp(prefix="bellwire-crash-"))
    record = Record(folder / "arrived")
    receiver = ReceiverProcess(folder / "arrived")
    print(f"seed {seed}, folder {folder}")
    server = Server(SETTINGS, data_dir=folder / "data", name="crash").start()
    findings, results, loader = Findings(), [], None
    try:
        streams = set_up_streams(server, receiver.url)
        server.kill()
        loader = Loader([server.port], server.key, streams, folder / "acknowledged")
        loader.start(IN_FLIGHT)
        for n in range(cycles):
            results.append(await cycle(server, record, loader, rng, receiver))
            loader.check()
            if (n + 1) % 10 == 0:
                worst = max(record.repeated().values(), default=0)
                print(f"{n + 1} kills, {len(loader.acked)} acknowledged, {len(record.arrivals)} arrivals, at most {worst} repeated")
        receiver.delay(0)
        record.next_life()
        server.start()
        await loader.stop()
        await record.wait_for_all(loader, 60)
    except AssertionError as problem:
        findings.check(False, str(problem))
    findings.nothing_lost(loader, record)
    repeated = record.repeated()
    counts = list(repeated.values()) or [0]
    first = sorted(r["first"] for r in results if r["first"] is not None)
    # A life cut off before its first delivery says nothing, unless it was longer than the promise.
    late = [r for r in results if r["is_pending"] and r["first"] is None and r["life"] > FIRST_DELIVERY_SECONDS_MAX]
    findings.check(len(results) == cycles, f"{len(results)} of {cycles} kill -9 cycles done")
    findings.check(not repeated[record.life], "the last life, which nothing killed, repeated nothing of its own")
    findings.check(
        max(counts) <= DELIVERIES_IN_FLIGHT_MAX,
        f"repeated after a kill: at most {max(counts)}, mean {statistics.mean(counts):.1f}, allowed {DELIVERIES_IN_FLIGHT_MAX}",
    )
    if first:
        p50, worst = statistics.median(first), first[-1]
        findings.check(
            worst <= FIRST_DELIVERY_SECONDS_MAX and not late,
            f"first delivery after a restart with work pending: p50 {p50 * 1000:.0f} ms, max {worst * 1000:.0f} ms"
            f" ({len(first)} restarts; {len(late)} delivered nothing within {FIRST_DELIVERY_SECONDS_MAX:.0f} s)",
        )
    else:
        findings.check(cycles < 10, "no restart had work pending: nothing measured")
    try:
        if server.process.poll() is None:
            findings.check(server.stop() == 0, "the last server ends with 0 when asked to")
    finally:
        server.close()
        receiver.close()
    if not findings.failed:
        subprocess.run(["rm", "-rf", str(folder)], check=True)
    return findings.finish()


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--cycles", type=int, default=100)
    arguments.add_argument("--seed", type=int, default=None, help="repeat the times of a run")
    options = arguments.parse_args()
    return asyncio.run(run(options.cycles, options.seed if options.seed is not None else random.SystemRandom().getrandbits(32)))


if __name__ == "__main__":
    sys.exit(main())

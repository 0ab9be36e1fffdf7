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
import json
import os
import random
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import NamedTuple

from harness import Server, _die_with_parent, free_port, wait_until

IN_FLIGHT = 64
# Deliveries that may be in flight (sent and not yet recorded) at once, as the server is told: what a kill may repeat.
DELIVERIES_IN_FLIGHT_MAX = 256
SETTINGS = {
    "BELLWIRE_DELIVERY__RETRY_SCHEDULE": "1s,1s,1s,2s,2s",
    "BELLWIRE_DELIVERY__IN_FLIGHT_MAX": str(DELIVERIES_IN_FLIGHT_MAX),
    "BELLWIRE_DELIVERY__ENDPOINT_IN_FLIGHT_MAX": str(DELIVERIES_IN_FLIGHT_MAX),
}
FIRST_DELIVERY_SECONDS_MAX = 1.0
WEBHOOK_ID = re.compile(rb"\r\nwebhook-id: *(msg_\w{27})", re.I)
CONTENT_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.I)
EVENT_NUMBER = re.compile(rb'"n":(\d+)')
FILLER = "x" * 560
ENDPOINTS = ("first", "second")
# One request in so many is answered 500.
FAILURES_ONE_IN = 50


class ReceiverProtocol(asyncio.Protocol):
    """Answers 204 to nearly everything, after `delay` seconds, and writes `id/endpoint number status time` to the record."""

    record = -1
    delay = 0.0

    def connection_made(self, transport):
        self.transport, self.buffer = transport, b""

    def data_received(self, data):
        self.buffer += data
        while (end := self.buffer.find(b"\r\n\r\n")) >= 0:
            head = self.buffer[: end + 2]
            total = end + 4 + int(CONTENT_LENGTH.search(head).group(1))
            if len(self.buffer) < total:
                return
            body, self.buffer = self.buffer[end + 4 : total], self.buffer[total:]
            endpoint = head[: head.index(b" HTTP/1.1")].rpartition(b"/")[2]
            message_id, number = WEBHOOK_ID.search(head).group(1), EVENT_NUMBER.search(body).group(1)
            status = 500 if random.randrange(FAILURES_ONE_IN) == 0 else 204
            os.write(self.record, b"%s/%s %s %d %.6f\n" % (message_id, endpoint, number, status, time.monotonic()))
            if self.delay:
                asyncio.get_running_loop().call_later(self.delay, self.answer, status)
            else:
                self.answer(status)

    def answer(self, status: int):
        if not self.transport.is_closing():
            length = b"content-length: 0\r\n" if status == 500 else b""
            self.transport.write(b"HTTP/1.1 %d Scripted\r\n%s\r\n" % (status, length))


async def receive(port: int, record: str):
    """The receiver's process: each line on standard input is a new delay in seconds."""
    ReceiverProtocol.record = os.open(record, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    loop = asyncio.get_running_loop()
    await loop.create_server(ReceiverProtocol, "127.0.0.1", port, backlog=1024)
    lines = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    print("ready", flush=True)
    while line := await lines.readline():
        ReceiverProtocol.delay = float(line)


class Loader:
    """Keeps `IN_FLIGHT` publishes going, over broken connections and restarts, until it is told to stop."""

    def __init__(self, server: Server, app: str, log: Path):
        self.port, self.key, self.app = server.port, server.key, app
        self.log = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        self.acked: dict[str, int] = {}
        self.refused = Counter()
        self.next_number = 0
        self.stopping = False
        self._unsynced: list[bytes] = []

    def request(self, number: int) -> bytes:
        body = json.dumps({"eventType": "crash.test", "payload": {"n": number, "filler": FILLER}}, separators=(",", ":"))
        return (
            f"POST /api/v1/app/{self.app}/msg HTTP/1.1\r\nhost: 127.0.0.1\r\nauthorization: Bearer {self.key}\r\n"
            f"content-type: application/json\r\nidempotency-key: crash-{number}\r\ncontent-length: {len(body)}\r\n\r\n{body}"
        ).encode()

    async def publish_forever(self):
        number, streams = None, None
        while not (self.stopping and number is None):
            if number is None:
                number, self.next_number = self.next_number, self.next_number + 1
            try:
                if streams is None:
                    streams = await asyncio.open_connection("127.0.0.1", self.port)
                reader, writer = streams
                writer.write(self.request(number))
                status, body = await asyncio.wait_for(self.answer(reader), 20)
            except (OSError, asyncio.IncompleteReadError, asyncio.TimeoutError):
                if streams:
                    streams[1].close()
                streams = None
                await asyncio.sleep(0.01)
                continue
            if status == 202:
                message_id = json.loads(body)["id"]
                self._unsynced.append(f"{message_id} {number}\n".encode())
                self.acked[message_id] = number
                number = None
            else:
                self.refused[status] += 1
                if status not in (429, 503):
                    raise AssertionError(f"publishing was answered {status}: {body[:500]!r}")
                await asyncio.sleep(0.05)
            if self.stopping and number is None and streams:
                streams[1].close()

    @staticmethod
    async def answer(reader) -> tuple[int, bytes]:
        head = await reader.readuntil(b"\r\n\r\n")
        length = CONTENT_LENGTH.search(head)
        return int(head[9:12]), await reader.readexactly(int(length.group(1)) if length else 0)

    async def sync_forever(self):
        """The log of what was acknowledged is on disk before it counts."""
        loop = asyncio.get_running_loop()
        while not self.stopping:
            batch, self._unsynced = self._unsynced, []
            if batch:
                os.write(self.log, b"".join(batch))
                await loop.run_in_executor(None, os.fdatasync, self.log)
            await asyncio.sleep(0.02)


class Arrival(NamedTuple):
    delivery: str
    number: int
    status: int
    at: float


class Record:
    """What arrived at the receiver, read from its file as it grows."""

    def __init__(self, path: Path):
        path.touch()
        self.file = open(path)
        self.arrivals: list[Arrival] = []
        # Deliveries (message id and endpoint) that were answered 204.
        self.taken: set[str] = set()
        # Of these, those whose last answer was 204: the life of the server in which it was given.
        self.taken_in: dict[str, int] = {}
        self.life = 0
        # What was sent again although it had been taken, by the life that ended without having recorded it.
        self.repeated: Counter[int] = Counter()

    def update(self) -> list[Arrival]:
        """The new arrivals since the last call."""
        fresh: list[Arrival] = []
        while True:
            at = self.file.tell()
            line = self.file.readline()
            if not line.endswith("\n"):
                self.file.seek(at)
                break
            delivery, number, status, at = line.split()
            fresh.append(Arrival(delivery, int(number), int(status), float(at)))
        self.arrivals += fresh
        for arrival in fresh:
            if (life := self.taken_in.pop(arrival.delivery, None)) is not None:
                self.repeated[life] += 1
            if arrival.status == 204:
                self.taken.add(arrival.delivery)
                self.taken_in[arrival.delivery] = self.life
        return fresh

    async def settle(self) -> list[Arrival]:
        """As `update`, once the receiver has read what a killed server had sent."""
        fresh = self.update()
        while True:
            await asyncio.sleep(0.02)
            more = self.update()
            if not more:
                return fresh
            fresh += more

    def missing(self, acked) -> list[str]:
        """Deliveries of acknowledged messages that no endpoint has taken."""
        return [f"{i}/{endpoint}" for i in acked for endpoint in ENDPOINTS if f"{i}/{endpoint}" not in self.taken]


class Findings:
    def __init__(self):
        self.passed = self.failed = 0

    def check(self, holds: bool, text: str):
        self.passed, self.failed = self.passed + bool(holds), self.failed + (not holds)
        print(("ok      " if holds else "FAILED  ") + text)


async def cycle(server: Server, record: Record, loader: Loader, rng: random.Random, receiver) -> dict:
    """Starts the server, lets it run for a random time, kills it; says what it repeated and how soon it delivered."""
    record.life += 1
    is_pending = bool(record.missing(loader.acked))
    receiver.stdin.write(f"{rng.choice([0, 0.005, 0.05, 0.25])}\n".encode())
    receiver.stdin.flush()
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
    receiver_port = free_port()
    receiver = subprocess.Popen(
        [sys.executable, __file__, "--receiver", str(receiver_port), str(folder / "arrived")],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, preexec_fn=_die_with_parent,
    )  # fmt: skip
    assert receiver.stdout.readline() == b"ready\n"
    print(f"seed {seed}, folder {folder}")
    server = Server(SETTINGS, data_dir=folder / "data", name="crash").start()
    findings, results, loader = Findings(), [], None
    try:
        app = set_up(server, f"http://127.0.0.1:{receiver_port}/")
        server.kill()
        loader = Loader(server, app, folder / "acknowledged")
        tasks = [asyncio.create_task(loader.publish_forever()) for _ in range(IN_FLIGHT)]
        tasks.append(asyncio.create_task(loader.sync_forever()))
        for n in range(cycles):
            results.append(await cycle(server, record, loader, rng, receiver))
            for task in tasks:
                if task.done():
                    task.result()
            if (n + 1) % 10 == 0:
                worst = max(record.repeated.values(), default=0)
                print(f"{n + 1} kills, {len(loader.acked)} acknowledged, {len(record.arrivals)} arrivals, at most {worst} repeated")
        receiver.stdin.write(b"0\n")
        receiver.stdin.flush()
        record.life += 1
        server.start()
        loader.stopping = True
        await asyncio.wait_for(asyncio.gather(*tasks), 60)

        def all_arrived() -> bool:
            record.update()
            return not record.missing(loader.acked)

        await asyncio.to_thread(wait_until, all_arrived, 60, "every acknowledged message arrives")
    except AssertionError as problem:
        findings.check(False, str(problem))
    finally:
        record.update()
    lost = record.missing(loader.acked) if loader else []
    numbers: dict[int, set[str]] = {}
    for arrival in record.arrivals:
        numbers.setdefault(arrival.number, set()).add(arrival.delivery.partition("/")[0])
    doubled = [n for n, ids in numbers.items() if len(ids) > 1]
    wrong = [i for i, n in (loader.acked if loader else {}).items() if numbers.get(n) and i not in numbers[n]]
    repeated = list(record.repeated.values()) or [0]
    first = sorted(r["first"] for r in results if r["first"] is not None)
    # A life cut off before its first delivery says nothing, unless it was longer than the promise.
    late = [r for r in results if r["is_pending"] and r["first"] is None and r["life"] > FIRST_DELIVERY_SECONDS_MAX]
    findings.check(len(results) == cycles, f"{len(results)} of {cycles} kill -9 cycles done")
    findings.check(loader and len(loader.acked) > cycles, f"{len(loader.acked)} messages acknowledged, {len(record.taken)} deliveries taken")
    findings.check(not lost, f"{len(lost)} deliveries of acknowledged messages lost {lost[:5]}")
    findings.check(not doubled and not wrong, f"{len(doubled)} events became two messages although their key was the same {doubled[:5]}")
    findings.check(not record.repeated[record.life], "the last life, which nothing killed, repeated nothing of its own")
    findings.check(
        max(repeated) <= DELIVERIES_IN_FLIGHT_MAX,
        f"repeated after a kill: at most {max(repeated)}, mean {statistics.mean(repeated):.1f}, allowed {DELIVERIES_IN_FLIGHT_MAX}",
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
        receiver.stdin.close()
        receiver.wait(5)
    if not findings.failed:
        subprocess.run(["rm", "-rf", str(folder)], check=True)
    print(f"{findings.passed} passed, {findings.failed} failed")
    return 1 if findings.failed else 0


def set_up(server: Server, url: str) -> str:
    from svix.api import ApplicationIn, EndpointIn, Svix, SvixOptions

    svix = Svix(server.key, SvixOptions(server_url=server.url))
    app = svix.application.create(ApplicationIn(name="Crash"))
    for endpoint in ENDPOINTS:
        svix.endpoint.create(app.id, EndpointIn(url=url + endpoint))
    return app.id


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--cycles", type=int, default=100)
    arguments.add_argument("--seed", type=int, default=None, help="repeat the times of a run")
    arguments.add_argument("--receiver", nargs=2, help=argparse.SUPPRESS)
    options = arguments.parse_args()
    if options.receiver:
        asyncio.run(receive(int(options.receiver[0]), options.receiver[1]))
        return 0
    return asyncio.run(run(options.cycles, options.seed if options.seed is not None else random.SystemRandom().getrandbits(32)))


if __name__ == "__main__":
    sys.exit(main())

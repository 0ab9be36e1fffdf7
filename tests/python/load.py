"""What the tests that kill things share: a loader that repeats what was not acknowledged, a receiver that writes down what
arrived, and the comparison of both.

The receiver is a process of its own (this file, run with a port and the file it writes), so that its speed is not the loader's.
"""

import asyncio
import json
import os
import random
import re
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import NamedTuple

from harness import _die_with_parent, free_port

WEBHOOK_ID = re.compile(rb"\r\nwebhook-id: *(msg_\w{27})", re.I)
CONTENT_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.I)
RETRY_AFTER = re.compile(rb"\r\nretry-after: *\d+", re.I)
EVENT_NUMBER = re.compile(rb'"n":(\d+)')
FILLER = "x" * 560
# One request in so many is answered 500, so that retries are killed as well.
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


class ReceiverProcess:
    """The receiver, running until it is closed or this process ends."""

    def __init__(self, record: Path):
        port = free_port()
        self.url = f"http://127.0.0.1:{port}/"
        self.process = subprocess.Popen(
            [sys.executable, __file__, str(port), str(record)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, preexec_fn=_die_with_parent,
        )  # fmt: skip
        assert self.process.stdout.readline() == b"ready\n"

    def delay(self, seconds: float):
        """From now on answers come after this time."""
        self.process.stdin.write(f"{seconds}\n".encode())
        self.process.stdin.flush()

    def close(self):
        self.process.stdin.close()
        self.process.wait(5)


class Streams(NamedTuple):
    """What each event goes to: event number `n` is published into `apps[n % len(apps)]`, which has `endpoints[n % len(apps)]`."""

    apps: list[str]
    endpoints: list[list[str]]

    def app(self, number: int) -> str:
        return self.apps[number % len(self.apps)]

    def deliveries(self, message_id: str, number: int) -> list[str]:
        return [f"{message_id}/{endpoint}" for endpoint in self.endpoints[number % len(self.apps)]]


def set_up_streams(server, url: str, apps: int = 1, has_busy: bool = False) -> Streams:
    """Applications with two endpoints each at the receiver, made with the official client. `has_busy`: and one more, with one endpoint, to
    which every other event goes."""
    from svix.api import ApplicationIn, EndpointIn, Svix, SvixOptions

    svix = Svix(server.key, SvixOptions(server_url=server.url))

    def make(name: str, names: list[str]) -> tuple[str, list[str]]:
        app = svix.application.create(ApplicationIn(name=name))
        for endpoint in names:
            svix.endpoint.create(app.id, EndpointIn(url=url + endpoint))
        return app.id, names

    made = [make(f"Load {n}", [f"{n}-first", f"{n}-second"]) for n in range(apps)]
    if has_busy:
        busy = make("Busy", ["busy"])
        made = [stream for other in made for stream in (busy, other)]
    return Streams([app for app, _ in made], [names for _, names in made])


class Answer(NamedTuple):
    at: float
    took: float
    status: int
    has_retry_after: bool


class Loader:
    """Keeps publishes going, over broken connections and restarts and at all nodes, until it is told to stop.

    A request whose connection broke, or that was refused for now, is repeated with its idempotency key, at the next node."""

    def __init__(self, ports: list[int], key: str, streams: Streams, log: Path, answer_seconds_max: float = 20.0):
        self.ports, self.key, self.streams = ports, key, streams
        self.log = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        self.answer_seconds_max = answer_seconds_max
        self.acked: dict[str, int] = {}
        self.answers: list[Answer] = []
        self.refused: Counter[int] = Counter()
        self.next_number = 0
        self.is_paused = False
        self.stopping = False
        self._unsynced: list[bytes] = []
        self._tasks: list[asyncio.Task] = []
        self._busy = 0

    def start(self, in_flight: int):
        self._tasks = [asyncio.create_task(self._publish_forever(n)) for n in range(in_flight)]
        self._tasks.append(asyncio.create_task(self._sync_forever()))

    def check(self):
        """Fails if publishing ended by itself."""
        for task in self._tasks:
            if task.done():
                task.result()

    async def pause(self, seconds: float = 60.0):
        """Publishes nothing more; returns when everything begun is acknowledged."""
        self.is_paused = True
        deadline = time.monotonic() + seconds
        while self._busy:
            self.check()
            assert time.monotonic() < deadline, f"{self._busy} publishes not acknowledged within {seconds} s"
            await asyncio.sleep(0.02)

    def go_on(self):
        self.is_paused = False

    async def stop(self, seconds: float = 60.0):
        self.stopping = True
        await asyncio.wait_for(asyncio.gather(*self._tasks), seconds)

    def request(self, number: int) -> bytes:
        body = json.dumps({"eventType": "load.test", "payload": {"n": number, "filler": FILLER}}, separators=(",", ":"))
        return (
            f"POST /api/v1/app/{self.streams.app(number)}/msg HTTP/1.1\r\nhost: 127.0.0.1\r\nauthorization: Bearer {self.key}\r\n"
            f"content-type: application/json\r\nidempotency-key: load-{number}\r\ncontent-length: {len(body)}\r\n\r\n{body}"
        ).encode()

    async def _publish_forever(self, worker: int):
        number, streams, turn = None, None, worker
        while not (self.stopping and number is None):
            if number is None:
                if self.is_paused:
                    await asyncio.sleep(0.02)
                    continue
                number, self.next_number = self.next_number, self.next_number + 1
                self._busy += 1
            began = time.monotonic()
            try:
                if streams is None:
                    streams = await asyncio.open_connection("127.0.0.1", self.ports[turn % len(self.ports)])
                reader, writer = streams
                writer.write(self.request(number))
                head, body = await asyncio.wait_for(self._answer(reader), self.answer_seconds_max)
            except (OSError, asyncio.IncompleteReadError, asyncio.TimeoutError):
                if streams:
                    streams[1].close()
                streams, turn = None, turn + 1
                await asyncio.sleep(0.01)
                continue
            status, now = int(head[9:12]), time.monotonic()
            self.answers.append(Answer(now, now - began, status, bool(RETRY_AFTER.search(head))))
            if status == 202:
                message_id = json.loads(body)["id"]
                self._unsynced.append(f"{message_id} {number}\n".encode())
                self.acked[message_id] = number
                number = None
                self._busy -= 1
            else:
                self.refused[status] += 1
                if status not in (429, 503):
                    raise AssertionError(f"publishing was answered {status}: {body[:500]!r}")
                # As a caller with several nodes does it: the next one may be well.
                if len(self.ports) > 1:
                    streams[1].close()
                    streams, turn = None, turn + 1
                await asyncio.sleep(0.05)
        if streams:
            streams[1].close()

    @staticmethod
    async def _answer(reader) -> tuple[bytes, bytes]:
        head = await reader.readuntil(b"\r\n\r\n")
        length = CONTENT_LENGTH.search(head)
        return head, await reader.readexactly(int(length.group(1)) if length else 0)

    async def _sync_forever(self):
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

    @property
    def endpoint(self) -> str:
        return self.delivery.partition("/")[2]


class Repeat(NamedTuple):
    """A delivery that arrived although it had been taken. life: in which it had been taken."""

    delivery: str
    life: int
    at: float

    @property
    def endpoint(self) -> str:
        return self.delivery.partition("/")[2]


class Record:
    """What arrived at the receiver, read from its file as it grows."""

    def __init__(self, path: Path):
        path.touch()
        self.file = open(path)
        self.arrivals: list[Arrival] = []
        # Deliveries (message id and endpoint) that were answered 204.
        self.taken: set[str] = set()
        # Of these, those whose last answer was 204: the life in which it was given. A life ends with a kill.
        self._taken_in: dict[str, int] = {}
        self.life = 0
        # What was sent again although it had been taken: by what ended without having recorded it.
        self.repeats: list[Repeat] = []

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
            if (life := self._taken_in.pop(arrival.delivery, None)) is not None:
                self.repeats.append(Repeat(arrival.delivery, life, arrival.at))
            if arrival.status == 204:
                self.taken.add(arrival.delivery)
                self._taken_in[arrival.delivery] = self.life
        return fresh

    def next_life(self):
        """What is taken from now on is taken in another life."""
        self.update()
        self.life += 1

    def repeated(self) -> Counter[int]:
        """How much of each life was sent again."""
        return Counter(repeat.life for repeat in self.repeats)

    async def settle(self) -> list[Arrival]:
        """As `update`, once the receiver has read what a killed server had sent."""
        fresh = self.update()
        while True:
            await asyncio.sleep(0.02)
            more = self.update()
            if not more:
                return fresh
            fresh += more

    def missing(self, loader: Loader) -> list[str]:
        """Deliveries of acknowledged messages that no endpoint has taken."""
        return [d for i, n in loader.acked.items() for d in loader.streams.deliveries(i, n) if d not in self.taken]

    async def wait_for_all(self, loader: Loader, seconds: float):
        """Returns when every acknowledged message has arrived everywhere; fails at the deadline."""
        deadline = time.monotonic() + seconds
        while True:
            self.update()
            missing = self.missing(loader)
            if not missing:
                return
            assert time.monotonic() < deadline, f"{len(missing)} deliveries did not arrive within {seconds} s, such as {missing[:3]}"
            await asyncio.sleep(0.05)


class Findings:
    """What was checked, as lines and counts."""

    def __init__(self):
        self.passed = self.failed = 0

    def check(self, holds: bool, text: str):
        self.passed, self.failed = self.passed + bool(holds), self.failed + (not holds)
        print(("ok      " if holds else "FAILED  ") + text, flush=True)

    def nothing_lost(self, loader: Loader | None, record: Record):
        """Every acknowledged message arrived everywhere, and as one message although publishing was repeated."""
        record.update()
        lost = record.missing(loader) if loader else []
        numbers: dict[int, set[str]] = {}
        for arrival in record.arrivals:
            numbers.setdefault(arrival.number, set()).add(arrival.delivery.partition("/")[0])
        doubled = [n for n, ids in numbers.items() if len(ids) > 1]
        wrong = [i for i, n in (loader.acked if loader else {}).items() if numbers.get(n) and i not in numbers[n]]
        acked = len(loader.acked) if loader else 0
        self.check(acked > 0, f"{acked} messages acknowledged, {len(record.taken)} deliveries taken")
        self.check(not lost, f"{len(lost)} deliveries of acknowledged messages lost {lost[:5]}")
        self.check(not doubled and not wrong, f"{len(doubled)} events became two messages although their key was the same {doubled[:5]}")

    def finish(self) -> int:
        """Prints the counts; the exit code."""
        print(f"{self.passed} passed, {self.failed} failed")
        return 1 if self.failed else 0


if __name__ == "__main__":
    asyncio.run(receive(int(sys.argv[1]), sys.argv[2]))

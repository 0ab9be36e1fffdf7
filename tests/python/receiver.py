"""A scripted receiver of webhooks on loopback: it keeps the raw bytes of what arrived and answers as it was told."""

import threading
import time
from collections import deque
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Delivery:
    """One request as it arrived. Header names are in lower case; `header_list` keeps order, case and repeats."""

    path: str
    body: bytes
    headers: dict[str, str]
    header_list: list[tuple[str, str]]
    at: float = field(default_factory=time.monotonic)

    @property
    def id(self) -> str:
        return self.headers.get("webhook-id") or self.headers.get("svix-id", "")


@dataclass
class Answer:
    status: int = 204
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    # Seconds before the answer; a `hang` never answers and holds the connection until the receiver closes.
    delay: float = 0.0
    hang: bool = False


class Hook:
    """One path of the receiver. `script` queues answers for the next requests; after them `default` answers."""

    def __init__(self, url: str):
        self.url = url
        self.default = Answer()
        self.deliveries: list[Delivery] = []
        self._script: deque[Answer] = deque()
        self._changed = threading.Condition()

    def script(self, *answers: Answer | int) -> "Hook":
        with self._changed:
            self._script.extend(a if isinstance(a, Answer) else Answer(a) for a in answers)
        return self

    def always(self, answer: Answer | int) -> "Hook":
        self.default = answer if isinstance(answer, Answer) else Answer(answer)
        return self

    def arrive(self, delivery: Delivery) -> Answer:
        with self._changed:
            self.deliveries.append(delivery)
            answer = self._script.popleft() if self._script else self.default
            self._changed.notify_all()
            return answer

    def wait(self, count: int, seconds: float = 10.0) -> list[Delivery]:
        """The deliveries so far, once there are at least `count`."""
        with self._changed:
            arrived = self._changed.wait_for(lambda: len(self.deliveries) >= count, seconds)
            assert arrived, f"{self.url}: {len(self.deliveries)} of {count} deliveries within {seconds} s"
            return list(self.deliveries)

    def wait_for(self, message_id: str, count: int = 1, seconds: float = 10.0) -> list[Delivery]:
        """The deliveries of one message, once there are at least `count`."""

        def of_message():
            return [d for d in self.deliveries if d.id == message_id]

        with self._changed:
            arrived = self._changed.wait_for(lambda: len(of_message()) >= count, seconds)
            assert arrived, f"{self.url}: {len(of_message())} of {count} deliveries of {message_id} within {seconds} s"
            return of_message()


class Receiver:
    """Serves any number of hooks under one port."""

    def __init__(self):
        self._hooks: dict[str, Hook] = {}
        self._closing = threading.Event()
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def do_POST(self):
                length = int(self.headers.get("content-length", 0))
                body = self.rfile.read(length)
                pairs = list(self.headers.items())
                delivery = Delivery(self.path, body, {k.lower(): v for k, v in pairs}, pairs)
                hook = receiver._hooks.get(self.path)
                answer = hook.arrive(delivery) if hook else Answer(404, body=b"no such hook")
                if answer.hang:
                    receiver._closing.wait(60)
                    self.close_connection = True
                    return
                if answer.delay:
                    receiver._closing.wait(answer.delay)
                head = f"HTTP/1.1 {answer.status} Scripted\r\n"
                for name, value in answer.headers.items():
                    head += f"{name}: {value}\r\n"
                if answer.status not in (204, 304):
                    head += f"content-length: {len(answer.body)}\r\n"
                self.wfile.write(head.encode() + b"\r\n" + answer.body)

            # A redirect that was followed would arrive as a GET: recorded like anything else.
            do_GET = do_PUT = do_POST

            def log_message(self, *_):
                pass

        class Listener(ThreadingHTTPServer):
            daemon_threads = True
            request_queue_size = 512

            def handle_error(self, *_):
                # A sender that goes away in the middle (a killed server) is part of the tests.
                pass

        self._listener = Listener(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._listener.server_address[1]}"
        self._thread = threading.Thread(target=self._listener.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()
        self._count = 0

    def __enter__(self) -> "Receiver":
        return self

    def __exit__(self, *_):
        self.close()

    def hook(self, name: str = "hook") -> Hook:
        """A new path of its own."""
        self._count += 1
        path = f"/{name}-{self._count}"
        self._hooks[path] = Hook(self.url + path)
        return self._hooks[path]

    def close(self):
        self._closing.set()
        self._listener.shutdown()
        self._listener.server_close()

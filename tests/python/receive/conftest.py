"""What the tests of receiving share: a server, its API of sources, and a fresh source for each test."""

import time
import uuid
from dataclasses import dataclass

import httpx
import pytest

from harness import wait_until


@dataclass
class Source:
    """A source under test: its URL for senders, and what the operator sees of it."""

    api: httpx.Client
    id: str
    url: str
    app: str

    def send(self, content: bytes, headers: dict | None = None, method: str = "POST", rest: str = "", **options) -> httpx.Response:
        return httpx.request(method, self.url + rest, content=content, headers=headers, timeout=30, **options)

    def set(self, **settings):
        answer = self.api.patch(f"/api/v1/source/{self.id}/settings", json=settings)
        assert answer.status_code == 200, answer.text

    def messages(self) -> list[dict]:
        answer = self.api.get(f"/api/v1/app/{self.app}/msg", params={"limit": 250})
        assert answer.status_code == 200, answer.text
        return answer.json()["data"]

    def log(self, reason: str, count: int = 1) -> list[dict]:
        """The entries with this reason, once there are that many: they are written a moment after the answer."""

        def found():
            answer = self.api.get(f"/api/v1/source/{self.id}/log", params={"limit": 250})
            assert answer.status_code == 200, answer.text
            entries = [entry for entry in answer.json()["data"] if entry["reason"].startswith(reason)]
            return entries if len(entries) >= count else None

        return wait_until(found, 10, f"{count} entries {reason!r} in the log of {self.id}", every=0.05)


@pytest.fixture(scope="session")
def api(server):
    headers = {"authorization": f"Bearer {server.key}"}
    with httpx.Client(base_url=server.url, headers=headers, timeout=30) as client:
        yield client


@pytest.fixture
def source_of(api):
    """Makes a source of a type, with a config."""

    def create(kind: str, config: dict | None = None, **settings) -> Source:
        body = {"name": f"{kind} {uuid.uuid4()}", "type": kind, "config": config or {}, "settings": settings or None}
        answer = api.post("/ingest/api/v1/source", json={name: value for name, value in body.items() if value is not None})
        assert answer.status_code == 201, answer.text
        made = answer.json()
        return Source(api, made["id"], made["ingestUrl"], made["appId"])

    return create


@pytest.fixture
def deliver_to(svix, receiver):
    """An endpoint of the source's application, and the hook behind it."""
    from svix.api import EndpointIn

    def create(source: Source):
        hook = receiver.hook("received")
        endpoint = svix.endpoint.create(source.app, EndpointIn(url=hook.url))
        return hook, svix.endpoint.get_secret(source.app, endpoint.id).key

    return create


@pytest.fixture
def now() -> int:
    return int(time.time())

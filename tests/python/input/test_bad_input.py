"""Acceptance 8: bad input gets a clear answer (never a 5xx) and loses nothing."""

import json
import socket

import httpx
import pytest
from svix.api import ApplicationIn, EndpointIn, MessageIn

from harness import Server


@pytest.fixture(scope="module")
def api(server):
    headers = {"authorization": f"Bearer {server.key}"}
    with httpx.Client(base_url=f"{server.url}/api/v1", headers=headers, timeout=20) as client:
        yield client


@pytest.fixture(scope="module")
def guarded():
    """A server with its egress guard as it is by default."""
    with Server({"BELLWIRE_EGRESS__ALLOW": ""}, name="guarded") as running:
        yield running


def assert_clear(answer: httpx.Response, *expected: int):
    """A refusal has one of the expected statuses and a body that says what is wrong."""
    assert answer.status_code in expected, f"{answer.status_code}: {answer.text[:500]}"
    assert answer.headers["content-type"].startswith("application/json"), answer.headers
    body = answer.json()
    if answer.status_code == 422:
        assert body["detail"] and all({"loc", "msg", "type"} <= d.keys() for d in body["detail"]), body
    else:
        assert body["code"] and body["detail"], body


def post(api, path: str, content: bytes, content_type: str = "application/json") -> httpx.Response:
    return api.post(path, content=content, headers={"content-type": content_type})


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"nonsense",
        b"[]",
        b"null",
        b'{"eventType":"a.b","payload":{}} trailing',
        b'{"eventType":"a.b","payload":{"bad":"\xff\xfe"}}',
        b'{"eventType":"a.b","payload":{"n":01}}',
        b'{"eventType":"a.b","payload":{"n":NaN}}',
        b'{"eventType":"a.b","payload":{"t":"\x01"}}',
        b'{"eventType":"a.b","payload":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        b'{"eventType":"a.b","payload":"a text"}',
        b'{"eventType":"a.b"}',
        b'{"payload":{}}',
        b'{"eventType":7,"payload":{}}',
        b'{"eventType":"","payload":{}}',
        b'{"eventType":"with space","payload":{}}',
        b'{"eventType":"' + b"a" * 257 + b'","payload":{}}',
        b'{"eventType":"a.b","payload":{},"channels":"blue"}',
        b'{"eventType":"a.b","payload":{},"channels":["a b"]}',
        b'{"eventType":"a.b","payload":{},"channels":["1","2","3","4","5","6","7","8","9","10","11"]}',
        b'{"eventType":"a.b","payload":{},"deliverAt":"tomorrow"}',
        b'{"eventType":"a.b","payload":{},"payloadRetentionPeriod":-1}',
        b'{"eventType":"a.b","payload":{},"eventId":"not an id"}',
    ],
)
def test_a_malformed_message_is_refused_with_a_reason(api, app, content):
    """Broken: garbage is accepted, or a publisher is left without a word."""
    assert_clear(post(api, f"/app/{app.id}/msg", content), 400, 422)


def test_a_payload_at_the_limit_passes_and_one_above_it_is_413(api, app, svix, receiver):
    """Broken: a large event is cut short instead of refused."""
    hook = receiver.hook("large")
    svix.endpoint.create(app.id, EndpointIn(url=hook.url))

    def message(payload_bytes: int) -> bytes:
        return b'{"eventType":"large.event","payload":{"a":"' + b"x" * (payload_bytes - len('{"a":""}')) + b'"}}'

    fits = post(api, f"/app/{app.id}/msg", message(1024 * 1024 - 4096))
    assert fits.status_code == 202, fits.text[:300]
    assert len(hook.wait_for(fits.json()["id"])[0].body) == 1024 * 1024 - 4096
    assert_clear(post(api, f"/app/{app.id}/msg", message(1024 * 1024 + 4096)), 413)
    assert_clear(post(api, f"/app/{app.id}/msg", message(20 * 1024 * 1024)), 413)
    assert_clear(post(api, "/app", b'{"name":"' + b"x" * 5_000_000 + b'"}'), 413)


@pytest.mark.parametrize(
    "path",
    [
        "/app/app_000000000000000000000000000",
        "/app/no-such-uid",
        "/app/{app}/endpoint/ep_000000000000000000000000000",
        "/app/{app}/endpoint/ep_000000000000000000000000000/secret",
        "/app/{app}/msg/msg_000000000000000000000000000",
        "/app/{app}/msg/no-such-event",
        "/app/{app}/attempt/msg/msg_000000000000000000000000000",
        "/app/{app}/attempt/endpoint/ep_000000000000000000000000000",
        "/event-type/no.such.type",
        "/nonsense",
        "/../../etc/passwd",
    ],
)
def test_what_does_not_exist_is_404_with_a_body(api, app, path):
    """Broken: a wrong id looks like an empty result."""
    assert_clear(api.get(path.format(app=app.id)), 404)


@pytest.mark.parametrize("query", ["limit=0", "limit=-1", "limit=abc", "limit=251", "limit=99999999999999999999", "order=sideways"])
def test_page_limits_outside_the_bounds_are_refused(api, query):
    """Broken: one request can make the server read everything."""
    assert_clear(api.get(f"/app?{query}"), 422)


@pytest.mark.parametrize("iterator", ["nonsense", "app_short", "%00", "msg_000000000000000000000000000", "-", "' OR 1=1 --"])
def test_an_invalid_cursor_is_refused(api, iterator):
    """Broken: a mistyped cursor silently starts at the beginning."""
    assert_clear(api.get("/app", params={"iterator": iterator}), 400, 422)


@pytest.mark.parametrize(
    "query",
    ["before=yesterday", "after=2026-13-01T00:00:00Z", "channel=a b", "with_content=maybe", "event_types=a b"]
)
def test_invalid_filters_are_refused(api, app, query):
    """Broken: a filter that means nothing shows everything."""
    assert_clear(api.get(f"/app/{app.id}/msg?{query}"), 400, 422)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "nonsense",
        "example.com/hook",
        "ftp://example.com/",
        "file:///etc/passwd",
        "javascript:alert(1)",
        "http://",
        "https://user:password@example.com/",
        "https://example.com/\r\nx-evil: 1",
        "https://example.com:99999/",
        "https://" + "a" * 3_000 + ".com/",
        "https://single-label/",
        "http://[::1",
    ],
)
def test_a_bad_url_is_refused(api, app, url):
    """Broken: an endpoint is made that can never be delivered to, or that is an attack."""
    assert_clear(api.post(f"/app/{app.id}/endpoint", json={"url": url}), 400, 422)


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1/",
        "http://localhost:8071/",
        "http://10.0.0.1/",
        "http://192.168.1.1/",
        "http://169.254.169.254/latest/meta-data/",
        "http://[::1]/",
        "http://[::ffff:127.0.0.1]/",
        "http://2130706433/",
        "http://0x7f.1/",
        "http://168.63.129.16/",
        "http://router.internal/",
    ],
)
def test_a_private_address_is_refused(guarded, url):
    """Broken: customers reach the operator's own network through us."""
    api = httpx.Client(base_url=f"{guarded.url}/api/v1", headers={"authorization": f"Bearer {guarded.key}"}, timeout=20)
    app = api.post("/app?get_if_exists=true", json={"name": "Guarded", "uid": "guarded"}).json()["id"]
    assert_clear(api.post(f"/app/{app}/endpoint", json={"url": url}), 400, 422)
    public = api.put(f"/app/{app}/endpoint/mine", json={"url": "https://example.com/", "uid": "mine", "disabled": True})
    assert public.status_code in (200, 201), public.text
    assert_clear(api.patch(f"/app/{app}/endpoint/mine", json={"url": url}), 400, 422)
    assert_clear(api.put(f"/app/{app}/endpoint/mine", json={"url": url}), 400, 422)
    assert api.get(f"/app/{app}/endpoint/mine").json()["url"] == "https://example.com/"


@pytest.mark.parametrize(
    "headers",
    [
        {"X-A": "1\r\nX-Evil: 1"},
        {"X-A\r\nX-Evil": "1"},
        {"X A": "1"},
        {"": "1"},
        {"X-A": "\x00"},
        {"Host": "example.com"},
        {"Content-Length": "0"},
        {"Transfer-Encoding": "chunked"},
        {"Connection": "close"},
        {"webhook-id": "msg_1"},
        {"Webhook-Signature": "v1,"},
        {"X-A": 7},
        {f"X-{n}": "1" for n in range(100)},
        {"X-A": "x" * 100_000},
    ],
)
def test_dangerous_headers_are_refused(api, app, endpoint, headers):
    """Broken: an endpoint's header smuggles a second request or forges a signature."""
    assert_clear(api.put(f"/app/{app.id}/endpoint/{endpoint.id}/headers", json={"headers": headers}), 400, 422)
    answer = api.post(f"/app/{app.id}/endpoint", json={"url": endpoint.url, "headers": headers})
    assert_clear(answer, 400, 422)


@pytest.mark.parametrize("body", [{"name": 7}, {"name": ""}, {}, {"name": "A", "uid": "a b"}, {"name": "A", "uid": ""}, {"name": "A", "uid": "x" * 257}, {"name": "A", "metadata": {"k": 1}}, {"name": "A", "throttleRate": -1}, {"name": "A", "throttleRate": 65_536}])  # fmt: skip
def test_an_application_of_wrong_types_is_refused(api, body):
    """Broken: what cannot be shown again is stored."""
    assert_clear(api.post("/app", json=body), 422)


def test_wrong_methods_and_content_types_have_clear_answers(api, app):
    """Broken: a client's mistake looks like a fault of the server."""
    assert_clear(api.put("/app"), 405)
    assert_clear(post(api, f"/app/{app.id}/msg", b"a=b", "application/x-www-form-urlencoded"), 400, 415, 422)
    assert_clear(api.post("/app", json={"name": "A"}, headers={"idempotency-key": "x" * 10_000}), 400, 422)


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        b"NONSENSE\r\n\r\n",
        b"POST /api/v1/app HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        b"POST /api/v1/app HTTP/1.1\r\nhost: a\r\ncontent-length: -1\r\n\r\n",
        b"GET /api/v1/app HTTP/1.1\r\nhost: a\r\n" + b"x: y\r\n" * 10_000 + b"\r\n",
        b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\nhost: a\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01",
        b"\x00" * 1_000,
    ],
)
def test_broken_http_ends_the_connection_and_nothing_else(server, api, request_bytes):
    """Broken: one bad client takes the server down or leaves a connection that hangs."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as connection:
        answer = b""
        # The server may be done with us before it has read everything.
        try:
            connection.sendall(request_bytes)
            connection.shutdown(socket.SHUT_WR)
        except OSError:
            pass
        try:
            while part := connection.recv(65_536):
                answer += part
        except OSError:
            pass
    assert not answer.startswith(b"HTTP/1.1 5"), answer[:200]
    assert api.get("/app", params={"limit": 1}).status_code == 200


def test_after_all_that_a_good_message_still_arrives(svix, receiver, server):
    """Broken: bad input left the server in a state in which good input is lost."""
    hook = receiver.hook("after")
    app = svix.application.create(ApplicationIn(name="After"))
    svix.endpoint.create(app.id, EndpointIn(url=hook.url))
    message = svix.message.create(app.id, MessageIn(event_type="a.b", payload={"still": "here"}))
    assert json.loads(hook.wait_for(message.id)[0].body) == {"still": "here"}
    assert "panicked" not in server.log()

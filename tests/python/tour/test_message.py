"""Messages through the official client: publish, idempotency, lists and filters, content deletion, byte-exact bodies."""

import concurrent.futures
import json
import uuid
from datetime import datetime, timedelta, timezone

import httpx
import pytest
from svix.api import (
    ApplicationIn,
    EndpointIn,
    MessageCreateOptions,
    MessageGetOptions,
    MessageIn,
    MessageListOptions,
)
from svix.api.message import message_in_raw
from svix.exceptions import HttpError

CONTENT = MessageGetOptions(with_content=True)


def payload_text(message: MessageIn) -> bytes:
    """The bytes of the payload as the client puts them on the wire."""
    return message.model_dump_json(include={"payload"})[len('{"payload":') : -1].encode()


def test_a_message_arrives_byte_for_byte(svix, app, endpoint, hook):
    """Broken: what is signed and sent is not what was published."""
    message_in = MessageIn(event_type="user.signup", payload={"ünï": "cödé", "n": 1.0, "deep": [{"a": None}], "q": '"\\/'})
    message = svix.message.create(app.id, message_in, MessageCreateOptions(with_content=True))
    assert message.id.startswith("msg_") and message.event_type == "user.signup" and message.payload == message_in.payload
    delivery = hook.wait_for(message.id)[0]
    assert delivery.body == payload_text(message_in)
    assert delivery.headers["content-type"].startswith("application/json")
    assert svix.message.get(app.id, message.id, CONTENT).payload == message_in.payload
    assert svix.message.get(app.id, message.id, MessageGetOptions(with_content=False)).payload == {}


@pytest.mark.parametrize(
    "text",
    [
        '{ "spaces" : [ 1 ,2 ],\n\t"order":1, "Order":2 }',
        '{"big":123456789012345678901234567890,"exp":1E400,"neg":-0.0,"tail":1.10}',
        '{"escapes":"\\u0041\\/\\ud83d\\ude00","raw":"😀é"}',
    ],
)
def test_json_is_checked_but_never_rebuilt(server, app, endpoint, hook, text):
    """Broken: numbers lose digits, keys lose their order, or spaces vanish between publisher and receiver."""
    answer = httpx.post(
        f"{server.url}/api/v1/app/{app.id}/msg",
        headers={"authorization": f"Bearer {server.key}", "content-type": "application/json"},
        content=f'{{"eventType":"raw.json","payload":{text}}}'.encode(),
    )
    assert answer.status_code == 202, answer.text
    assert hook.wait_for(answer.json()["id"])[0].body == text.encode()


def test_a_raw_payload_keeps_its_text_and_content_type(svix, app, endpoint, hook):
    """Broken: `message_in_raw` of the official client sends an empty object."""
    message = svix.message.create(app.id, message_in_raw("raw.xml", "<a>ü</a>", content_type="application/xml"))
    delivery = hook.wait_for(message.id)[0]
    assert delivery.body == "<a>ü</a>".encode() and delivery.headers["content-type"] == "application/xml"


def test_one_idempotency_key_sent_a_hundred_times_at_once_makes_one_message(svix, app, endpoint, hook):
    """Broken: a client that repeats itself in a hurry makes more than one event."""
    key = MessageCreateOptions(idempotency_key=f"key-{uuid.uuid4()}", with_content=True)
    message_in = MessageIn(event_type="order.paid", payload={"order": 1})
    with concurrent.futures.ThreadPoolExecutor(100) as pool:
        answers = list(pool.map(lambda _: svix.message.create(app.id, message_in, key), range(100)))
    assert all(answer == answers[0] for answer in answers)
    with pytest.raises(HttpError) as refused:
        svix.message.create(app.id, MessageIn(event_type="order.paid", payload={"order": 2}), key)
    assert 400 <= refused.value.status_code < 500
    after = svix.message.create(app.id, message_in)
    hook.wait_for(after.id)
    assert [d.id for d in hook.deliveries].count(answers[0].id) == 1
    assert {m.id for m in svix.message.list(app.id).data} == {answers[0].id, after.id}


def test_an_event_id_is_unique_in_its_application(svix, app):
    """Broken: the caller's own id does not protect against publishing an event twice."""
    event_id = f"evt-{uuid.uuid4()}"
    message = svix.message.create(app.id, MessageIn(event_type="a.b", event_id=event_id, payload={}))
    assert message.event_id == event_id and svix.message.get(app.id, event_id).id == message.id
    with pytest.raises(HttpError) as taken:
        svix.message.create(app.id, MessageIn(event_type="a.b", event_id=event_id, payload={}))
    assert taken.value.status_code == 409
    other = svix.application.create(ApplicationIn(name="Other"))
    assert svix.message.create(other.id, MessageIn(event_type="a.b", event_id=event_id, payload={})).id != message.id


def test_subscriptions_by_event_type_and_channel_decide_who_receives(svix, app, receiver):
    """Broken: an endpoint gets what it did not ask for, or misses what it did."""
    hooks = {name: receiver.hook(name) for name in ("all", "type", "channel", "both")}
    svix.endpoint.create(app.id, EndpointIn(url=hooks["all"].url))
    svix.endpoint.create(app.id, EndpointIn(url=hooks["type"].url, event_types=["user.signup"]))
    svix.endpoint.create(app.id, EndpointIn(url=hooks["channel"].url, channels=["blue"]))
    svix.endpoint.create(app.id, EndpointIn(url=hooks["both"].url, event_types=["user.gone"], channels=["red"]))
    published = [
        svix.message.create(app.id, MessageIn(event_type=event_type, payload={}, channels=channels)).id
        for event_type, channels in [
            ("user.signup", None),
            ("user.gone", ["blue", "green"]),
            ("user.gone", ["red"]),
            ("user.signup", ["red", "blue"]),
        ]
    ]
    last = svix.message.create(app.id, MessageIn(event_type="user.signup", payload={}, channels=["blue"])).id
    hooks["all"].wait(5), hooks["type"].wait(3), hooks["channel"].wait(3), hooks["both"].wait(1)
    got = {name: sorted(d.id for d in hook.deliveries) for name, hook in hooks.items()}
    assert got == {
        "all": sorted([*published, last]),
        "type": sorted([published[0], published[3], last]),
        "channel": sorted([published[1], published[3], last]),
        "both": [published[2]],
    }


def test_the_list_filters_and_pages(svix, app):
    """Broken: an operator looking for one message among many does not find it."""
    ids = []
    for n in range(6):
        message_in = MessageIn(
            event_type="even.type" if n % 2 == 0 else "odd.type", payload={"n": n}, channels=[f"c{n % 3}"], tags=[f"t{n}"]
        )
        ids.append(svix.message.create(app.id, message_in).id)

    def listed(**options) -> list[str]:
        return [m.id for m in svix.message.list(app.id, MessageListOptions(**options)).data]

    assert listed() == ids[::-1], "newest first"
    assert listed(event_types=["odd.type"]) == [ids[5], ids[3], ids[1]]
    assert listed(event_types=["odd.type", "even.type"]) == ids[::-1]
    assert listed(channel="c1") == [ids[4], ids[1]]
    assert listed(tag="t2") == [ids[2]]
    assert listed(before=datetime.now(timezone.utc) - timedelta(minutes=1)) == []
    assert listed(after=datetime.now(timezone.utc) - timedelta(minutes=1)) == ids[::-1]
    first = svix.message.list(app.id, MessageListOptions(limit=4))
    assert not first.done
    second = svix.message.list(app.id, MessageListOptions(limit=4, iterator=first.iterator))
    assert [m.id for m in first.data + second.data] == ids[::-1] and second.done
    back = svix.message.list(app.id, MessageListOptions(limit=4, iterator=second.prev_iterator))
    assert [m.id for m in back.data] == ids[:1:-1]
    with_content = svix.message.list(app.id, MessageListOptions(limit=1, with_content=True)).data[0]
    assert with_content.payload == {"n": 5} and with_content.tags == ["t5"] and with_content.channels == ["c2"]


def test_expunged_content_is_gone_and_the_message_stays(svix, app, endpoint, hook):
    """Broken: personal data that had to go can still be read."""
    message = svix.message.create(app.id, MessageIn(event_type="a.b", payload={"canary": "to be forgotten"}))
    hook.wait_for(message.id)
    svix.message.expunge_content(app.id, message.id)
    shown = svix.message.get(app.id, message.id, CONTENT)
    assert shown.id == message.id and "canary" not in json.dumps(shown.payload)


def test_publishing_can_create_the_application(svix):
    """Broken: a publisher must know whether its customer was set up before."""
    uid = f"lazy-{uuid.uuid4()}"
    message_in = MessageIn(event_type="a.b", payload={}, application=ApplicationIn(name="Lazy", uid=uid))
    message = svix.message.create(uid, message_in)
    assert svix.message.get(uid, message.id).id == message.id and svix.application.get(uid).name == "Lazy"


def test_a_scheduled_message_waits(svix, app, endpoint, hook):
    """Broken: a message for later goes out at once."""
    later = datetime.now(timezone.utc) + timedelta(hours=1)
    message = svix.message.create(app.id, MessageIn(event_type="a.b", payload={}, deliver_at=later))
    assert message.deliver_at is not None and abs((message.deliver_at - later).total_seconds()) < 1
    now = svix.message.create(app.id, MessageIn(event_type="a.b", payload={}))
    hook.wait_for(now.id)
    assert message.id not in [d.id for d in hook.deliveries]
    with pytest.raises(Exception) as refused:
        svix.message.create(app.id, MessageIn(event_type="a.b", payload={}, deliver_at=later + timedelta(days=2)))
    assert refused.value.status_code in (400, 422)

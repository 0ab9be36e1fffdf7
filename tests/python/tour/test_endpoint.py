"""Endpoints through the official client: all operations, headers with masking, secrets, statistics, examples."""

import json
import uuid
from datetime import datetime, timedelta, timezone

import pytest
from svix.api import (
    EndpointGetStatsOptions,
    EndpointHeadersIn,
    EndpointHeadersPatchIn,
    EndpointIn,
    EndpointListOptions,
    EndpointPatch,
    EndpointUpsertIn,
    EventExampleIn,
    EventTypeIn,
    MessageIn,
)
from svix.exceptions import HttpError
from svix.models import Ordering

from harness import wait_until


def test_an_endpoint_answers_under_its_id_and_its_uid(svix, app, hook):
    """Broken: endpoints lose what they were set up with."""
    uid = f"ep-{uuid.uuid4()}"
    made = svix.endpoint.create(
        app.uid,
        EndpointIn(
            url=hook.url,
            uid=uid,
            description="the tour's",
            event_types=["user.signup", "user.gone"],
            channels=["project_1"],
            metadata={"k": "v"},
            throttle_rate=100,
        ),
    )
    assert made.id.startswith("ep_") and made.url == hook.url and made.uid == uid and made.description == "the tour's"
    assert sorted(made.event_types) == ["user.gone", "user.signup"] and made.channels == ["project_1"]
    assert made.metadata == {"k": "v"} and made.throttle_rate == 100 and made.disabled is False
    assert svix.endpoint.get(app.id, made.id) == svix.endpoint.get(app.uid, uid) == made
    with pytest.raises(HttpError) as taken:
        svix.endpoint.create(app.id, EndpointIn(url=hook.url, uid=uid))
    assert taken.value.status_code == 409


def test_put_replaces_and_patch_changes_only_what_it_names(svix, app, endpoint, hook):
    """Broken: absent and null mean the same, so that a subscription can be wiped by accident or never widened."""
    put = svix.endpoint.upsert(app.id, endpoint.id, EndpointUpsertIn(url=hook.url, event_types=["a.b"], description="put"))
    assert (put.id, put.event_types, put.description) == (endpoint.id, ["a.b"], "put")
    patched = svix.endpoint.patch(app.id, endpoint.id, EndpointPatch(description="patched"))
    assert (patched.event_types, patched.description) == (["a.b"], "patched")
    widened = svix.endpoint.patch(app.id, endpoint.id, EndpointPatch(event_types=None))
    assert (widened.event_types, widened.description) == (None, "patched")
    uid = f"ep-{uuid.uuid4()}"
    made = svix.endpoint.upsert(app.id, uid, EndpointUpsertIn(url=hook.url, uid=uid))
    assert made.uid == uid and made.id != endpoint.id


def test_endpoints_are_listed_in_pages(svix, app, hook):
    """Broken: a customer with many endpoints does not see all of them."""
    made = [svix.endpoint.create(app.id, EndpointIn(url=hook.url)).id for _ in range(5)]
    seen, iterator = [], None
    while True:
        page = svix.endpoint.list(app.id, EndpointListOptions(limit=2, iterator=iterator, order=Ordering.ASCENDING))
        seen += [e.id for e in page.data]
        iterator = page.iterator
        if page.done:
            break
    assert seen == made


def test_headers_are_sent_and_the_sensitive_ones_are_never_shown(svix, app, endpoint, hook):
    """Broken: a receiver's credential can be read back, or does not reach the receiver."""
    svix.endpoint.set_headers(
        app.id, endpoint.id, EndpointHeadersIn(headers={"X-Tenant": "blue", "Authorization": "Bearer canary-7"})
    )
    shown = svix.endpoint.get_headers(app.id, endpoint.id)
    assert {k.lower(): v for k, v in shown.headers.items()} == {"x-tenant": "blue"}
    assert [name.lower() for name in shown.sensitive] == ["authorization"]
    svix.endpoint.patch_headers(
        app.id, endpoint.id, EndpointHeadersPatchIn(headers={"X-More": "1"}, delete_headers=["x-tenant"])
    )
    message = svix.message.create(app.id, MessageIn(event_type="a.b", payload={}))
    sent = hook.wait_for(message.id)[0].headers
    assert sent["authorization"] == "Bearer canary-7" and sent["x-more"] == "1" and "x-tenant" not in sent


def test_statistics_count_what_was_delivered_and_what_failed(svix, app, endpoint, hook):
    """Broken: the figures a customer is shown are not the deliveries."""
    hook.script(200, 200, 200)
    for _ in range(3):
        svix.message.create(app.id, MessageIn(event_type="a.b", payload={}))
    wait_until(lambda: svix.endpoint.get_stats(app.id, endpoint.id).success == 3, 5, "three successes counted")
    hook.always(500)
    svix.message.create(app.id, MessageIn(event_type="a.b", payload={}))
    stats = wait_until(
        lambda: (s := svix.endpoint.get_stats(app.id, endpoint.id)).fail == 1 and s, 10, "one failure counted"
    )
    assert (stats.success, stats.pending, stats.sending) == (3, 0, 0)
    now = datetime.now(timezone.utc)
    past = svix.endpoint.get_stats(
        app.id, endpoint.id, EndpointGetStatsOptions(since=now - timedelta(days=3), until=now - timedelta(days=2))
    )
    assert (past.success, past.fail) == (0, 0)


def test_an_example_goes_to_the_one_endpoint_and_is_made_from_the_schema(svix, app, endpoint, hook, receiver):
    """Broken: the test button sends nothing, nonsense, or to everyone."""
    name = f"example.{uuid.uuid4().hex}"
    schemas = {"1": {"type": "object", "examples": [{"id": "in_1", "paid": True}]}}
    svix.event_type.create(EventTypeIn(name=name, description="with example", schemas=schemas))
    bystander = receiver.hook("bystander")
    svix.endpoint.create(app.id, EndpointIn(url=bystander.url))
    message = svix.endpoint.send_example(app.id, endpoint.id, EventExampleIn(event_type=name))
    delivery = hook.wait_for(message.id)[0]
    assert json.loads(delivery.body) == {"id": "in_1", "paid": True}
    after = svix.message.create(app.id, MessageIn(event_type="a.b", payload={}))
    bystander.wait_for(after.id)
    assert message.id not in [d.id for d in bystander.deliveries]


def test_a_disabled_endpoint_rests_and_a_deleted_one_is_gone(svix, app, endpoint, hook, receiver):
    """Broken: turning an endpoint off does not stop the requests."""
    witness = receiver.hook("witness")
    svix.endpoint.create(app.id, EndpointIn(url=witness.url))
    assert svix.endpoint.patch(app.id, endpoint.id, EndpointPatch(disabled=True)).disabled is True
    message = svix.message.create(app.id, MessageIn(event_type="a.b", payload={}))
    witness.wait_for(message.id)
    assert hook.deliveries == []
    svix.endpoint.patch(app.id, endpoint.id, EndpointPatch(disabled=False))
    again = svix.message.create(app.id, MessageIn(event_type="a.b", payload={}))
    hook.wait_for(again.id)
    svix.endpoint.delete(app.id, endpoint.id)
    with pytest.raises(HttpError) as gone:
        svix.endpoint.get(app.id, endpoint.id)
    assert gone.value.status_code == 404

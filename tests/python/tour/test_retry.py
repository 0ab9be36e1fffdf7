"""Failures of receivers: retries, Retry-After, 410, redirects, hanging, and the operational webhooks that tell of them."""

import json
import time
from datetime import timedelta

import pytest
import standardwebhooks
from svix.api import ApplicationIn, EndpointIn, EndpointPatch, MessageAttemptListByMsgOptions, MessageIn, RecoverIn
from svix.models import MessageStatus, OperationalWebhookEndpointIn

from conftest import client
from harness import Server, free_port, wait_until
from receiver import Answer


def attempts_of(svix, app, message, count: int):
    """The attempts of a message with their content, oldest first, once there are `count`."""
    options = MessageAttemptListByMsgOptions(with_content=True)

    def enough():
        found = svix.message_attempt.list_by_msg(app.id, message.id, options).data
        return found[::-1] if len(found) >= count else None

    return wait_until(enough, 10, f"{count} attempts recorded")


def publish(svix, app):
    return svix.message.create(app.id, MessageIn(event_type="retry.event", payload={"n": 1}))


def test_a_failing_receiver_gets_the_same_message_again_until_it_takes_it(svix, app, endpoint, hook):
    """Broken: one bad moment of a receiver loses a webhook, or a retry looks like a new event."""
    hook.script(500, 429, 204)
    message = publish(svix, app)
    tries = hook.wait_for(message.id, 3)
    assert len({t.body for t in tries}) == 1
    stamps = [int(t.headers["webhook-timestamp"]) for t in tries]
    assert stamps == sorted(stamps) and abs(stamps[0] - time.time()) < 60
    found = attempts_of(svix, app, message, 3)
    assert [(a.response_status_code, a.status) for a in found] == [
        (500, MessageStatus.FAIL),
        (429, MessageStatus.FAIL),
        (204, MessageStatus.SUCCESS),
    ]
    state = svix.message_attempt.list_attempted_destinations(app.id, message.id).data[0]
    assert state.status == MessageStatus.SUCCESS and state.next_attempt is None


def test_between_tries_a_delivery_is_pending_and_says_when_it_goes_on(svix, app, endpoint, hook):
    """Broken: nobody can see whether a failed delivery will be tried again."""
    hook.script(Answer(503, headers={"retry-after": "60"}))
    message = publish(svix, app)
    attempts_of(svix, app, message, 1)
    state = svix.message_attempt.list_attempted_destinations(app.id, message.id).data[0]
    assert state.status == MessageStatus.PENDING and state.next_attempt is not None
    wait = (state.next_attempt - message.timestamp).total_seconds()
    assert 55 < wait < 90, f"Retry-After: 60 was answered with a wait of {wait} s"
    assert svix.endpoint.get_stats(app.id, endpoint.id).pending == 1


def test_retry_after_is_honoured(svix, app, endpoint, hook):
    """Broken: a receiver that asks for a pause is hit again at once."""
    hook.script(Answer(429, headers={"retry-after": "2"}), 204)
    message = publish(svix, app)
    first, second = hook.wait_for(message.id, 2)
    assert 1.9 <= second.at - first.at < 6


def test_gone_ends_the_delivery_and_disables_the_endpoint(svix, app, endpoint, hook):
    """Broken: a receiver that unsubscribed with 410 goes on being called."""
    hook.always(410)
    message = publish(svix, app)
    wait_until(lambda: svix.endpoint.get(app.id, endpoint.id).disabled, 5, "the endpoint disabled")
    assert len(attempts_of(svix, app, message, 1)) == 1 and len(hook.deliveries) == 1


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_a_redirect_is_a_failure_and_never_followed(svix, app, hook, receiver, status):
    """Broken: a receiver can send our requests into the internal network."""
    trap = receiver.hook("trap")
    hook.always(Answer(status, headers={"location": trap.url}))
    svix.endpoint.create(app.id, EndpointIn(url=hook.url))
    message = publish(svix, app)
    found = attempts_of(svix, app, message, 3)
    assert {a.response_status_code for a in found} == {status} and {a.status for a in found} == {MessageStatus.FAIL}
    assert trap.deliveries == []


def test_a_hanging_receiver_is_cut_off_and_others_do_not_wait(svix, app, hook, receiver):
    """Broken: one dead receiver stops the webhooks of everyone."""
    hook.script(Answer(hang=True))
    healthy = receiver.hook("healthy")
    hanging = svix.endpoint.create(app.id, EndpointIn(url=hook.url))
    svix.endpoint.create(app.id, EndpointIn(url=healthy.url))
    start = time.monotonic()
    message = publish(svix, app)
    assert healthy.wait_for(message.id)[0].at - start < 1.0
    first, second = hook.wait_for(message.id, 2)
    assert 1.8 < second.at - first.at < 5, "cut off after the configured two seconds"
    found = [a for a in attempts_of(svix, app, message, 3) if a.endpoint_id == hanging.id]
    assert found[0].response_status_code == 0 and found[0].status == MessageStatus.FAIL and found[0].response


def test_a_dead_port_is_a_failure_with_a_readable_reason(svix, app, hook):
    """Broken: an operator sees a failed attempt and no word why."""
    svix.endpoint.create(app.id, EndpointIn(url=f"http://127.0.0.1:{free_port()}/"))
    found = attempts_of(svix, app, publish(svix, app), 3)
    assert all(a.status == MessageStatus.FAIL and a.response_status_code == 0 and a.response for a in found)


def test_operational_webhooks_tell_of_what_needs_a_human(svix, receiver):
    """Broken: an endpoint is disabled, or a message given up, and nobody hears of it."""
    news = receiver.hook("news")
    operational = svix.operational_webhook.endpoint.create(OperationalWebhookEndpointIn(url=news.url))
    try:
        app = svix.application.create(ApplicationIn(name="In trouble"))
        gone, failing = receiver.hook("gone").always(410), receiver.hook("failing").always(500)
        ended = svix.endpoint.create(app.id, EndpointIn(url=gone.url))
        publish(svix, app)
        wait_until(lambda: svix.endpoint.get(app.id, ended.id).disabled, 5, "disabled after 410")
        failed = svix.endpoint.create(app.id, EndpointIn(url=failing.url))
        message = publish(svix, app)

        def told(event_type: str, endpoint) -> list[dict]:
            events = [json.loads(d.body) for d in news.deliveries]
            return [e["data"] for e in events if e["type"] == event_type and e["data"]["endpointId"] == endpoint.id]

        exhausted = wait_until(lambda: told("message.attempt.exhausted", failed), 10, "message.attempt.exhausted")[0]
        disabled = wait_until(lambda: told("endpoint.disabled", ended), 10, "endpoint.disabled")[0]
        wait_until(lambda: told("endpoint.created", failed), 10, "endpoint.created")
        assert disabled["appId"] == app.id and disabled["appUid"] == app.uid
        assert exhausted["msgId"] == message.id and exhausted["lastAttempt"]["responseStatusCode"] == 500
        secret = svix.operational_webhook.endpoint.get_secret(operational.id).key
        standardwebhooks.Webhook(secret).verify(news.deliveries[0].body, news.deliveries[0].headers)
    finally:
        svix.operational_webhook.endpoint.delete(operational.id)


def test_an_endpoint_that_does_nothing_but_fail_is_disabled_and_can_catch_up(receiver):
    """Broken: dead endpoints are called for ever, or what they missed is lost when they come back."""
    settings = {"BELLWIRE_DELIVERY__DISABLE_AFTER": "1s", "BELLWIRE_DELIVERY__RETRY_SCHEDULE": ",".join(["300ms"] * 20)}
    with Server(settings, name="disable-after") as server:
        svix = client(server)
        news, hook = receiver.hook("news"), receiver.hook().always(500)
        svix.operational_webhook.endpoint.create(
            OperationalWebhookEndpointIn(url=news.url, event_types=["endpoint.disabled"])
        )
        app = svix.application.create(ApplicationIn(name="Dead"))
        endpoint = svix.endpoint.create(app.id, EndpointIn(url=hook.url))
        message = publish(svix, app)
        wait_until(lambda: svix.endpoint.get(app.id, endpoint.id).disabled, 10, "disabled after a second of failures")
        event = json.loads(news.wait(1)[0].body)
        assert (event["type"], event["data"]["endpointId"]) == ("endpoint.disabled", endpoint.id)
        calls = len(hook.deliveries)
        hook.always(204)
        svix.endpoint.patch(app.id, endpoint.id, EndpointPatch(disabled=False))
        svix.endpoint.recover(app.id, endpoint.id, RecoverIn(since=message.timestamp - timedelta(minutes=1)))
        hook.wait_for(message.id, calls + 1)
        places = svix.message_attempt.list_attempted_destinations
        wait_until(lambda: places(app.id, message.id).data[0].status == MessageStatus.SUCCESS, 5, "delivered after all")

"""Attempts through the official client: every list and filter, one attempt, resend, recover, what failed and why."""

from datetime import datetime, timedelta, timezone

import pytest
from svix.api import (
    ApplicationIn,
    EndpointIn,
    MessageAttemptGetOptions,
    MessageAttemptListAttemptedMessagesOptions,
    MessageAttemptListByEndpointOptions,
    MessageAttemptListByMsgOptions,
    MessageIn,
    RecoverIn,
)
from svix.exceptions import HttpError
from svix.models import BackgroundTaskStatus, MessageAttemptTriggerType, MessageStatus, StatusCodeClass

from harness import wait_until
from receiver import Answer

MINUTE = timedelta(minutes=1)


@pytest.fixture(scope="module")
def past(svix, receiver):
    """An application with a history: one message delivered to a good endpoint and exhausted at a bad one."""

    class Past:
        good_hook = receiver.hook("good")
        bad_hook = receiver.hook("bad").always(Answer(500, body=b"out of paper"))
        app = svix.application.create(ApplicationIn(name="Past"))
        good = svix.endpoint.create(app.id, EndpointIn(url=good_hook.url))
        bad = svix.endpoint.create(app.id, EndpointIn(url=bad_hook.url))
        message = svix.message.create(
            app.id, MessageIn(event_type="order.paid", payload={"n": 1}, channels=["blue"], tags=["t1"])
        )

    bad_hook = Past.bad_hook
    bad_hook.wait_for(Past.message.id, 3)
    wait_until(
        lambda: len(svix.message_attempt.list_by_msg(Past.app.id, Past.message.id).data) == 4, 5, "four attempts recorded"
    )
    return Past


def test_attempts_of_a_message_by_every_filter(svix, past):
    """Broken: the first question, "what happened to this message", has a wrong answer."""

    def ids(**options):
        page = svix.message_attempt.list_by_msg(past.app.id, past.message.id, MessageAttemptListByMsgOptions(**options))
        return [(a.endpoint_id, a.status) for a in page.data]

    failed, delivered = [(past.bad.id, MessageStatus.FAIL)] * 3, [(past.good.id, MessageStatus.SUCCESS)]
    assert sorted(ids()) == sorted(failed + delivered)
    assert ids(status=MessageStatus.SUCCESS) == delivered and ids(status=MessageStatus.FAIL) == failed
    assert ids(status_code_class=StatusCodeClass.CODE2XX) == delivered
    assert ids(status_code_class=StatusCodeClass.CODE5XX) == failed and ids(status_code_class=StatusCodeClass.CODE4XX) == []
    assert ids(endpoint_id=past.bad.id) == failed and ids(endpoint_id=past.good.id) == delivered
    assert len(ids(channel="blue")) == 4 and ids(channel="red") == []
    assert len(ids(tag="t1")) == 4 and ids(tag="t2") == []
    assert len(ids(event_types=["order.paid"])) == 4 and ids(event_types=["order.gone"]) == []
    now = datetime.now(timezone.utc)
    assert len(ids(before=now + MINUTE, after=now - MINUTE)) == 4 and ids(before=now - MINUTE) == [] == ids(after=now + MINUTE)


def test_attempts_in_pages(svix, past):
    """Broken: the history of a message that was tried often cannot be read to its end."""
    seen, iterator = [], None
    while True:
        page = svix.message_attempt.list_by_msg(
            past.app.id, past.message.id, MessageAttemptListByMsgOptions(limit=1, iterator=iterator)
        )
        seen += [a.id for a in page.data]
        iterator = page.iterator
        if page.done:
            break
    assert len(seen) == 4 and seen == sorted(seen, reverse=True), "every attempt once, newest first"


def test_attempts_of_an_endpoint_with_their_messages(svix, past):
    """Broken: the page of an endpoint does not show what it got."""
    options = MessageAttemptListByEndpointOptions(with_msg=True, with_content=True)
    attempts = svix.message_attempt.list_by_endpoint(past.app.id, past.bad.id, options).data
    assert len(attempts) == 3 and all(a.msg.id == past.message.id for a in attempts)
    assert all(a.msg.payload == {} for a in attempts), "payloads are never shown in lists of attempts"
    assert {a.response for a in attempts} == {"out of paper"} and {a.response_status_code for a in attempts} == {500}
    assert all(a.url == past.bad_hook.url and a.trigger_type == MessageAttemptTriggerType.SCHEDULED for a in attempts)
    hidden = svix.message_attempt.list_by_endpoint(
        past.app.id, past.bad.id, MessageAttemptListByEndpointOptions(with_content=False)
    ).data
    assert len(hidden) == 3 and all(a.response == "" and a.msg is None for a in hidden)
    filtered = MessageAttemptListByEndpointOptions(status=MessageStatus.SUCCESS)
    assert svix.message_attempt.list_by_endpoint(past.app.id, past.bad.id, filtered).data == []


def test_messages_of_an_endpoint_and_endpoints_of_a_message(svix, past):
    """Broken: the state of a delivery (delivered, waiting, exhausted) cannot be read."""
    messages = svix.message_attempt.list_attempted_messages(past.app.id, past.bad.id).data
    assert [(m.id, m.status, m.status_text, m.event_type) for m in messages] == [
        (past.message.id, MessageStatus.FAIL, "fail", "order.paid")
    ]
    only_good = MessageAttemptListAttemptedMessagesOptions(status=MessageStatus.SUCCESS)
    assert svix.message_attempt.list_attempted_messages(past.app.id, past.bad.id, only_good).data == []
    assert len(svix.message_attempt.list_attempted_messages(past.app.id, past.good.id, only_good).data) == 1
    places = svix.message_attempt.list_attempted_destinations(past.app.id, past.message.id).data
    assert {e.id: e.status for e in places} == {past.good.id: MessageStatus.SUCCESS, past.bad.id: MessageStatus.FAIL}


def test_one_attempt_and_the_deletion_of_its_content(svix, past):
    """Broken: what a receiver answered cannot be looked up, or cannot be forgotten."""
    attempt = svix.message_attempt.list_by_msg(
        past.app.id, past.message.id, MessageAttemptListByMsgOptions(endpoint_id=past.bad.id, with_content=True)
    ).data[0]
    shown = svix.message_attempt.get(past.app.id, past.message.id, attempt.id, MessageAttemptGetOptions())
    assert (shown.id, shown.status, shown.response) == (attempt.id, MessageStatus.FAIL, "out of paper")
    assert 0 <= shown.response_duration_ms < 2_000
    svix.message_attempt.expunge_content(past.app.id, past.message.id, attempt.id)
    assert "paper" not in svix.message_attempt.get(past.app.id, past.message.id, attempt.id).response
    with pytest.raises(HttpError) as unknown:
        svix.message_attempt.get(past.app.id, past.message.id, "atmpt_" + "0" * 27)
    assert unknown.value.status_code == 404


def test_resend_repeats_the_same_bytes_under_the_same_id(svix, app, endpoint, hook):
    """Broken: a repeated webhook looks like a new event to its receiver."""
    message = svix.message.create(app.id, MessageIn(event_type="a.b", payload={"n": 1}))
    hook.wait_for(message.id)
    svix.message_attempt.resend(app.id, message.id, endpoint.id)
    first, second = hook.wait_for(message.id, 2)
    assert first.body == second.body
    wait_until(
        lambda: MessageAttemptTriggerType.MANUAL
        in [a.trigger_type for a in svix.message_attempt.list_by_msg(app.id, message.id).data],
        5,
        "the manual attempt recorded as one",
    )


def test_recover_sends_again_what_failed_since(svix, app, endpoint, hook):
    """Broken: after an outage of the receiver, what it missed cannot be replayed."""
    hook.always(503)
    failed = [svix.message.create(app.id, MessageIn(event_type="a.b", payload={"n": n})).id for n in range(3)]
    stats = svix.endpoint.get_stats
    wait_until(lambda: stats(app.id, endpoint.id).fail == 3, 15, "three exhausted deliveries")
    hook.always(204)
    delivered = svix.message.create(app.id, MessageIn(event_type="a.b", payload={})).id
    hook.wait_for(delivered)
    before = len(hook.deliveries)
    task = svix.endpoint.recover(app.id, endpoint.id, RecoverIn(since=datetime.now(timezone.utc) - 5 * MINUTE))
    assert task.id.startswith("qtask_") and task.task == "endpoint.recover"
    again = hook.wait(before + 3)[before:]
    assert sorted(d.id for d in again) == sorted(failed)
    wait_until(
        lambda: svix.background_task.get(task.id).status == BackgroundTaskStatus.FINISHED, 5, "the task ends as finished"
    )
    assert task.id in [t.id for t in svix.background_task.list().data]
    wait_until(lambda: stats(app.id, endpoint.id).fail == 0, 5, "nothing counted as failed any more")
    assert [d.id for d in hook.deliveries].count(delivered) == 1, "what had been delivered is not sent again"

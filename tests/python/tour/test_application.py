"""Applications and event types through the official client: create, read, change, list, delete."""

import uuid

import pytest
from svix.api import (
    ApplicationCreateOptions,
    ApplicationIn,
    ApplicationListOptions,
    ApplicationPatch,
    EventTypeDeleteOptions,
    EventTypeIn,
    EventTypeListOptions,
    EventTypePatch,
    EventTypeUpsertIn,
)
from svix.exceptions import HttpError
from svix.models import Ordering


def unique(prefix: str) -> str:
    return f"{prefix}-{uuid.uuid4().hex}"


def test_an_application_answers_under_its_id_and_its_uid(svix):
    """Broken: callers must remember our ids instead of using their own."""
    uid = unique("uid")
    app = svix.application.create(
        ApplicationIn(name="Ünïcode & Co", uid=uid, throttle_rate=50, metadata={"plan": "gold"})
    )
    assert app.id.startswith("app_") and len(app.id) == 31
    assert (app.name, app.uid, app.throttle_rate, app.metadata) == ("Ünïcode & Co", uid, 50, {"plan": "gold"})
    assert svix.application.get(app.id) == svix.application.get(uid) == app


def test_a_uid_is_taken_once_and_get_or_create_finds_it(svix):
    """Broken: two customers share a stream, or a retried set-up makes a second application."""
    uid = unique("uid")
    app = svix.application.create(ApplicationIn(name="One", uid=uid))
    with pytest.raises(HttpError) as refused:
        svix.application.create(ApplicationIn(name="Two", uid=uid))
    assert refused.value.status_code == 409 and refused.value.code and refused.value.detail
    assert svix.application.get_or_create(ApplicationIn(name="Three", uid=uid)) == app
    other = unique("uid")
    made = svix.application.get_or_create(ApplicationIn(name="Four", uid=other))
    assert made.id != app.id and made.uid == other


def test_the_same_idempotency_key_makes_one_application(svix):
    """Broken: a client that repeats a request after a broken connection makes two applications."""
    options = ApplicationCreateOptions(idempotency_key=unique("key"))
    first = svix.application.create(ApplicationIn(name="Once"), options)
    assert svix.application.create(ApplicationIn(name="Once"), options) == first
    with pytest.raises(HttpError) as refused:
        svix.application.create(ApplicationIn(name="Twice"), options)
    assert 400 <= refused.value.status_code < 500


def test_put_replaces_or_creates(svix):
    """Broken: an upsert by uid, the usual way to set up, fails or loses the uid."""
    uid = unique("uid")
    made = svix.application.upsert(uid, ApplicationIn(name="Made", uid=uid, metadata={"a": "1"}))
    changed = svix.application.upsert(uid, ApplicationIn(name="Changed", uid=uid))
    assert changed.id == made.id and changed.name == "Changed" and changed.metadata == {}


def test_patch_tells_absent_from_null(svix):
    """Broken: a patch of the name wipes the uid, or a uid can never be taken away."""
    uid = unique("uid")
    app = svix.application.create(ApplicationIn(name="Before", uid=uid, throttle_rate=7))
    renamed = svix.application.patch(app.id, ApplicationPatch(name="After"))
    assert (renamed.name, renamed.uid, renamed.throttle_rate) == ("After", uid, 7)
    bare = svix.application.patch(app.id, ApplicationPatch(uid=None, throttle_rate=None))
    assert (bare.name, bare.uid, bare.throttle_rate) == ("After", None, None)
    with pytest.raises(HttpError) as gone:
        svix.application.get(uid)
    assert gone.value.status_code == 404


def test_a_deleted_application_is_gone(svix):
    """Broken: a deleted customer can still be published to."""
    app = svix.application.create(ApplicationIn(name="Short-lived"))
    svix.application.delete(app.id)
    with pytest.raises(HttpError) as gone:
        svix.application.get(app.id)
    assert gone.value.status_code == 404


@pytest.mark.parametrize("order", [Ordering.ASCENDING, Ordering.DESCENDING])
def test_pages_forward_and_back_show_everything_once(svix, order):
    """Broken: a list skips or repeats applications at page borders, or cannot go back."""
    made = [svix.application.create(ApplicationIn(name=f"Page {n}")).id for n in range(5)]
    expected = made if order == Ordering.ASCENDING else made[::-1]
    seen, iterator, pages = [], None, []
    for _ in range(10_000):
        page = svix.application.list(ApplicationListOptions(limit=2, iterator=iterator, order=order))
        assert len(page.data) <= 2
        seen += [app.id for app in page.data]
        pages.append(page)
        iterator = page.iterator
        if page.done:
            break
    assert len(seen) == len(set(seen)), "an application came twice"
    assert [id for id in seen if id in made] == expected
    back = svix.application.list(ApplicationListOptions(limit=2, iterator=pages[2].prev_iterator, order=order))
    assert [app.id for app in back.data] == [app.id for app in pages[1].data]


def test_an_event_type_lives_its_life(svix):
    """Broken: the catalogue of events loses schemas, or forgets what is archived."""
    name = f"invoice.{uuid.uuid4().hex}"
    schema = {"1": {"type": "object", "properties": {"id": {"type": "string"}}, "examples": [{"id": "in_1"}]}}
    made = svix.event_type.create(EventTypeIn(name=name, description="Paid", schemas=schema, group_name="billing"))
    assert (made.name, made.schemas, made.group_name, made.archived) == (name, schema, "billing", False)
    with pytest.raises(HttpError) as taken:
        svix.event_type.create(EventTypeIn(name=name, description="Again"))
    assert taken.value.status_code == 409
    assert svix.event_type.get(name) == made
    assert svix.event_type.patch(name, EventTypePatch(description="Patched")).schemas == schema
    replaced = svix.event_type.upsert(name, EventTypeUpsertIn(description="Replaced"))
    assert (replaced.description, replaced.schemas, replaced.group_name) == ("Replaced", None, None)

    def listed(**options) -> dict:
        found, iterator = {}, None
        while True:
            page = svix.event_type.list(EventTypeListOptions(limit=250, iterator=iterator, **options))
            found |= {t.name: t for t in page.data}
            iterator = page.iterator
            if page.done:
                return found

    assert name in listed() and listed(with_content=False)[name].schemas is None
    svix.event_type.delete(name)
    assert name not in listed()
    assert listed(include_archived=True)[name].archived is True
    svix.event_type.delete(name, EventTypeDeleteOptions(expunge=True))
    with pytest.raises(HttpError) as gone:
        svix.event_type.get(name)
    assert gone.value.status_code == 404
    assert svix.event_type.upsert(name, EventTypeUpsertIn(description="Anew")).description == "Anew"


def test_pages_of_event_types_are_in_the_order_of_their_names(svix):
    """Broken: the iterator of event types, their name, skips some."""
    prefix = f"page.{uuid.uuid4().hex}"
    names = [f"{prefix}.{letter}" for letter in "abcde"]
    for name in names:
        svix.event_type.create(EventTypeIn(name=name, description="page"))
    first = svix.event_type.list(EventTypeListOptions(limit=2, iterator=prefix))
    assert [t.name for t in first.data] == names[:2] and not first.done
    second = svix.event_type.list(EventTypeListOptions(limit=2, iterator=first.iterator))
    assert [t.name for t in second.data] == names[2:4]

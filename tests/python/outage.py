"""What the tests that take the database away from running nodes measure: nothing acknowledged meanwhile, 503 with
`Retry-After`, and how soon service returns."""

import asyncio
import statistics
import time
from dataclasses import dataclass

from load import Findings, Loader, Record

RETURN_SECONDS_MAX = 5.0
# An answer that was on its way when the database died, or came from its last commit.
ON_ITS_WAY_SECONDS = 0.5


@dataclass
class Outage:
    """One time without a database. Times are of the monotonic clock; `None`: not seen."""

    gone_at: float
    # Until then there was no server that could have committed anything: from here on it was started, or promoted.
    returning_at: float = 0.0
    # When it answered.
    back_at: float = 0.0
    first_ack: float | None = None
    first_delivery: float | None = None


async def wait_for_return(outage: Outage, record: Record, loader: Loader, seconds: float = 30.0):
    """Waits, from when the database is back, for the first acknowledgement and the first delivery of a message acknowledged
    after that; fails at the deadline."""
    record.update()
    deadline, known = time.monotonic() + seconds, len(loader.answers)
    new: set[str] = set()
    acked_before = set(loader.acked)
    while outage.first_ack is None or outage.first_delivery is None:
        loader.check()
        if outage.first_ack is None:
            for answer in loader.answers[known:]:
                if answer.status == 202 and answer.at >= outage.back_at:
                    outage.first_ack = answer.at
                    break
            known = len(loader.answers)
        if outage.first_ack is not None:
            new |= loader.acked.keys() - acked_before
        for arrival in record.update():
            message_id = arrival.delivery.partition("/")[0]
            if outage.first_delivery is None and arrival.at >= outage.back_at and (message_id in new or message_id not in acked_before):
                outage.first_delivery = arrival.at
        assert time.monotonic() < deadline, (
            f"{seconds:.0f} s after the database was back: "
            f"{'publishing is acknowledged' if outage.first_ack else 'nothing is acknowledged'}, "
            f"{'deliveries arrive' if outage.first_delivery else 'nothing new arrives'}"
        )
        await asyncio.sleep(0.01)


def judge(findings: Findings, outages: list[Outage], loader: Loader):
    """What was answered while the database was away, and how soon service returned."""
    if not outages:
        return
    wrong, early, refused = [], [], 0
    for outage in outages:
        for answer in loader.answers:
            if outage.gone_at < answer.at < outage.back_at:
                refused += answer.status == 503
                if answer.status != 202 or answer.at <= outage.gone_at + ON_ITS_WAY_SECONDS:
                    continue
                if answer.at < outage.returning_at:
                    wrong.append((round(answer.at - outage.gone_at, 3), round(outage.returning_at - answer.at, 3)))
                else:
                    early.append(outage.back_at - answer.at)
    without = sum(1 for answer in loader.answers if answer.status == 503 and not answer.has_retry_after)
    slowest = max((a.took for a in loader.answers if a.status == 503), default=0.0)
    findings.check(not wrong, f"{len(wrong)} acknowledgements while there was no database {wrong[:5]}")
    if early:
        print(f"        {len(early)} came once it was back, and at most {max(early):.2f} s before this test had seen that")
    findings.check(refused > 0, f"{refused} requests were refused while the database was away (slowest 503 after {slowest:.2f} s)")
    findings.check(not without, f"{without} of {loader.refused[503]} answers 503 were without Retry-After")
    for name, at in (("acknowledgement", [o.first_ack for o in outages]), ("new delivery", [o.first_delivery for o in outages])):
        times = sorted(a - o.back_at for a, o in zip(at, outages, strict=True) if a is not None)
        text = f"p50 {statistics.median(times):.2f} s, max {times[-1]:.2f} s" if times else "never"
        findings.check(
            len(times) == len(outages) and times[-1] <= RETURN_SECONDS_MAX,
            f"first {name} after the database was back: {text} ({len(times)} of {len(outages)} outages)",
        )

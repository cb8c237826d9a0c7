"""What `KafkaProducer.diagnose()` returns: which steps on the way to the brokers work, and what to change."""

from __future__ import annotations

from typing import NamedTuple


class Check(NamedTuple):
    """One step. `step` is "resolve", "connect", "protocol", "versions", "metadata", "cluster",
    "leaders" or "identity"; `seen` says in words what happened, `remedy` what to change (empty
    where it is `ok`); `elapsed_ms` is how long it took."""

    step: str
    ok: bool
    seen: str
    remedy: str
    elapsed_ms: float


class AddressReport(NamedTuple):
    """One address and the steps that were tried with it, in order, up to the first that failed.

    `address` is "host:port", `checks` are the steps. `role` is "bootstrap" (from bootstrap_servers)
    or "advertised" (what the brokers tell clients to connect to); `node_id` is the broker's where
    it is advertised, else None; `release` is the newest Kafka release whose APIs the broker offers,
    () where it was not reached.
    """

    address: str
    role: str
    node_id: int | None
    release: tuple[int, ...]
    checks: tuple[Check, ...]

    @property
    def ok(self) -> bool:
        """Whether every step worked."""
        return all(check.ok for check in self.checks)


class Diagnosis(NamedTuple):
    """What was tried and how it went; `str()` of it is a text for people.

    `addresses` has a report for each address, `cluster` the checks that are about no single one.
    `cluster_id` is None where no broker told one; `elapsed_ms` is how long all of it took.
    """

    addresses: tuple[AddressReport, ...]
    cluster: tuple[Check, ...]
    cluster_id: str | None
    elapsed_ms: float

    @property
    def ok(self) -> bool:
        """Whether every step worked everywhere."""
        return all(each.ok for each in self.addresses) and all(check.ok for check in self.cluster)

    @property
    def problems(self) -> tuple[Check, ...]:
        """The steps that failed."""
        checks = [check for each in self.addresses for check in each.checks]
        return tuple(check for check in (*checks, *self.cluster) if not check.ok)

    def __str__(self) -> str:
        lines = []
        for each in self.addresses:
            node = "" if each.node_id is None else f", broker {each.node_id}"
            lines.append(f"{each.address} ({each.role}{node})")
            lines.extend(_lines(each.checks))
        if self.cluster:
            lines.append(f"cluster {self.cluster_id or '(without an id)'}")
            lines.extend(_lines(self.cluster))
        count = len(self.problems)
        verdict = "All is well" if self.ok else f"{count} problem{'s' if count != 1 else ''} found"
        lines.append(f"{verdict} ({self.elapsed_ms:.0f} ms).")
        return "\n".join(lines)


def _lines(checks: tuple[Check, ...]) -> list[str]:
    lines = []
    for check in checks:
        mark = "ok  " if check.ok else "FAIL"
        lines.append(f"  {mark} {check.step}: {check.seen}")
        if check.remedy:
            lines.append(f"       -> {check.remedy}")
    return lines

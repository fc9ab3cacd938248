"""Control nodes that end in the middle of a snapshot, of a trim or by a panic, and one whose snapshots the bucket refuses. It must not know
how the cluster is loaded."""

import re
import urllib.error

from tests.harness import wait_until

SNAPSHOTS, CHUNKS, SLOTS = "cluster/snapshots/", "cluster/chunks/", "cluster/journal/0000/"
READY_S = 40
# A node that leads waits half a minute with its first snapshot.
FIRST_SNAPSHOT_S = 120
UNUSABLE = re.compile(r"snapshot cannot be used|restores to another state|no snapshot can be used")


def numbered(key):
    """The slot of an entry's or a snapshot's object, or of the claim under which a chunk was written."""
    return int(key.rsplit("/", 1)[1].split("-")[0])


def held(bucket):
    """The keys of all snapshots, their chunks and slots."""
    return {prefix: set(bucket.keys(prefix)) for prefix in (SNAPSHOTS, CHUNKS, SLOTS)}


def armed(test, plan):
    """All control nodes are started again with a fail point: whichever leads reaches it."""
    for node in test.cluster.control:
        node.kill()
        node.start({"SEAWAY_FAILPOINTS": plan})
        wait_until(lambda node=node: not node.alive() or node.ready(), READY_S, f"{node.name} is ready")


def ends_at(test, plan):
    """A leader ends at a fail point: (the node, what the bucket held before, what it holds since). The others lead and end nowhere."""
    def ended():
        return next((node for node in test.cluster.control if not node.alive()), None)

    test.under_load_until(lambda: len(test.cluster.bucket.keys(SNAPSHOTS)) > 1, FIRST_SNAPSHOT_S, "there are two snapshots")
    armed(test, plan)
    while ended():  # it came to that before the others were ready
        armed(test, plan)
    before = held(test.cluster.bucket)
    test.under_load_until(ended, FIRST_SNAPSHOT_S, f"a leader ends by {plan}")
    node = ended()
    after = held(test.cluster.bucket)
    for other in test.cluster.control:
        if other is not node:
            other.kill()
            other.start()
    return node, before, after


def goes_on_from(test, node, newest):
    """A node starts from the newest snapshot, whose state has to be the one that it was cut from; and another is stored after it."""
    known = {process.name: len(process.log.read_text(errors="replace")) for process in test.cluster.control}
    node.start()
    wait_until(node.ready, READY_S, f"{node.name} starts from a snapshot")
    index = node.status()["journal"]["snapshot_index"]
    if index is None or index < newest:
        raise AssertionError(f"{node.name} starts from the snapshot at {index}, and there was one at {newest}")

    def stored():
        found = test.cluster.leader().status().get("journal", {}).get("snapshot_index")
        return found is not None and found > newest
    # The leader restores each snapshot, and counts those that are equal to what they were cut from.
    test.under_load_until(stored, FIRST_SNAPSHOT_S, f"a snapshot after {newest} is stored and whole")
    for process in test.cluster.control:
        found = UNUSABLE.search(process.log.read_text(errors="replace")[known[process.name]:])
        if found:
            raise AssertionError(f"{process.name}: {found.group()}")


def end_in_a_snapshot(test):
    """The leader is killed once a snapshot's parts are there and its manifest is not."""
    node, before, after = ends_at(test, "before-manifest=kill@1")
    killed = node.was_killed()
    parts = after[CHUNKS] - before[CHUNKS]
    if not parts or after[SNAPSHOTS] != before[SNAPSHOTS] or not before[CHUNKS] <= after[CHUNKS]:
        raise AssertionError(f"it ended elsewhere: {len(parts)} new chunks, manifests {sorted(before[SNAPSHOTS])}, {sorted(after[SNAPSHOTS])}")
    goes_on_from(test, node, max(map(numbered, after[SNAPSHOTS])))
    test.under_load_until(lambda: not parts & set(test.cluster.bucket.keys(CHUNKS)), FIRST_SNAPSHOT_S, "what no manifest names is removed")
    return int(killed)


def end_in_a_trim(test):
    """The leader is killed while it trims: some slots are deleted, and one that is to be next is not yet."""
    bucket = test.cluster.bucket
    last = max(map(numbered, bucket.keys(SNAPSHOTS)), default=0)

    def later():
        """The entries that are to go once two snapshots after the last are whole: no trim has come to them yet."""
        found = [key for key in bucket.keys(SLOTS) if numbered(key) > last]
        return found if len(found) > 40 else None
    entries = test.under_load_until(later, FIRST_SNAPSHOT_S, "the journal grows")
    before, next_ones = entries[:20], entries[20:40]
    with bucket.hurt(*({"kind": "delete", "prefix": key, "times": 1, "effect": "silence"} for key in next_ones)) as struck:
        test.under_load_until(struck, 2 * FIRST_SNAPSHOT_S, f"the leader trims {next_ones[0]}")
        node = test.cluster.leader()
        killed = node.kill()
    after = held(bucket)
    left = set(next_ones) & after[SLOTS]
    newest = max(map(numbered, after[SNAPSHOTS]))
    if not set(before) - after[SLOTS] or not left or max(map(numbered, left)) >= newest:
        raise AssertionError(f"of {before[0]} to {next_ones[-1]} {len(left)} of the later are left; the newest snapshot is at {newest}")
    goes_on_from(test, node, newest)
    test.under_load_until(lambda: not left & set(bucket.keys(SLOTS)), 2 * FIRST_SNAPSHOT_S, f"the next leader trims {len(left)} slots")
    return int(killed)


def is_a_claim(bucket, key):
    """Whether a slot holds a claim, which is never trimmed (docs/formats/journal.md); one that is gone by now held none."""
    try:
        content = bucket.request("GET", f"bucket/{key}")
    except urllib.error.HTTPError as refused:
        if refused.code == 404:
            return False
        raise
    return content[:4] == b"SWJE" and content[5] == 1


def panic_in_a_snapshot(test):
    """A task of the leader panics, which ends the process."""
    ends_at(test, "before-manifest=panic@1")
    # One may have come to it before the others were ready.
    panicked = [process for process in test.cluster.control if panics(process)]
    for process in panicked:
        process.kill()
        set_panic_aside(process)
        process.start()
    return len(panicked)


def panics(process):
    """The panics that a log tells of."""
    return [line for line in process.log.read_text(errors="replace").splitlines() if line.startswith("thread ") and "panicked at" in line]


def set_panic_aside(process):
    """Sees that a log tells of the panic that was asked for, and of no other; the log is not looked through for panics any more."""
    told = panics(process)
    if len(told) != 1:
        raise AssertionError(f"not one panic: {told}")
    process.log.rename(process.log.with_suffix(".panic"))


def refuse_snapshots_of_the_leader(test):
    """The bucket refuses what the leader writes of snapshots, and nothing else: it hands the lead over to a node that can store them."""
    bucket, leader = test.cluster.bucket, test.cluster.leader()
    # The chunks of a leader carry the slot of its claim.
    claim = next(numbered(key) for key in reversed(bucket.keys(SLOTS)) if is_a_claim(bucket, key))
    before = set(bucket.keys(SNAPSHOTS))
    with bucket.hurt({"kind": "put", "prefix": f"{CHUNKS}{claim:020}", "effect": "forbidden"}) as struck:
        test.under_load_until(lambda: test.cluster.leader() is not leader, FIRST_SNAPSHOT_S, f"{leader.name} hands the lead over")
        test.under_load_until(lambda: set(bucket.keys(SNAPSHOTS)) - before, FIRST_SNAPSHOT_S, "the next leader stores a snapshot")
        refused = struck()
    log = leader.log.read_text(errors="replace")
    if "stores no snapshots: it hands the lead over" not in log or not refused:
        raise AssertionError(f"{leader.name} lost the lead in another way, and was refused {refused} times")
    if not leader.alive():
        raise AssertionError(f"{leader.name} ended")
    return refused

"""Years go by: leases end and are renewed, certificates end, and who comes back has lost nothing."""

import pytest
from tests.members import Node, admit, sync, told

from fieldsync.limits import DEVICE_YEARS, GRANT_DAYS
from fieldsync.trust.certificates import encode
from fieldsync.trust.membership import DAY_MS
from fieldsync.trust.rights import Reason
from fieldsync.trust.statements import Member


def years(nodes, count):
    for node in nodes:
        node.now_ms += count * 365 * DAY_MS


def test_who_was_away_for_longer_than_any_lease_brings_and_gets_all_of_it(members):
    ada, ben = (members.device(name, write=["job/*"]) for name in ("ada", "ben"))
    for node in (ada, ben):
        node.db.enter("job/1")
        sync(node, members.hub)
    for number in range(3):
        members.hub.write("job/1", f"h{number}")
        ada.write("job/1", f"a{number}")
        years(members.nodes, 2)
    assert GRANT_DAYS < 3 * 2 * 365
    sync(ben, members.hub)
    sync(ada, ben)  # brings the news of ben's lease
    assert told(sync(ada, ben)[0]) == [("job/1", Reason.EXPIRED, True)]
    assert (ada.keys("job/1"), ben.keys("job/1")) == (["a0", "a1", "a2"], ["h0", "h1", "h2"])
    assert [one.code for one in ada.db.refused()] == [Reason.EXPIRED]
    assert sync(ada, members.hub)[0].refusals == []
    assert ada.keys("job/1") == members.hub.keys("job/1") == ["a0", "a1", "a2", "h0", "h1", "h2"]
    assert ada.db.refused() == []
    assert all(scope.pending == 0 for scope in ada.db.scopes())


def anew(members, folder, path):
    """A device of the same people, with a new key, for the file of an old one."""
    node = Node(admit(members.hub.identity, folder, "ada again", members.hub.now_ms), path)
    node.now_ms = members.hub.now_ms
    members.nodes.append(node)
    members.hub.membership.say(Member(node.device, "ada again", tuple(map(encode, node.identity.chain)), 1))
    members.hub.membership.grant(node.device, write=["job/*"])
    return node


@pytest.mark.parametrize("is_revoked_first", [False, True])
def test_a_file_goes_on_under_a_new_key(members, is_revoked_first):
    """As where a certificate has run out, or the keys are lost: what nobody has got yet arrives, and counts."""
    old = members.device("ada", write=["job/*"])
    old.db.enter("job/1")
    old.write("job/1", "delivered")
    sync(old, members.hub)
    old.write("job/1", "pending")
    path = members.folder / "ada.db"
    old.db.close()
    members.nodes.remove(old)
    years(members.nodes, DEVICE_YEARS + 1)
    if is_revoked_first:
        members.hub.membership.revoke(old.device)
    new = anew(members, members.folder / "again", path)
    new.write("job/1", "later")
    for _ in range(2):
        assert sync(new, members.hub)[0].refusals == []
    if not is_revoked_first:
        members.hub.membership.revoke(old.device)
        sync(new, members.hub)
    for node in (new, members.hub):
        assert node.keys("job/1") == ["delivered", "later", "pending"]
        assert node.membership.void() == []
    assert new.digests() == {name: members.hub.digests()[name] for name in new.digests()}
    assert all(scope.pending == 0 for scope in new.db.scopes())

"""A revocation is the same on every replica, in whatever order it is heard, and whoever else revokes meanwhile."""

import contextlib

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from tests.members import Members, sync

from fieldsync.errors import IdentityError
from fieldsync.trust.rights import CONTROL
from fieldsync.trust.statements import Revocation
from fieldsync.trust.voiding import void_dots

SCOPE = "job/1"
NODES = st.integers(0, 3)  # the hub, ada, ben and eve
STEPS = st.one_of(
    st.tuples(st.just("write"), NODES, st.none()),
    st.tuples(st.just("delete"), NODES, st.none()),
    st.tuples(st.just("sync"), NODES, NODES),
    st.tuples(st.just("sync"), NODES, NODES),
    st.tuples(st.just("revoke"), st.integers(0, 2), st.booleans()),
)
BEGIN = [("write", 3, None), ("sync", 3, 0), ("sync", 3, 1), ("write", 3, None), ("sync", 3, 2)]


class Story:
    """A hub, two who are honest, and eve, who is to be out: by the hub, or by the root through one of the others."""

    def __init__(self, members):
        self.members = members
        self.nodes = [members.hub, *(members.device(name, write=[SCOPE]) for name in ("ada", "ben", "eve"))]
        self.eve = self.nodes[-1]
        for node in self.nodes:
            node.db.enter(SCOPE)
        self.count = 0

    def step(self, what, who, value):
        node = self.nodes[who]
        if what == "write":
            self.count += 1
            node.write(SCOPE, f"{who}-{self.count}")
        elif what == "delete":
            for key in node.keys(SCOPE)[:1]:
                with node.db.write() as tx:
                    tx.delete("notes", key, scope=SCOPE)
        elif what == "sync" and who != value:
            with contextlib.suppress(IdentityError):  # who has heard of it does not speak to her
                sync(node, self.nodes[value])
        elif what == "revoke":
            key = node.identity.issuer.key if node.identity.issuer else self.members.organisation.key
            last = node.membership.last_of(self.eve.device) if value else ()
            node.membership.say_as(key, Revocation(self.eve.device, last))

    def verdict(self, node):
        """All that it comes to at one replica; names of records that were never here are not known, so of dots."""
        roll = node.membership.roll
        with node.db.replica.store.reading() as reader:
            scope = reader.scope(SCOPE).id
            held, void = reader.context(scope).intervals(), void_dots(reader, scope, roll)
        counted = {author: roll.last_counted(author) for author, _, _ in held}
        return roll.is_revoked(self.eve.device), counted, void, node.digests()[SCOPE], node.digests()[CONTROL]


@settings(
    max_examples=12,
    phases=[Phase.reuse, Phase.generate],  # a story takes a second: a shorter one is not looked for
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.large_base_example],
)
@given(steps=st.lists(STEPS, min_size=12, max_size=30))
def test_a_revocation_comes_to_the_same_everywhere(tmp_path_factory, steps):
    with Members(tmp_path_factory.mktemp("members")) as members:
        story = Story(members)
        for step in (*BEGIN, *steps, ("revoke", 0, True)):
            story.step(*step)
        honest = story.nodes[:-1]
        for node in 2 * honest[1:]:
            sync(node, members.hub)
        verdicts = [story.verdict(node) for node in honest]
        assert verdicts[0][0]
        assert verdicts[1:] == verdicts[:1] * 2
        for node in honest:  # and nobody takes anything of her, whoever calls
            for pair in ((node, story.eve), (story.eve, node)):
                with contextlib.suppress(IdentityError):
                    sync(*pair)
        assert [story.verdict(node) for node in honest] == verdicts
        members.check()

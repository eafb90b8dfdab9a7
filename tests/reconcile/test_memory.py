"""What the operator remembers of a node between two passes."""

from __future__ import annotations

from cal_operator.nodes.memory import Memories


def test_a_node_of_this_leader_is_known_by_its_token_even_if_the_watch_is_faster_than_the_reply() -> None:
    memories = Memories()
    memories.expect("mine")
    assert memories.meet("uid-1", "mine").born_here, "seen by the watch"
    assert memories.meet("uid-1", "mine").born_here, "and then told by the reply"
    assert not memories.meet("uid-2", "another's").born_here


def test_a_token_vouches_for_one_node_only() -> None:
    memories = Memories()
    memories.expect("mine")
    memories.meet("uid-1", "mine")
    assert not memories.meet("uid-2", "mine").born_here, "whoever copied the object has no part in it"

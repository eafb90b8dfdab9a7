"""One pass over a node: observe, decide, act, and at most one status write."""

from __future__ import annotations

from typing import assert_never

from cal_crds.meta import FINALIZER, NODE
from cal_crds.node import ComputeNode, EndCause
from cal_operator.accounts import Account
from cal_operator.nodes import act
from cal_operator.nodes.decide import Launch, LookUp, MarkGone, NodeView, Release, Remove, Stop, Watch, decide
from cal_operator.nodes.observe import gather
from cal_operator.probe import Prober
from cal_operator.world import World


async def reconcile(world: World, prober: Prober, uid: str) -> float | None:
    """Bring one node nearer to what it should be; the seconds until the next look."""
    node: ComputeNode | None = world.store.nodes.get(uid)
    if node is None:
        return None
    if node.metadata.deletion_timestamp is None and FINALIZER not in node.metadata.finalizers:
        # Somebody took it away, and the object may be deleted over its instance.
        await world.set_finalizers(NODE, node, [*node.metadata.finalizers, FINALIZER])
        return 0.0
    view, account = await gather(world, prober, node)
    match decide(view):
        case Release():
            await act.release(world, node)
            return None
        case Remove():
            await world.delete(NODE, node)
            return None
        case MarkGone() as gone:
            await act.mark_gone(world, view, gone)
            return None
        case LookUp():
            assert account is not None
            return (await act.look_up(world, view, account)).after
        case Launch():
            assert account is not None
            return (await act.launch(world, view, account)).after
        case Stop():
            return await _stop(world, view, account)
        case Watch(status, after):
            _count_loss(world, view, status.ended is not None and status.ended.cause is EndCause.BEATS_MISSED)
            await world.write_status(NODE, node, node.status, status, again=False)
            return after
        case unknown:
            assert_never(unknown)


async def _stop(world: World, view: NodeView, account: Account | None) -> float | None:
    result = await act.stop(world, view, account)
    if isinstance(result, MarkGone):
        await act.mark_gone(world, view, result)
        return None
    return result.after


def _count_loss(world: World, view: NodeView, missed: bool) -> None:
    if missed and view.node.status.ended is None:
        world.liveness.lost(view.node.spec.pool_ref.uid)

"""What must hold before something starts: a pool that takes it, and nothing that speaks against starting again."""

from __future__ import annotations

from datetime import timedelta

from cal_api import views
from cal_api.backend import Backend
from cal_api.creating import check_alone
from cal_api.errors import Conflict, NotFound, Unprocessable
from cal_api.table import Entry
from cal_api.values import ZERO_UUID
from cal_crds.base import rfc3339
from cal_crds.deployment import TERMINAL_STATES, ModelDeployment
from cal_crds.pool import ComputePool, PoolState

_TERMINAL = ", ".join(sorted(TERMINAL_STATES))


async def usable_pool(port: Backend, pool_id: str) -> Entry[ComputePool]:
    """The pool of a new deployment; NotFound, or Conflict if it takes none."""
    if pool_id == ZERO_UUID:
        raise NotFound(f"Pool {pool_id} not found")
    pool = await port.pool(pool_id)
    _check_usable(pool)
    return pool


def check_startable(port: Backend, entry: Entry[ModelDeployment]) -> None:
    """Unprocessable unless it has ended, Conflict if something is in the way."""
    state = views.deployment_state(entry.object)
    if state not in TERMINAL_STATES:
        raise Unprocessable(f"Deployment is {state}; only {_TERMINAL} ones can be started")
    if entry.object.metadata.deletion_timestamp:
        raise Conflict("The deployment is being deleted; make another one")
    check_alone(port, entry)
    if not entry.object.spec.external:
        _check_usable(port.store.pool_of(entry.object))


def _check_usable(pool: Entry[ComputePool] | None) -> None:
    if pool is None:
        raise Conflict("The deployment's pool is gone; make another deployment")
    state = views.pool_state(pool.object)
    if state != PoolState.ACTIVE:
        raise Conflict(f"Pool {pool.uid} is {state}; nothing can be deployed there")


def restart_moment(port: Backend, entry: Entry[ModelDeployment]) -> str:
    """A moment that was not there before: the field counts whole seconds, and the same value again would start nothing."""
    before = entry.object.spec.restarted_at
    return rfc3339(max(port.now(), before + timedelta(seconds=1)) if before else port.now())

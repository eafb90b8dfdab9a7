"""The adapter `local`: processes on this machine, each beside a small shim that outlives the operator. Linux only.

`create` imports the adapter when it is called: the shim runs out of this package too, and must stay small.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cal_adapters.contract import Adapter, Context


def create(context: Context) -> Adapter:
    """The local adapter. Unusable if the operator has no folder for adapters' state, or this isn't Linux."""
    from cal_adapters.local.adapter import LocalAdapter

    return LocalAdapter.open(context)

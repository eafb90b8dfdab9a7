"""The nosana adapter: GPU jobs on Nosana's network, through its deployments REST API and its hosts' log WebSocket.

`client.py` speaks the wire, `translate.py` is pure both ways, `adapter.py` has the contract's verbs, helped by
`buying.py`, `ending.py` and `logs.py`.
"""

from __future__ import annotations

from cal_adapters.nosana.adapter import Nosana, create

__all__ = ["Nosana", "create"]

"""The operator: makes the world match the objects, through adapters. It alone spends money.

`handlers.py` (kopf) feeds the `store` and wakes the `workqueue`; one reconcile per kind (`nodes/`, `deployments/`, `pools/`, `providers/`)
observes, decides and acts. `accounts.py` holds the adapters, `leader.py` the Lease, `sweep.py` looks for what nobody remembers.
"""

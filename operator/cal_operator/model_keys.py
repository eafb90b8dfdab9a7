"""The installation's key for models' API keys: read on first need, made if there is none yet, then kept in memory only."""

from __future__ import annotations

from cal_crds import modelkeys
from cal_crds.cluster import AlreadyExists, Cluster, NotFound


class ModelKeys:
    """The keys of this installation's models. `namespace` is the operator's own."""

    def __init__(self, cluster: Cluster, namespace: str) -> None:
        self._cluster, self._namespace = cluster, namespace
        self._installation_key: bytes | None = None

    async def of(self, deployment_uid: str) -> str:
        """The key of a deployment's model. modelkeys.BadKey if the Secret holds none, ClusterError if it can't be asked for."""
        if self._installation_key is None:
            self._installation_key = modelkeys.read_secret(await self._secret())
        return modelkeys.derive(self._installation_key, deployment_uid)

    async def _secret(self) -> dict[str, object]:
        path = modelkeys.secret_path(self._namespace)
        try:
            return await self._cluster.get(path)
        except NotFound:
            pass
        try:
            return await self._cluster.create(path.rpartition("/")[0], modelkeys.new_secret(self._namespace))
        except AlreadyExists:  # somebody was faster: theirs counts
            return await self._cluster.get(path)

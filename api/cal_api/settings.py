"""What `main` decides and everybody else is handed: read once, never looked up again."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Settings:
    """Where the API server and the relay are, and what this replica calls itself. Times in seconds, sizes in bytes."""

    #: None: the in-cluster service account.
    kubeconfig: str | None = None
    #: Where objects that REST creates are put. Objects of all namespaces are read.
    namespace: str = "default"
    #: The operator's own: digests of heartbeats go there.
    system_namespace: str = "cal-system"
    #: For the tails that this process fetches.
    relay_url: str = "http://127.0.0.1:3000"
    #: For the streams that clients open.
    public_relay_url: str = "ws://localhost:3000"
    #: Names this replica's digests; the same after a restart.
    identity: str = "local"
    #: Holds the installation's key, from which models' API keys are derived; None: they can't be told.
    model_key_file: Path | None = None
    max_body: int = 1 << 20
    digest_seconds: float = 30.0
    #: A watch that says nothing for so long is opened again (the API server sends bookmarks about each minute).
    watch_silence_seconds: float = 90.0
    #: At most so many lists a second and kind to look for unknown ids.
    lookups_per_second: float = 2.0

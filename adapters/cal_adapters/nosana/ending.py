"""How a deployment is ended so that it can't bill again, and what proves it.

Proven gone: ARCHIVED without a queued or running job (or, for the caller to tell, unknown to the account that bought it). From every
other state a deployment can be started again, by itself (INSUFFICIENT_FUNDS) or by a call that comes late.
"""

from __future__ import annotations

from cal_adapters.contract import Stop
from cal_adapters.errors import OutcomeUnknown
from cal_adapters.nosana import states
from cal_adapters.nosana.answers import Deployment
from cal_adapters.nosana.client import Client
from cal_adapters.nosana.faults import WrongState


async def stop(client: Client, deployment: Deployment) -> Stop:
    """One step towards the end, and whether it is proven. To be called again until it is."""
    try:
        return await _step(client, deployment)
    except WrongState:
        if deployment.status not in states.STATUSES:
            raise
        # It moved on between our look and our call; the next look tells where to.
        return Stop.STOPPING


async def _step(client: Client, deployment: Deployment) -> Stop:
    match deployment.status:
        case "DRAFT":
            await _take_back(client, deployment)
        case "STARTING" | "STOPPING":
            pass
        case "STOPPED":
            if not await _stop_jobs(client, deployment):
                status = (await client.archive(deployment.id)).status
                archived = deployment.model_copy(update={"status": status, "updated_at": client.now()})
                return await _proof(client, archived)
        case "ARCHIVED":
            return await _proof(client, deployment)
        case _:
            await client.stop(deployment.id)
    return Stop.STOPPING


async def _take_back(client: Client, deployment: Deployment) -> None:
    """A DRAFT can be neither stopped nor archived, and a late start would buy it. With 0 replicas a start buys nothing: so it is
    emptied, then started to get it to where it can be stopped and archived."""
    if (await client.empty(deployment.id)).replicas != 0:
        raise OutcomeUnknown(f"Nosana didn't empty deployment {deployment.id}")
    await client.start(deployment.id)


async def _stop_jobs(client: Client, deployment: Deployment) -> bool:
    """Stops the jobs that run on without their deployment; whether there were any."""
    jobs = await client.jobs(deployment.id, *states.ACTIVE_JOBS)
    for job in jobs:
        await client.stop_job(job.job)
    return bool(jobs)


async def _proof(client: Client, deployment: Deployment) -> Stop:
    """Whether it is proven gone."""
    if deployment.status != "ARCHIVED" or await _stop_jobs(client, deployment):
        return Stop.STOPPING
    # With a job on record the one listing that its start asked for is done. Without, that listing may still be on its way.
    listed = bool(await client.jobs(deployment.id))
    waited = client.now() - deployment.updated_at >= states.LISTING_WINDOW
    return Stop.GONE if listed or waited else Stop.STOPPING

"""The process of one flow run that a worker starts: `python -P -m flows.workers.one_run`.

What to run comes by standard input, as JSON {role, flow, run, parameters}; code and environment are the host's.
"""

import asyncio
import json
import sys
from uuid import UUID

from prefect.engine import handle_engine_signals
from prefect.flow_engine import load_flow_run, run_flow_async

from flows.workers.accepted import accepted
from schemas.disk import keep_private


def main() -> None:
    keep_private()
    asked = json.load(sys.stdin)
    flow, parameters = accepted(asked["role"], asked["flow"], {"parameters": asked["parameters"]})
    run = load_flow_run(flow_run_id=UUID(asked["run"]))
    with handle_engine_signals(run.id):
        asyncio.run(run_flow_async(flow, flow_run=run, parameters={"parameters": parameters}))


if __name__ == "__main__":
    main()

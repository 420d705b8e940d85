"""The core on Ray Serve, for callers on other hosts: `urban-reid core`.

`service` listens and asks for the token, `cluster` starts Ray or joins a cluster, `deployments` has a deployment for
each model that is asked for, `replicas` computes there with the queues of the core process. Only this host needs Ray
(`urban-reid[ray]`).
"""

"""The client of microtorrd: asks the daemon over its control socket, and makes and shows `.mtorrent` files.

It starts fast and stays light: no gevent, flask, requests or structlog, and rich only while it draws.
`client` speaks to the daemon, `render` and `progress` make text, `create` makes metainfo, `commands` are what
people type.
"""

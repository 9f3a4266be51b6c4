"""Swarms of thousands of real cores in one process: what two processors cannot hold as daemons.

`microtorrd.core` is pure, so a swarm needs no sockets and no clock of the machine: `net` carries facts and
orders between cores under a virtual `clock`, `hosts` and `lines` are the model of the internet, `scenarios`
says which swarms and what they must show, `figures` is what is read off them, `results` keeps it, `report`
makes the table, the pictures and docs/SIMULATION.md. `python -m bench.sim` (or `make sim`) runs them all;
the same seeds give the same figures.
"""

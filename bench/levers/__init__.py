"""What each optimisation of microtorrd is worth: measured with it and without it, in turns, in one run.

The product has no switch for any of them. `python -m bench.without LEVER` starts the daemon with one lever
taken away: `swaps.py` puts something plain in the place of a function or a constant, and fails where that is
no longer there. The levers lie in `wire`, `disk`, `many` and `tracking`, by what they belong to; `stages` are
where they are measured; `suite` makes the table of it.
"""

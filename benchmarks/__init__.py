"""nce-sim and its peers, measured side by side: `python -m benchmarks`.

The modules with a `measure` function are the groups of that command; the scripts beside them are
studies, each run by its own name.
"""

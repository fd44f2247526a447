"""A stand-in for Fluxbase: it keeps the program's contract with a deployment, and nothing of its function.

Built into one executable by ../build_standin.py. What it imitates is what a deployment meets: settings and their
checks, migrations, ports, probes, WebSockets, limits, and the ways in which the program starts, stops and fails.
"""

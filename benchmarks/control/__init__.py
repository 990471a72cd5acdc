"""The control plane alone under load: gateways, one Redis and workers that sleep instead of
drawing, until something is at its end.

    crew      a process of simulated workers
    house     all processes, and what each has used of the CPU and of Redis
    clients   generations asked for at a rate, waited for and fetched
    sums      what a generation costs each part, and who is the bottleneck; pure
    figures   the ladder of loads, as figures, a table and a plot
"""

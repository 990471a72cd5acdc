"""Small and large pictures together: who waits for whom, and whether predictions hold.

`study` has the real planner and engine on a clock of its own, so it gives the same on any machine;
`real` sends small and large pictures to a real server, and compares what was promised.
"""

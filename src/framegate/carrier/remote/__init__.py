"""Drivers that run somewhere else than in the gateway's own code, as its runtime sees any driver.

driver          the four verbs, over a host that calls are made on
child_process   a host: one process, supervised; spawn, utterances
calls           one call at a time, and a watch over it
plan, groups    tags as the driver is told them, and by which number it knows them
columns         rows of a stranger made batches
writing, statuses   commands as columns; what a driver's statuses mean
"""

"""The config centre: an etcd that holds the three tables of a gateway as numbered generations behind one head.

    options = read_options(home / "config-centre.yml")      raises Misconfigured with every problem
    async with following(options, applier, tables, ...):    a gateway that runs what the head names
    client = Client(options); centre = Centre(client, options.root)
    await centre.publish(tables, ...)                       a new generation, never over somebody else's

Layout of the keys: generation.py. Requests: client.py, answers.py. Start here: centre.py, follower.py.
"""

from __future__ import annotations

from framegate.config.etcd.centre import Centre, Head, is_same
from framegate.config.etcd.client import Client
from framegate.config.etcd.follower import Applier, Follower, following
from framegate.config.etcd.generation import Manifest, digest_of, time_text
from framegate.config.etcd.options import FILE_NAME, CentreOptions, read_options
from framegate.config.etcd.report import Report

__all__ = [
    "FILE_NAME",
    "Applier",
    "Centre",
    "CentreOptions",
    "Client",
    "Follower",
    "Head",
    "Manifest",
    "Report",
    "digest_of",
    "following",
    "is_same",
    "read_options",
    "time_text",
]

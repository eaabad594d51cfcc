"""The examiner of plugins, for drivers of every shape: `edge plugin test`, and the tests of a plugin's own.

vectors     tests/vectors.json: requests, answers, expected rows
device      a device on a real socket that answers so, and goes wrong when asked to
bench       one driver, open, before that device
exam        the questions
shapes      the driver of a project's folder, as a gateway would carry it
processes   what this process and its children hold in memory
"""

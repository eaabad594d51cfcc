"""The command `edge`: one file per verb, imported when it is called.

Data goes to stdout, talk to stderr. What ends in which exit code is in exits.py, the forms of output in output.py.
"""

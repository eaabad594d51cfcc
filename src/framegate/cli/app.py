"""The verbs of `edge`, by name. None of them is imported before it is called."""

from __future__ import annotations

from collections.abc import Mapping

from cyclopts import App

from framegate import __version__

VERBS: Mapping[str, str] = {
    "run": "Run the gateway of a home folder.",
    "demo": "Play a simulated plant through this gateway.",
    "verify-delivery": "Break things on purpose and count what became of every row.",
    "check": "Check the tables, offline; shows every problem.",
    "init": "Write commented sample tables.",
    "top": "Watch a running gateway: devices, connectors, log.",
    "tags": "Tags of a running gateway.",
    "commands": "Writes of a running gateway, and what became of them.",
    "wal": "The durable log.",
    "alarms": "Alarms of a running gateway.",
    "rule": "Local logic over tags: windows, alarms, scripts, models.",
    "dlq": "Messages that a remote refused for good.",
    "cfg": "Change the configuration, see what that does, take it back.",
    "token": "Who may use the API.",
    "audit": "What was done, by whom, and whether that record holds.",
    "plugin": "Plugins: begin, build, examine, sign; install, go back, whom to trust.",
    "publish": "Sign a plugin and pack it, for others to install.",
    "verify": "Verify a plugin's package: signature and every byte.",
    "browse": "Show what a device's own directory holds, and make tags of it.",
    "export": "Write a table as a spreadsheet, CSV or XLSX.",
    "import": "Bring tags of a spreadsheet into variables.yml.",
    "version": "Show the version.",
}
GROUPS: Mapping[str, Mapping[str, str]] = {
    "tags": {
        "ls": "List tags and values.",
        "get": "Show tags by name.",
        "watch": "Follow changes.",
        "set": "Write a value to a tag, and say what became of it.",
    },
    "commands": {"ls": "List the newest writes and their outcomes.", "show": "Show one."},
    "wal": {
        "stat": "How full it is, who lags.",
        "ls": "Records and gaps.",
        "verify": "Read and check every record.",
        "rewind": "Deliver again to a remote that has lost what it acknowledged.",
    },
    "alarms": {
        "ls": "List alarms that stand or wait for an acknowledgement.",
        "ack": "Acknowledge alarms.",
        "reset": "Let a latched alarm go.",
        "shelve": "Hide an alarm for a while.",
        "unshelve": "Show a shelved alarm again.",
        "suppress": "Hide an alarm until it is unsuppressed, because the plant's state makes it meaningless.",
        "unsuppress": "Show a suppressed alarm again.",
        "out-of-service": "Take an alarm out of service, for maintenance.",
        "return": "Bring an alarm back into service.",
    },
    "rule": {"ls": "List rules and how they do.", "test": "Run rules against recorded values, offline."},
    "cfg": {
        "get": "Show a value of the tables.",
        "set": "Set a value in the tables; comments stay.",
        "diff": "What would change, and what would restart.",
        "apply": "Have the tables take effect in the running gateway.",
        "rollback": "Bring an old generation back.",
        "history": "Who changed the configuration, when and why.",
        "schema": "Show or write the JSON Schemas of the tables, for editors.",
        "push": "Publish the tables in the config centre (etcd).",
        "pull": "Fetch a generation from the config centre.",
        "centre": "Generations in the config centre, and what gateways made of them.",
    },
    "token": {
        "add": "Make a token; it is shown once.",
        "ls": "List tokens, and when they were last used.",
        "revoke": "Refuse a token from now on.",
    },
    "plugin": {
        "new": "Begin a driver: a project that already works.",
        "build": "Build a driver's project.",
        "test": "Examine a driver: known answers, hostile peers, deadlines, memory.",
        "install": "Verify a package, show what it wants, and make it active.",
        "accept": "Make a package active that waits in the running gateway.",
        "ls": "List what is installed, by whom it is signed, and the way back.",
        "inspect": "Show what a plugin is and asks for.",
        "verify": "Verify every byte of everything that is installed.",
        "rollback": "Go back to a version that was active before.",
        "remove": "Have a plugin no longer.",
        "trust": "Whose plugins are taken.",
        "revoke": "Refuse keys or versions for good.",
        "keygen": "Make a key to sign plugins with.",
        "sign": "Sign a plugin's folder.",
        "pack": "Pack a signed folder.",
    },
    "plugin trust": {
        "add": "Trust a key for some names and kinds of plugins.",
        "ls": "List trusted keys.",
        "rm": "Trust a key no longer.",
    },
    "audit": {"verify": "Check that no record was changed, removed or inserted.", "ls": "List what was done."},
    "dlq": {
        "ls": "List them, with the reason.",
        "retry": "Send them again through the running gateway.",
        "export": "Write them to a file, payloads included.",
        "drop": "Throw them away.",
    },
}
"""Verbs of two words and more, by all but the last."""
PLACES: Mapping[str, str] = {
    "verify-delivery": "framegate.cli.verify.command:verify_delivery",
    "alarms out-of-service": "framegate.cli.alarms:out_of_service",
    "alarms return": "framegate.cli.alarms:return_",
    "tags set": "framegate.cli.tags:set_value",
    "rule test": "framegate.cli.rule:try_",
    "cfg set": "framegate.cli.cfg:set_value",
    "cfg schema": "framegate.cli.cfg_schema:schema",
    "cfg push": "framegate.cli.cfg_centre:push",
    "cfg pull": "framegate.cli.cfg_centre:pull",
    "cfg centre": "framegate.cli.cfg_centre:centre",
    "publish": "framegate.cli.plugin_make:publish",
    "verify": "framegate.cli.plugin_ls:verify",
    "plugin install": "framegate.cli.plugin_install:install",
    "plugin accept": "framegate.cli.plugin_install:accept",
    "plugin rollback": "framegate.cli.plugin_install:rollback",
    "plugin remove": "framegate.cli.plugin_install:remove",
    "plugin ls": "framegate.cli.plugin_ls:ls",
    "plugin inspect": "framegate.cli.plugin_ls:inspect",
    "plugin verify": "framegate.cli.plugin_ls:verify_installed",
    "plugin trust add": "framegate.cli.plugin_trust:add",
    "plugin trust ls": "framegate.cli.plugin_trust:ls",
    "plugin trust rm": "framegate.cli.plugin_trust:rm",
    "plugin revoke": "framegate.cli.plugin_trust:revoke",
    "plugin keygen": "framegate.cli.plugin_keys:keygen",
    "plugin sign": "framegate.cli.plugin_make:sign",
    "plugin pack": "framegate.cli.plugin_make:pack",
    "export": "framegate.cli.sheet:export_table",
    "import": "framegate.cli.sheet:import_table",
    "plugin new": "framegate.cli.plugin_new:new",
    "plugin build": "framegate.cli.plugin_build:build",
    "plugin test": "framegate.cli.plugin_test:examine_folder",
}
"""Verbs that are not found under their own name, and where they are."""


def make_app() -> App:
    """The whole command line."""
    app = App(
        name="edge",
        help="Framegate: every field protocol in, one canonical frame, every system out.",
        version=f"framegate {__version__}",
        help_format="plaintext",
        suppress_keyboard_interrupt=False,
    )
    for verb, text in VERBS.items():
        if verb in GROUPS:
            app.command(_group(verb, text))
        else:
            app.command(PLACES.get(verb, f"framegate.cli.{verb}:{verb}"), name=verb, help=text)
    return app


def _group(noun: str, text: str) -> App:
    group = App(name=noun.rpartition(" ")[2], help=text)
    for verb, verb_text in GROUPS[noun].items():
        if f"{noun} {verb}" in GROUPS:
            group.command(_group(f"{noun} {verb}", verb_text))
            continue
        place = PLACES.get(f"{noun} {verb}", f"framegate.cli.{noun}:{verb}")
        group.command(place, name=verb, help=verb_text)
    return group

"""The table of operations: everything that the API can do, one row each.

Routes, permission checks, audit entries, limits of bodies and the OpenAPI document come from here and from nowhere
else. `{tag}` and its kin are one segment of the path: a / inside a name travels as %2F.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from framegate.api import commands, configuration, frames, plant, plugins, tags, tokens
from framegate.api.operation import Answer, Call, NoParameters, Operation, Upload
from framegate.contract.access import Permission as May
from framegate.contract.command import BATCH_MAX
from framegate.observe.face import ChangeRecord, RewindRecord
from framegate.observe.plugin_face import PluginChangeRecord, StagedRecord
from framegate.observe.rule_face import AlarmRow

BATCH_BYTES_MAX: Final = 1 << 20
_KEY: Final = {commands.KEY: commands.KEY_HELP}
_WRITE: Final = {200: commands.CommandState, 202: commands.CommandState}


async def openapi(call: Call[NoParameters, None]) -> Answer:
    from framegate.api.openapi import document_bytes  # noqa: PLC0415 - made of this table

    return Answer(document_bytes())


def _tags() -> Sequence[Operation]:
    return (
        Operation(
            "tags.list", "GET", "/tags", tags.list_tags, May.TAGS_READ, "Tags and their latest values, in pages",
            {200: tags.TagPage}, query=tags.TagsQuery,
        ),
        Operation(
            "tags.write_many", "PUT", "/tags", commands.write_tags, May.TAGS_WRITE,
            f"Write up to {BATCH_MAX:,} tags; 200 if every one is confirmed, else 207 with a verdict for each",
            {200: commands.Verdicts, 207: commands.Verdicts}, body=commands.Batch, query=commands.WaitQuery,
            errors=(503,), headers=_KEY, is_change=True, details=commands.audited,
            body_bytes_max=BATCH_BYTES_MAX,
        ),
        Operation(
            "tags.read", "GET", "/tags/{tag}", tags.read_tag, May.TAGS_READ, "One tag and its latest value",
            {200: tags.Tag}, errors=(404,),
        ),
        Operation(
            "tags.write", "PUT", "/tags/{tag}", commands.write_tag, May.TAGS_WRITE,
            "Write a tag: 200 confirmed, 202 under way, 504 UNKNOWN",
            _WRITE, body=commands.Write, query=commands.WaitQuery, errors=(404, 409, 503, 504), headers=_KEY,
            is_change=True, details=commands.audited, alias="/tags/{tag}", target="tag",
        ),
        Operation(
            "tags.history", "GET", "/tags/{tag}/history", tags.read_history, May.TAGS_READ,
            "Durable rows of a tag, newest first", {200: tags.History}, query=tags.HistoryQuery, errors=(404, 503),
        ),
        Operation(
            "commands.list", "GET", "/commands", commands.list_commands, May.TAGS_READ, "Commands, newest first",
            {200: commands.CommandPage}, query=commands.CommandsQuery,
        ),
        Operation(
            "commands.read", "GET", "/commands/{command}", commands.read_command, May.TAGS_READ,
            "One command and what became of it", {200: commands.CommandState}, errors=(404,),
        ),
    )  # fmt: skip


def _plant() -> Sequence[Operation]:
    return (
        Operation(
            "gateway.read", "GET", "/gateway", plant.read_gateway, May.SYSTEM_READ, "The gateway itself",
            {200: plant.Gateway},
        ),
        Operation(
            "devices.list", "GET", "/devices", plant.list_devices, May.SYSTEM_READ, "Devices and how they do",
            {200: plant.Devices},
        ),
        Operation(
            "connectors.list", "GET", "/connectors", plant.list_connectors, May.SYSTEM_READ,
            "Connectors and how they do", {200: plant.Connectors},
        ),
        Operation(
            "bridges.list", "GET", "/bridges", plant.list_bridges, May.SYSTEM_READ, "Bridges and how they do",
            {200: plant.Bridges},
        ),
        Operation(
            "alarms.list", "GET", "/alarms", plant.list_alarms, May.ALARMS_READ, "Alarms of the rules, in pages",
            {200: plant.AlarmPage}, query=plant.AlarmsQuery,
        ),
        Operation(
            "alarms.operate", "POST", "/alarms/{alarm}", plant.operate_alarm, May.ALARMS_ACK,
            "Acknowledge, shelve, suppress an alarm, or take that back", {200: AlarmRow}, body=plant.AlarmAction,
            errors=(404, 409, 503), is_change=True, target="alarm",
        ),
        Operation("wal.read", "GET", "/wal", plant.read_wal, May.SYSTEM_READ, "The durable log", {200: plant.Wal}),
        Operation(
            "frames.read", "GET", "/frames", frames.read_frames, May.FRAMES_READ,
            "Rows of the durable log; as NDJSON where `Accept` says so",
            {200: frames.Frames}, query=frames.FramesQuery, errors=(503,),
            headers={"accept": "application/x-ndjson: one row or gap a line."},
            content_types=("application/json", frames.NDJSON),
        ),
        Operation(
            "frames.replay", "POST", "/frames", frames.rewind, May.FRAMES_REPLAY,
            "Have a connector deliver rows again", {200: RewindRecord}, body=frames.Rewind, errors=(503,),
            is_change=True,
        ),
    )  # fmt: skip


def _configuration() -> Sequence[Operation]:
    body: Mapping[str, Any] = {"body": configuration.Proposal, "body_bytes_max": configuration.CONFIG_BYTES_MAX}
    return (
        Operation(
            "config.read", "GET", "/config", configuration.read_config, May.CONFIG_READ,
            "The tables in force, without secrets; their ETag", {200: configuration.Configuration}, errors=(404,),
        ),
        Operation(
            "config.apply", "PUT", "/config", configuration.apply, May.CONFIG_APPLY,
            "Bring tables into force, whole or not at all", {200: ChangeRecord}, errors=(412, 428, 503),
            headers={configuration.IF_MATCH: configuration.IF_MATCH_HELP}, is_change=True,
            details=configuration.audited, **body,
        ),
        Operation(
            "config.validate", "POST", "/config/validate", configuration.validate, May.CONFIG_READ,
            "Whether tables could come into force, and every mistake", {200: configuration.Validation},
            errors=(404, 503), **body,
        ),
        Operation(
            "config.diff", "POST", "/config/diff", configuration.diff, May.CONFIG_READ,
            "What tables would change", {200: configuration.Difference}, errors=(404, 503), **body,
        ),
        Operation(
            "config.rollback", "POST", "/config/rollback", configuration.rollback, May.CONFIG_APPLY,
            "Bring an old generation into force again", {200: ChangeRecord}, body=configuration.Rollback,
            errors=(404, 503), is_change=True,
        ),
        Operation(
            "config.history", "GET", "/config/history", configuration.history, May.CONFIG_READ,
            "Configurations that were in force", {200: configuration.Generations},
        ),
    )  # fmt: skip


def _access() -> Sequence[Operation]:
    return (
        Operation(
            "tokens.list", "GET", "/tokens", tokens.list_tokens, May.USERS_ADMIN, "Who may come in, without secrets",
            {200: tokens.Tokens}, errors=(503,),
        ),
        Operation(
            "tokens.create", "POST", "/tokens", tokens.create_token, May.USERS_ADMIN,
            "Make a token; its text is shown this once", {201: tokens.Made}, body=tokens.Wish, errors=(503,),
            is_change=True,
        ),
        Operation(
            "tokens.revoke", "DELETE", "/tokens/{token}", tokens.revoke_token, May.USERS_ADMIN,
            "Revoke a token by name or id", {200: tokens.TokenState}, errors=(404, 503), is_change=True, target="token",
        ),
        Operation(
            "audit.list", "GET", "/audit", tokens.read_audit, May.AUDIT_READ, "What was done, newest first",
            {200: tokens.AuditPage}, query=tokens.AuditQuery, errors=(503,),
        ),
    )  # fmt: skip


def _plugins() -> Sequence[Operation]:
    return (
        Operation(
            "plugins.list", "GET", "/plugins", plugins.list_plugins, May.SYSTEM_READ,
            "Plugins, and packages that wait to be accepted", {200: plugins.Plugins},
        ),
        Operation(
            "plugins.read", "GET", "/plugins/{plugin}", plugins.read_plugin, May.SYSTEM_READ, "One plugin",
            {200: plugins.Plugin}, errors=(404,),
        ),
        Operation(
            "plugins.install", "POST", "/plugins", plugins.install, May.PLUGINS_ADMIN,
            "Upload a package: 200 in force, 202 it asks for more and waits until that is accepted",
            {200: PluginChangeRecord, 202: StagedRecord}, body=Upload, query=plugins.AcceptQuery,
            errors=(409, 503), is_change=True, details=plugins.audited, body_bytes_max=plugins.PACKAGE_BYTES_MAX,
        ),
        Operation(
            "plugins.rollback", "POST", "/plugins/{plugin}/rollback", plugins.roll_back, May.PLUGINS_ADMIN,
            "Bring the version before into force again", {200: PluginChangeRecord}, errors=(404, 409, 503),
            is_change=True, target="plugin",
        ),
        Operation(
            "plugins.remove", "DELETE", "/plugins/{plugin}", plugins.remove, May.PLUGINS_ADMIN,
            "Take away the package that waits, else the plugin, unless a row uses it", {200: PluginChangeRecord},
            errors=(404, 409, 503), is_change=True, target="plugin",
        ),
    )  # fmt: skip


def _self() -> Sequence[Operation]:
    return (
        Operation(
            "errors.read", "GET", "/errors/{code}", plant.read_error, None, "What an error code means",
            {200: plant.ErrorMeaning}, errors=(404,),
        ),
        Operation(
            "openapi", "GET", "/openapi.json", openapi, None, "This document", {200: dict[str, Any]},
        ),
        Operation(
            "livez", "GET", "/livez", plant.livez, None, "Whether the process answers", {200: bytes}, is_rooted=True,
            content_types=(plant.TEXT,),
        ),
        Operation(
            "readyz", "GET", "/readyz", plant.readyz, None,
            "Whether the gateway can take and keep rows; a silent device does not matter", {200: bytes},
            errors=(503,), is_rooted=True, content_types=(plant.TEXT,),
        ),
        Operation(
            "metrics", "GET", "/metrics", plant.metrics, May.SYSTEM_READ, "The page for Prometheus", {200: bytes},
            is_rooted=True, content_types=(plant.PROMETHEUS,),
        ),
    )  # fmt: skip


OPERATIONS: Final[tuple[Operation, ...]] = (*_tags(), *_plant(), *_configuration(), *_access(), *_plugins(), *_self())

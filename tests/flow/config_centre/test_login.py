"""An etcd with users: what their roles allow, and a gateway that is let in late."""

from __future__ import annotations

from dataclasses import replace

import pytest

from framegate.config.etcd import CentreOptions
from framegate.contract.errors import Misconfigured, NotConnected
from framegate.endpoint.endpoint import CredentialsReference
from framegate.testing.etcd import IS_INSTALLED, Etcd

from .stage import CONVERGE_S_MAX, ROOT, Stage, until

pytestmark = pytest.mark.skipif(not IS_INSTALLED, reason="etcd and etcdctl are not installed")


def lock(etcd: Etcd) -> None:
    """Users: root; publisher, who may write all; box, who may read, and write reports only."""
    for words in (
        ("user", "add", "root:root-pw"), ("user", "grant-role", "root", "root"), ("role", "add", "publisher"),
        ("role", "grant-permission", "publisher", "--prefix=true", "readwrite", ROOT), ("role", "add", "gateway"),
        ("role", "grant-permission", "gateway", "--prefix=true", "read", ROOT),
        ("role", "grant-permission", "gateway", "--prefix=true", "readwrite", f"{ROOT}applied/"),
        ("user", "add", "ann:ann-pw"), ("user", "grant-role", "ann", "publisher"),
        ("user", "add", "box:box-pw"), ("user", "grant-role", "box", "gateway"), ("auth", "enable"),
    ):  # fmt: skip
        etcd.control(*words)
    etcd.control_options = ("--user=root:root-pw",)


def login(options: CentreOptions, name: str, password: str) -> CentreOptions:
    return replace(options, credentials=CredentialsReference(name, password))


async def test_users_may_do_what_their_roles_say(stage: Stage) -> None:
    lock(stage.etcd)
    ann, box = login(stage.options, "ann", "ann-pw"), login(stage.options, "box", "box-pw")
    async with stage.centre() as nobody:
        with pytest.raises(Misconfigured, match="asks for a login"):
            await nobody.head()
    async with stage.centre(login(stage.options, "ann", "wrong-pw")) as wrong:
        with pytest.raises(Misconfigured, match="does not accept") as caught:
            await wrong.head()
    assert caught.value.stable_code == "E1172"
    assert "wrong-pw" not in str(caught.value)
    async with stage.centre(ann) as centre:
        head = await centre.head()
        await centre.publish(stage.tables(1), author="ann", reason="", time_ns=1, seen=head)
    async with stage.centre(box) as reader:
        with pytest.raises(Misconfigured) as caught:
            await reader.publish(stage.tables(2), author="box", reason="", time_ns=1, seen=await reader.head())
    assert caught.value.stable_code == "E1173"
    async with stage.followed(box) as follower:
        await until(lambda: follower.running == 1)
        await until(stage.report)
        async with stage.centre(ann) as centre:
            assert [report.instance for report in await centre.reports()] == ["box"]
            # etcd keeps its tokens in memory: after a restart every one of them is unknown.
            stage.etcd.kill()
            with pytest.raises(NotConnected):
                await centre.head()
            stage.etcd.start()
            head = await centre.head()
            await centre.publish(stage.tables(2), author="ann", reason="", time_ns=1, seen=head)
        await until(lambda: follower.running == 2, CONVERGE_S_MAX)


async def test_gateway_that_is_let_in_late_needs_no_restart(stage: Stage) -> None:
    await stage.publish(1)
    lock(stage.etcd)
    late = login(stage.options, "late", "late-pw")
    async with stage.followed(late) as follower:
        await until(lambda: stage.log.events("centre_lost"))
        assert stage.log.events("centre_lost")[0]["reason"].startswith("E1172")
        assert "late-pw" not in str(stage.log.lines)
        stage.control("user", "add", "late:late-pw")
        stage.control("user", "grant-role", "late", "gateway")
        await until(lambda: follower.running == 1)

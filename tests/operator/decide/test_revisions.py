"""A revision's name: what makes another one, and what does not."""

from typing import Any

from tests.operator.definition import make_spec

from serin_operator.api.spec import Signature
from serin_operator.api.status import Revision
from serin_operator.decide.observed import Defaults
from serin_operator.decide.revisions import revision_of


def revision(**changes: Any) -> Revision:
    return revision_of(make_spec(**changes), "a" * 64, Defaults(server_image="serin:1"))


def test_trusted_types_and_acceleration_make_another_revision() -> None:
    names = {
        revision(model={"format": "skops"}).revision,
        revision(model={"format": "skops", "trustedTypes": ["a.B"]}).revision,
        revision(model={"format": "skops", "trustedTypes": ["a.B", "a.C"]}).revision,
        revision(model={"format": "skops"}, server={"accelerate": "Never"}).revision,
    }
    assert len(names) == 4


def test_another_profile_makes_another_revision_and_another_place_of_it_none() -> None:
    def profiled(uri: str, sha256: str) -> Revision:
        return revision(model={"profile": {"uri": uri, "sha256": sha256}})

    one, other = profiled("https://a.example.com/p", "1" * 64), profiled("pvc://models/p", "1" * 64)
    assert one.revision == other.revision
    assert one.profile != other.profile
    assert len({revision().revision, one.revision, profiled("https://a.example.com/p", "2" * 64).revision}) == 3


def test_processes_and_the_access_log_make_another_revision() -> None:
    servers: list[dict[str, Any]] = [{}, {"processes": 1}, {"processes": 2}, {"accessLog": {"sample": 0.5}}]
    assert len({revision(server=server).revision for server in servers}) == 4


def test_another_signer_makes_another_revision_and_another_place_of_the_signature_none() -> None:
    def signed(**signature: str) -> Revision:
        return revision(model={"signature": signature})

    one, other = signed(publicKey="A"), signed(publicKey="A", uri="https://elsewhere.example.com/a.sig")
    assert one.revision == other.revision
    assert one.signature == Signature(one.uri + ".sig", public_key="A")
    names = {revision().revision, one.revision, signed(publicKey="B").revision, signed(certificateChain="A").revision}
    assert len(names) == 4


def test_the_order_of_trusted_types_makes_none() -> None:
    one = revision(model={"format": "skops", "trustedTypes": ["a.B", "a.C"]})
    other = revision(model={"format": "skops", "trustedTypes": ["a.C", "a.B"]})
    assert one.revision == other.revision
    assert one.trusted_types == ("a.B", "a.C")


def test_a_model_without_the_new_fields_keeps_the_name_it_had_before_them() -> None:
    """Another name would roll out every model again when Serin is upgraded."""
    assert revision().revision == "bcc8fdae64"

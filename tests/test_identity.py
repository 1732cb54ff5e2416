"""Identities: certificates, the folders that hold them, and who gets through a real TLS handshake."""

import os
import ssl
import stat

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from tests.members import admit, shake

from fieldsync.clock import now_ms
from fieldsync.errors import IdentityError
from fieldsync.trust import certificates
from fieldsync.trust.certificates import Role
from fieldsync.trust.identity import Identity, Organisation, Peer, pinning_context
from fieldsync.trust.signing import id_of, is_signed, public_of

YEAR_MS = 365 * 86_400_000


@pytest.fixture
def network(tmp_path):
    """An organisation, its hub and a device."""
    organisation = Organisation.create(tmp_path / "org", "Acme", now_ms())
    hub = organisation.create_hub(tmp_path / "hub", "office", now_ms())
    return organisation, hub, admit(hub, tmp_path / "ada")


def test_both_ends_learn_who_the_other_is(network):
    _, hub, ada = network
    server, client = shake(hub.server_context(), ada.client_context())
    assert hub.peer_of(server.getpeercert(True)) == Peer(ada.device, "ada", False)
    assert ada.peer_of(client.getpeercert(True)) == Peer(hub.device, "office", True)
    assert server.version() == client.version() == "TLSv1.3"


def test_two_devices_need_no_hub(network, tmp_path):
    _, hub, ada = network
    ben = admit(hub, tmp_path / "ben", "ben")
    server, client = shake(ada.server_context(), ben.client_context())
    assert ada.peer_of(server.getpeercert(True)).device == ben.device
    assert not ben.peer_of(client.getpeercert(True)).is_hub


def test_another_organisation_is_refused_both_ways(network, tmp_path):
    _, hub, ada = network
    other = Organisation.create(tmp_path / "other", "Acme", now_ms()).create_hub(tmp_path / "spy", "office", now_ms())
    with pytest.raises(ssl.SSLError, match=r"unable to get local issuer|self-signed"):
        shake(other.server_context(), ada.client_context())
    with pytest.raises(ssl.SSLError, match=r"unable to get local issuer|self-signed"):
        shake(hub.server_context(), admit(other, tmp_path / "eve").client_context())


def test_who_shows_no_certificate_is_refused(network):
    _, hub, _ = network
    with pytest.raises(ssl.SSLError, match="peer did not return a certificate"):
        shake(hub.server_context(), pinning_context())


def test_an_expired_certificate_is_refused_both_ways(network, tmp_path):
    _, hub, ada = network
    old = admit(hub, tmp_path / "old", at_ms=now_ms() - 11 * YEAR_MS)
    with pytest.raises(ssl.SSLError, match="certificate has expired"):
        shake(hub.server_context(), old.client_context())
    with pytest.raises(ssl.SSLError, match="certificate has expired"):
        shake(old.server_context(), ada.client_context())


def test_certificates_begin_before_any_clock(network):
    organisation, hub, ada = network
    for one in (organisation.certificate, *hub.chain, hub.issuer.certificate, *ada.chain):
        assert one.not_valid_before_utc == certificates.BEGINNING


def test_older_tls_is_refused(network):
    _, hub, ada = network
    old = ada.client_context()
    old.minimum_version = old.maximum_version = ssl.TLSVersion.TLSv1_2
    with pytest.raises(ssl.SSLError, match="unsupported protocol"):
        shake(hub.server_context(), old)


def test_an_issuer_makes_no_hubs(network):
    organisation, hub, _ = network
    public, issuer = public_of(Ed25519PrivateKey.generate()), hub.issuer
    for role in (Role.HUB, Role.ISSUER, Role.ROOT):
        with pytest.raises(IdentityError, match="can make no certificate"):
            certificates.issue(public, "eve", role, issuer.certificate, issuer.key, now_ms())
    with pytest.raises(IdentityError, match="do not belong together"):
        certificates.issue(public, "eve", Role.DEVICE, issuer.certificate, organisation.key, now_ms())


def test_a_hub_that_only_its_issuer_calls_one_is_none(network, tmp_path, monkeypatch):
    """Who stole an issuer's key makes what certificates he likes; TLS lets them pass, and they are a device's."""
    _, hub, ada = network
    key, issuer = Identity.create_key(tmp_path / "eve"), hub.issuer
    monkeypatch.setattr(certificates, "role_of", lambda _: Role.ROOT)
    forged = certificates.issue(public_of(key), "eve", Role.HUB, issuer.certificate, issuer.key, now_ms())
    monkeypatch.undo()
    eve = Identity.create(tmp_path / "eve", [forged, issuer.certificate], hub.root, [])
    server, _ = shake(ada.server_context(), eve.client_context())
    assert not ada.peer_of(server.getpeercert(True)).is_hub
    assert not eve.is_hub


def test_an_authority_is_no_device(network):
    organisation, hub, ada = network
    for one in (organisation.certificate, hub.issuer.certificate):
        with pytest.raises(IdentityError, match="no device's"):
            ada.peer_of(one.public_bytes(Encoding.DER))


@pytest.mark.parametrize("der", [None, b"", b"\x30\x00", b"x" * 5000])
def test_bytes_that_are_no_certificate(network, der):
    with pytest.raises(IdentityError, match="certificate"):
        network[2].peer_of(der)


def test_a_key_of_another_kind_is_refused(network, tmp_path):
    _, _, ada = network
    pem = ec.generate_private_key(ec.SECP256R1()).private_bytes(
        Encoding.PEM,
        PrivateFormat.PKCS8,
        NoEncryption(),
    )
    (ada.folder / "device.key").write_bytes(pem)
    with pytest.raises(IdentityError, match="not Ed25519"):
        Identity.load(ada.folder)


def test_folders_are_readable_by_their_owner_only(network):
    was = os.umask(0)
    try:
        hub = network[0].create_hub(network[2].folder.parent / "second", "second", now_ms())
    finally:
        os.umask(was)
    assert stat.S_IMODE(hub.folder.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in hub.folder.iterdir()} == {0o600}
    assert sorted(path.name for path in hub.folder.iterdir()) == sorted(
        ["device.crt", "device.key", "issuer.crt", "issuer.key", "root.crt", "said"]
    )


@pytest.mark.parametrize("mode", [0o770, 0o702, 0o777])
def test_a_folder_in_which_others_can_replace_files_is_refused(network, mode):
    """Whose root this is decides whom to believe."""
    _, _, ada = network
    for folder, load in ((ada.folder, Identity.load), (ada.folder.parent / "org", Organisation.load)):
        folder.chmod(mode)
        with pytest.raises(IdentityError, match="is open to others: `chmod 700`"):
            load(folder)
        folder.chmod(0o750)
        load(folder)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o644])
def test_a_key_that_others_can_read_is_refused(network, mode):
    _, _, ada = network
    (ada.folder / "device.key").chmod(mode)
    with pytest.raises(IdentityError, match="open to others"):
        Identity.load(ada.folder)


@pytest.mark.parametrize("name", ["root.crt", "device.crt"])
def test_a_certificate_that_others_can_replace_is_refused(network, name):
    _, _, ada = network
    (ada.folder / name).chmod(0o644)
    assert Identity.load(ada.folder).device == ada.device
    (ada.folder / name).chmod(0o664)
    with pytest.raises(IdentityError, match="open to others"):
        Identity.load(ada.folder)


def test_nothing_is_written_over(network):
    organisation, hub, _ = network
    before = (hub.folder / "device.key").read_bytes()
    with pytest.raises(FileExistsError):
        organisation.create_hub(hub.folder, "again", now_ms())
    assert (hub.folder / "device.key").read_bytes() == before


@pytest.mark.parametrize("name", ["device.key", "device.crt", "root.crt"])
def test_a_folder_that_is_not_whole(network, name):
    _, _, ada = network
    path = ada.folder / name
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(IdentityError, match="not a"):
        Identity.load(ada.folder)
    path.unlink()
    with pytest.raises(IdentityError, match="No such file"):
        Identity.load(ada.folder)


def test_another_devices_certificate_does_not_fit(network, tmp_path):
    _, hub, ada = network
    ben = admit(hub, tmp_path / "ben", "ben")
    (ada.folder / "device.crt").write_bytes((ben.folder / "device.crt").read_bytes())
    with pytest.raises(IdentityError, match="not of this device's key"):
        Identity.load(ada.folder)


def test_a_certificate_is_renewed_and_the_device_is_the_same(network):
    _, hub, ada = network
    later = now_ms() + 5 * YEAR_MS
    chain = hub.issuer.admit(public_of(ada.key), "ada", later)
    renewed = ada.renew(chain)
    assert renewed.device == ada.device
    assert renewed.chain[0].not_valid_after_utc > ada.chain[0].not_valid_after_utc
    assert Identity.load(ada.folder).chain == chain
    shake(hub.server_context(), renewed.client_context())


def test_a_renewal_of_somebody_else_is_refused(network):
    _, hub, ada = network
    with pytest.raises(IdentityError, match="not of this device's key"):
        ada.renew(hub.issuer.admit(public_of(Ed25519PrivateKey.generate()), "ada", now_ms()))
    assert Identity.load(ada.folder).chain == ada.chain


def test_who_enrols_sees_the_hubs_key_before_it_says_anything(network):
    _, hub, _ = network
    _, client = shake(hub.enrolment_context(), pinning_context())
    seen = certificates.decode(client.getpeercert(True))
    assert id_of(certificates.public_key(seen)) == hub.device


def test_ids_and_signatures(network):
    organisation, hub, ada = network
    assert len({organisation.id, hub.device, hub.issuer.id, ada.device}) == 4
    assert ada.organisation == hub.organisation == organisation.id == Organisation.load(ada.folder.parent / "org").id
    signature = ada.key.sign(b"said")
    assert is_signed(public_of(ada.key), signature, b"said")
    assert not is_signed(public_of(ada.key), signature, b"sa1d")
    assert not is_signed(public_of(hub.key), signature, b"said")
    assert not is_signed(b"short", signature, b"said")


@pytest.mark.parametrize("name", ["", "x" * 65, "line\nbreak"])
def test_names_are_bounded(network, name):
    with pytest.raises(IdentityError, match="a name is"):
        network[1].issuer.admit(public_of(Ed25519PrivateKey.generate()), name, now_ms())

"""The AWS KMS protector against every KMS there is: the double, moto, and AWS itself where a key is named for it."""

from __future__ import annotations

import base64
import dataclasses
import logging
import secrets

import pytest
from aws_kms_places import AwsKmsPlace

from ringfence_agent.keystore.protector import MaterialBinding
from ringfence_agent.keystore.protectors.aws_kms import AwsKmsMaterials, AwsKmsProtector, open_aws_kms
from ringfence_agent.keystore.protectors.aws_kms_answers import MAX_CIPHERTEXT_BYTES
from ringfence_agent.keystore.protectors.aws_kms_api import AwsKms
from ringfence_agent.keystore.protectors.aws_kms_errors import Reason
from ringfence_agent.keystore.sealing import SealBrokenError
from ringfence_zones.errors import ProtectorRefusedError
from ringfence_zones.secret import Secret

STORE = bytes(range(16))
BINDING = MaterialBinding(3, STORE, "pii", 0, "AES/CTR/NoPadding", 256, 1_700_000_000_000)


@pytest.fixture
def protector(aws_kms_place: AwsKmsPlace) -> AwsKmsProtector:
    (protector,) = open_aws_kms(aws_kms_place.settings)
    return protector


@pytest.fixture
def materials(protector: AwsKmsProtector) -> AwsKmsMaterials:
    return protector.materials(protector.seal_root(STORE, Secret(bytes(32))))


def test_a_root_opens_from_its_slot_for_its_store_alone(protector: AwsKmsProtector) -> None:
    root = Secret(secrets.token_bytes(32))
    slot = protector.seal_root(STORE, root)
    assert protector.recognises(slot)
    assert protector.open_root(STORE, slot) == root
    with pytest.raises(SealBrokenError):
        protector.open_root(bytes(16), slot)


def test_a_batch_of_materials_opens_in_its_order(materials: AwsKmsMaterials) -> None:
    bindings = [dataclasses.replace(BINDING, key_name=f"key-{number}") for number in range(20)]
    plain = [Secret(secrets.token_bytes(16 if number % 2 else 32)) for number in range(20)]
    sealed = materials.seal(list(zip(bindings, plain, strict=True)))
    assert materials.open(list(zip(bindings, sealed, strict=True))) == plain
    assert all(0 < len(each) <= MAX_CIPHERTEXT_BYTES for each in sealed)
    assert not any(secret.reveal() in each for secret, each in zip(plain, sealed, strict=True))
    assert materials.seal([]) == materials.open([]) == []


@pytest.mark.parametrize("other", [{"key_name": "other"}, {"version": 1}, {"key_name": "pii\0"}, {"key_name": "pïi"}])
def test_a_seal_opens_for_its_own_key_and_version_alone(materials: AwsKmsMaterials, other: dict[str, object]) -> None:
    (sealed,) = materials.seal([(BINDING, Secret(bytes(32)))])
    with pytest.raises(SealBrokenError):
        materials.open([(dataclasses.replace(BINDING, **other), sealed)])  # type: ignore[arg-type]


def test_key_names_of_every_kind_can_be_bound(materials: AwsKmsMaterials) -> None:
    names = ["a" * 1000, "schlüssel", "\u0085 \n\t", "键" * 300, "a/b=c&d", "ringfence:key"]
    bindings = [dataclasses.replace(BINDING, key_name=name) for name in names]
    sealed = materials.seal([(binding, Secret(bytes(32))) for binding in bindings])
    assert materials.open(list(zip(bindings, sealed, strict=True))) == [Secret(bytes(32))] * len(names)


def test_another_cluster_opens_nothing(aws_kms_place: AwsKmsPlace, materials: AwsKmsMaterials) -> None:
    (sealed,) = materials.seal([(BINDING, Secret(bytes(32)))])
    (other,) = open_aws_kms(aws_kms_place.settings_for(aws_kms_place.key, cluster="other"))
    theirs = other.materials(other.seal_root(STORE, Secret(bytes(32))))
    with pytest.raises(SealBrokenError):
        theirs.open([(BINDING, sealed)])


def test_a_root_is_no_material(protector: AwsKmsProtector, materials: AwsKmsMaterials) -> None:
    named_like_a_root = dataclasses.replace(BINDING, key_name=STORE.hex())
    (sealed,) = materials.seal([(named_like_a_root, Secret(bytes(32)))])
    slot = protector.seal_root(STORE, Secret(bytes(32)))
    begin, _, rest = slot.partition(b'"ciphertext":"')
    forged = begin + b'"ciphertext":"' + base64.b64encode(sealed) + rest[rest.index(b'"') :]
    with pytest.raises(SealBrokenError):
        protector.open_root(STORE, forged)


@pytest.mark.parametrize("place", [-1, -20])
def test_a_changed_seal_does_not_open(materials: AwsKmsMaterials, place: int) -> None:
    (sealed,) = materials.seal([(BINDING, Secret(bytes(32)))])
    changed = bytearray(sealed)
    changed[place] ^= 1
    with pytest.raises(SealBrokenError):
        materials.open([(BINDING, bytes(changed))])


def test_nothing_of_an_impossible_size_is_sent(materials: AwsKmsMaterials) -> None:
    for sealed in (b"", bytes(MAX_CIPHERTEXT_BYTES + 1)):
        with pytest.raises(SealBrokenError):
            materials.open([(BINDING, sealed)])


def second_key(place: AwsKmsPlace) -> str:
    if place.second_key is None:
        pytest.skip("RINGFENCE_TEST_AWS_KMS_SECOND_KEY names no second key")
    return place.second_key


def test_a_seal_of_another_key_is_refused_and_never_tried_with_its_own(
    aws_kms_place: AwsKmsPlace, materials: AwsKmsMaterials
) -> None:
    second = AwsKmsMaterials(AwsKms(aws_kms_place.settings), second_key(aws_kms_place), aws_kms_place.settings.cluster)
    (sealed,) = second.seal([(BINDING, Secret(bytes(32)))])
    with pytest.raises(ProtectorRefusedError) as refused:
        materials.open([(BINDING, sealed)])
    # moto has one word for this and for a missing permission.
    expected = Reason.ACCESS_DENIED if aws_kms_place.name == "moto" else Reason.WRONG_KEY
    assert refused.value.reason == expected
    assert aws_kms_place.key in refused.value.message


def test_seals_move_to_another_key_without_being_opened_here(aws_kms_place: AwsKmsPlace) -> None:
    settings = aws_kms_place.settings_for(second_key(aws_kms_place), former_keys=(aws_kms_place.key,))
    current, former = open_aws_kms(settings)
    old_slot, new_slot = former.seal_root(STORE, Secret(bytes(32))), current.seal_root(STORE, Secret(bytes(32)))
    old, new = former.materials(old_slot), current.materials(new_slot)
    bindings = [dataclasses.replace(BINDING, version=number) for number in range(10)]
    plain = [Secret(secrets.token_bytes(32)) for _ in bindings]
    sealed = old.seal(list(zip(bindings, plain, strict=True)))
    assert new.can_reseal(old)
    moved = new.reseal(old, list(zip(bindings, sealed, strict=True)))
    assert new.open(list(zip(bindings, moved, strict=True))) == plain
    assert old.open(list(zip(bindings, sealed, strict=True))) == plain
    with pytest.raises(SealBrokenError):
        new.reseal(old, [(bindings[1], sealed[0])])
    assert (current.recognises(old_slot), former.recognises(old_slot)) == (False, True)


def test_only_seals_of_another_key_of_the_same_cluster_can_move(
    aws_kms_place: AwsKmsPlace, materials: AwsKmsMaterials
) -> None:
    assert not materials.can_reseal(materials)
    elsewhere = AwsKmsMaterials(AwsKms(aws_kms_place.settings), aws_kms_place.key + "0", "other")
    assert not materials.can_reseal(elsewhere)


def test_an_alias_is_looked_up_once_and_its_move_is_told(
    aws_kms_place: AwsKmsPlace, caplog: pytest.LogCaptureFixture
) -> None:
    if aws_kms_place.admin is None:
        pytest.skip("no alias is made in a real account")
    alias = f"alias/ringfence-{secrets.token_hex(4)}"
    aws_kms_place.admin.create_alias(AliasName=alias, TargetKeyId=aws_kms_place.key)
    (protector,) = open_aws_kms(aws_kms_place.settings_for(alias))
    slot = protector.seal_root(STORE, Secret(bytes(32)))
    aws_kms_place.admin.update_alias(AliasName=alias, TargetKeyId=aws_kms_place.second_key)
    # Who runs stays with the key.
    assert aws_kms_place.key in protector.label
    assert protector.open_root(STORE, slot) == Secret(bytes(32))
    (restarted,) = open_aws_kms(aws_kms_place.settings_for(alias))
    with caplog.at_level(logging.WARNING):
        assert not restarted.recognises(slot)
    assert aws_kms_place.key in caplog.text
    assert "former_keys" in caplog.text
    with pytest.raises(ProtectorRefusedError) as refused:
        restarted.open_root(STORE, slot)
    assert refused.value.reason == Reason.WRONG_KEY
    _, former = open_aws_kms(aws_kms_place.settings_for(alias, former_keys=(aws_kms_place.key,)))
    assert former.open_root(STORE, slot) == Secret(bytes(32))


def test_a_key_that_is_not_there_is_said_to_be_missing(aws_kms_place: AwsKmsPlace) -> None:
    if aws_kms_place.admin is None:
        pytest.skip("AWS may say that access is denied in place of it")
    missing = aws_kms_place.key[:-12] + "000000000000"
    with pytest.raises(ProtectorRefusedError) as refused:
        open_aws_kms(aws_kms_place.settings_for(missing))[0].seal_root(STORE, Secret(bytes(32)))
    assert refused.value.reason == Reason.NOT_FOUND
    assert missing in refused.value.message


def test_a_key_is_described_in_aws_s_words(aws_kms_place: AwsKmsPlace) -> None:
    found = AwsKms(aws_kms_place.settings).describe(aws_kms_place.key)
    assert (found.arn, found.state, found.manager) == (aws_kms_place.key, "Enabled", "CUSTOMER")
    assert (found.spec, found.usage) == ("SYMMETRIC_DEFAULT", "ENCRYPT_DECRYPT")
    assert found.account == aws_kms_place.key.split(":")[4]
    assert (found.deletion, found.material_expires) == (None, None)

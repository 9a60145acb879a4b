"""A `kms-acls.xml` on disk for tests of the linter and of explanations: one property a line, from line 2 on."""

from __future__ import annotations

from pathlib import Path

STATIC = "hdfs=;etl=pii,staff;alice=staff;keyadmin=admins"
# Nothing is found in this one.
SOUND = {
    "hadoop.kms.acl.CREATE": "keyadmin",
    "hadoop.kms.acl.DELETE": "keyadmin",
    "hadoop.kms.acl.ROLLOVER": " admins",
    "hadoop.kms.acl.SET_KEY_MATERIAL": " ",
    "hadoop.kms.acl.GET": " ",
    "hadoop.kms.acl.GET_KEYS": "*",
    "hadoop.kms.acl.GET_METADATA": "*",
    "hadoop.kms.acl.GENERATE_EEK": "hdfs",
    "hadoop.kms.acl.DECRYPT_EEK": "*",
    "hadoop.kms.blacklist.DECRYPT_EEK": "hdfs",
    "whitelist.key.acl.MANAGEMENT": "keyadmin",
    "default.key.acl.READ": "*",
    "default.key.acl.GENERATE_EEK": "hdfs",
    "key.acl.pii.ALL": "etl pii",
}


def write_acls(directory: Path, properties: dict[str, str], site: dict[str, str] | None = None) -> Path:
    """The file, with a core-site.xml of static groups and a kms-site.xml of `site` beside it."""

    def text(values: dict[str, str]) -> str:
        lines = [f"<property><name>{name}</name><value>{value}</value></property>" for name, value in values.items()]
        return "\n".join(["<configuration>", *lines, "</configuration>"])

    (directory / "core-site.xml").write_text(text({"hadoop.user.group.static.mapping.overrides": STATIC}))
    (directory / "kms-site.xml").write_text(text(site or {}))
    path = directory / "kms-acls.xml"
    path.write_text(text(properties))
    return path

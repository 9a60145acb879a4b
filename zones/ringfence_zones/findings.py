"""Findings: what is not as policy or good practice wants it, in one shape everywhere.

Commands, the agent's API and the policy loader all speak in findings, so that one table, one JSON shape and one
closed list of rules serve them all. `Rule` is that list; a finding cannot name a rule outside it.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any


class Severity(enum.StrEnum):
    """How much a finding matters: `error` breaks a promise, `warn` weakens one, `info` is worth knowing."""

    ERROR = "error"
    WARN = "warn"
    INFO = "info"


class Rule(enum.StrEnum):
    """Every rule a finding or a refusal can name, with what it means.

    The value is the stable word that appears in JSON; `meaning` is what the documentation prints.
    """

    meaning: str

    def __new__(cls, value: str, meaning: str) -> Rule:
        member = str.__new__(cls, value)
        member._value_ = value
        member.meaning = meaning
        return member

    @classmethod
    def find_rule(cls, word: object) -> Rule | None:
        """The rule that JSON calls `word`; None when this version does not know it."""
        return next((rule for rule in cls if rule.value == word), None)

    # The policy document (lint, plan)
    YAML_SYNTAX = "yaml_syntax", "The document is not well-formed YAML."
    DUPLICATE_FIELD = "duplicate_field", "A field is written twice; which one holds would be a guess."
    UNKNOWN_FIELD = "unknown_field", "A field that the policy does not know; the nearest known one is named."
    MISSING_FIELD = "missing_field", "A required field is absent."
    BAD_VALUE = "bad_value", "A value has the wrong type or form."
    BAD_PATH = "bad_path", "A path is relative, not canonical or reserved."
    BAD_KEY_NAME = "bad_key_name", "A key name holds characters that Hadoop's key providers do not all take."
    DUPLICATE_PATH = "duplicate_path", "Two zones name the same path."
    DUPLICATE_KEY = "duplicate_key", "Two zones of the document share one key."
    NESTED_ZONE = "nested_zone", "A zone lies inside another without `nested: true`."
    UNKNOWN_ZONE = "unknown_zone", "A flow names a path that is not a zone root of the document."
    FLOW_WITHOUT_ACCESS = "flow_without_access", "A flow's `who` cannot read its source or write its target."
    MISSING_KMS = "missing_kms", "`kms` must name the NameNode's users and the key administrators."
    NEEDS_RINGFENCE_KMS = "needs_ringfence_kms", "The policy asks for what only Ringfence's own KMS can do."
    FLOWS_UNTRIED = "flows_untried", "Flows are enforced only after they were published in shadow mode."
    # What a policy says of moves (policy test, reach, replay)
    EXPECTATION_FAILED = (
        "expectation_failed",
        "A case beside the policy expects another decision than the policy gives.",
    )
    UNDECLARED_PATH = (
        "undeclared_path",
        "Data of one zone can end where no flow or `outside` of the policy leads from there.",
    )
    ACCESS_REFUSED = "access_refused", "Somebody uses a zone or its key to whom the policy gives no right to it."
    # Policy against cluster (plan, apply, check, agent)
    SHARED_KEY = "shared_key", "Two or more encryption zones of the cluster use the same key."
    ZONE_MISSING = "zone_missing", "A zone of the policy does not exist on the cluster."
    ZONE_OUTSIDE_POLICY = "zone_outside_policy", "A zone of the cluster is not in the policy."
    ZONE_KEY_MISMATCH = "zone_key_mismatch", "An existing zone uses another key than the policy names."
    KEY_MISSING = "key_missing", "A zone's key does not exist in the KMS."
    KEY_LENGTH_MISMATCH = "key_length_mismatch", "An existing key has another length than the policy names."
    CUSTODY_MISMATCH = "custody_mismatch", "An existing key is in another custody than the policy names."
    CUSTODY_UNAVAILABLE = "custody_unavailable", "The KMS does not have the custody that a key is in or is to be in."
    CUSTODY_COST = (
        "custody_cost",
        "What custody transit costs: the NameNode's memory, and a Vault that must answer.",
    )
    DIRECTORY_NOT_EMPTY = "directory_not_empty", "A directory that should become a zone already holds files."
    NOT_A_DIRECTORY = "not_a_directory", "A zone's path is a file."
    DIRECTORY_RIGHTS = "directory_rights", "Owner, group, mode or ACL of a zone root differ from the policy."
    TRASH_MISSING = "trash_missing", "A zone has no provisioned trash directory."
    TRASH_RIGHTS = "trash_rights", "A zone's trash directory is not mode 1777."
    ROOT_NOT_PINNED = (
        "root_not_pinned",
        "A zone root is not in fs.protected.directories, so it can be renamed away.",
    )
    PIN_UNSUPPORTED = "pin_unsupported", "This Hadoop's protected directories do not cover every rename."
    ROOT_EMPTY = "root_empty", "An empty zone root is not protected until it holds something."
    PINS_TO_SET = "pins_to_set", "fs.protected.directories should be changed by whoever owns the file."
    PIN_FAILED = "pin_failed", "The agent should pin zone roots and could not."
    POLICY_UNAVAILABLE = "policy_unavailable", "The agent cannot read its policy; it keeps to the last good one."
    CLUSTER_NOT_SEEN = "cluster_not_seen", "The agent could not look at the cluster."
    ZONE_ROOT_RENAMED = (
        "zone_root_renamed",
        "A zone's root, or a directory that holds one, was renamed away.",
    )
    RENAME_REFUSED = "rename_refused", "HDFS refused a rename across the border of a zone."
    CLEAR_DATA = "clear_data", "Something lies in clear where the policy wants encryption."
    FOREIGN_KEY_VERSION = (
        "foreign_key_version",
        "A file's data key is wrapped with another key than its zone's: nobody can read it there.",
    )
    EVENTS_LOST = "events_lost", "Some of HDFS's events were lost before the agent read them."
    EVENTS_UNAVAILABLE = "events_unavailable", "The agent cannot follow HDFS's events."
    LEASE_UNAVAILABLE = "lease_unavailable", "The KMS does not say which of several agents acts."
    OVER_BUDGET = "over_budget", "The agent would use more than it may, and rests for it."
    REVISION_STALE = "revision_stale", "The KMS enforces another policy revision than this document."
    KMS_PLAIN_HTTP = (
        "kms_plain_http",
        "The KMS is reached over plain HTTP: data keys cross the network in clear.",
    )
    KMS_GET_OPEN = "kms_get_open", "The KMS hands key material to this caller (operation GET is open)."
    KMS_UNREACHABLE = "kms_unreachable", "The KMS does not answer."
    NAMENODE_UNREACHABLE = "namenode_unreachable", "The NameNode does not answer."
    NO_KEY_PROVIDER = "no_key_provider", "The NameNode has no key provider configured."
    # Hadoop's ACL file (key acl lint)
    ACL_NO_EFFECT = "acl_no_effect", "A property that looks like an ACL and does nothing."
    ACL_EMPTY = "acl_empty", "An empty value is no ACL to Hadoop; one blank is how to say nobody."
    ACL_UNSET = "acl_unset", "An operation without ACL admits everybody."
    ACL_OPEN = "acl_open", "Everybody may do what is for few."
    ACL_GET_OPEN = "acl_get_open", "Everybody may ask for key material."
    ACL_SUPERUSER_DECRYPTS = "acl_superuser_decrypts", "HDFS's superuser may decrypt: encryption hides nothing from it."
    ACL_DEFAULTS_OFF = "acl_defaults_off", "A line for a key switches the defaults off for that key."
    ACL_KEYS_CLOSED = "acl_keys_closed", "No key ACL at all: no key can be used or made."
    ACL_NAMES_ARE_GROUPS = "acl_names_are_groups", "Names after the first blank are groups, not users."
    ACL_BLANK_IN_NAME = "acl_blank_in_name", "A name that holds a blank: only the first blank separates anything."
    ACL_WILDCARD_IN_LIST = "acl_wildcard_in_list", "A * among other names is a name, not everybody."
    ACL_KEY_CASE = "acl_key_case", "An ACL for a key name with upper case, which Hadoop's key stores write lower."
    ACL_UNKNOWN_NAME = "acl_unknown_name", "A user or group that this machine does not know."
    ACL_VARIABLE = "acl_variable", "A ${variable} that the file itself does not define."
    # This machine (doctor)
    CONFIGURATION = "configuration", "A configuration that the KMS would not start with."
    CLOCK_UNSYNCHRONISED = "clock_unsynchronised", "Nothing keeps this machine's clock right."
    CERTIFICATE = "certificate", "A certificate that clients will not take."
    CERTIFICATE_EXPIRES = "certificate_expires", "A certificate that has run out or is about to."
    KEYTAB = "keytab", "A keytab that clients' tickets will not fit, or that others can read."
    KDC = "kdc", "A KDC that gives the service no ticket, or whose clock is another."
    SECRET_EXPOSED = "secret_exposed", "A file with a secret that others than its owner can reach."
    SECRET_WEAK = "secret_weak", "A secret that can be guessed."
    KEY_STORE = "key_store", "A key store that cannot be reached or trusted."
    KEY_STORE_NOT_DURABLE = "key_store_not_durable", "A key store in a place that does not outlive the machine."
    AUDIT_SPACE = "audit_space", "No room for the audit log, without which requests are refused."
    SIMPLE_AUTHENTICATION = "simple_authentication", "Users are what clients say they are."
    OPEN_FILES_LOW = "open_files_low", "Too few open files for the connections of a cluster."
    CORE_DUMPS = "core_dumps", "A core file of the KMS would hold keys."
    SWAP = "swap", "Memory with keys in it may be written to a disk in clear."
    HADOOP_MISSING = "hadoop_missing", "No Hadoop or Java for the commands that talk to HDFS."
    HADOOP_UNTESTED = "hadoop_untested", "A version of Hadoop or Java that this release is not tested with."
    AWS_KMS = "aws_kms", "An AWS KMS key that cannot protect a key store as it is."
    AWS_KMS_PERMISSION = "aws_kms_permission", "AWS does not let this server do with the key what it has to."
    AWS_KMS_OPEN = "aws_kms_open", "More than this server's own seals, or others than it, can be opened with the key."
    VAULT = "vault", "A Vault that does not answer, or does not do what the key server relies on."
    VAULT_TOKEN = "vault_token", "A token of Vault that is dead, that ends, or that has more power than it needs."
    VAULT_POLICY = "vault_policy", "Vault does not let the key server do what it must, or lets it do what it must not."
    VAULT_KEY = "vault_key", "A Transit key that must not protect anything."
    VAULT_SETUP = "vault_setup", "Vault is set up so that records, logins or evidence can be lost."
    # A node of an EMR cluster (emr node)
    NODE_SET_UP = "node_set_up", "A node that this mode of the bootstrap does not fit."
    NODE_UNFINISHED = "node_unfinished", "This node's set-up has not finished, or failed."
    NODE_OVERWRITTEN = "node_overwritten", "A file that the set-up wrote holds something else now."
    NODE_KEYTAB = "node_keytab", "The key server's copy of its keytab is not the node's keytab."
    NODE_STOCK_UNIT = "node_stock_unit", "The stock KMS's unit can be started again."
    NODE_PROVIDER = "node_provider", "The NameNode's key provider is not the one that it should be."
    # A node of an EMR cluster (doctor node)
    NODE_RELEASE = "node_release", "A release that Ringfence does not run on, or does not know."
    NODE_JAVA = "node_java", "No Java that Ringfence's commands run with, or not the one that the release brings."
    NODE_PYTHON = "node_python", "No Python that Ringfence runs with."
    NODE_KMS_PORT = "node_kms_port", "Nothing comes back from the KMS's port: a firewall or a security group."
    NODE_DISK_CLEAR = "node_disk_clear", "A disk of this node that nothing encrypts."
    NODE_DISK_SUSPENDED = "node_disk_suspended", "An encrypted disk that stands still."
    NODE_PROXY_USER = "node_proxy_user", "A service that may act for its users in Hadoop, but not at the KMS."
    NODE_NAME_RULES = "node_name_rules", "The KMS makes other user names of principals than Hadoop does."
    NODE_TOKENS = "node_tokens", "Jobs get no delegation tokens of the KMS, and fail inside zones."
    # EMR (lint, audit)
    EMR_JSON = "emr_json", "The document is not well-formed JSON, or larger than any such document."
    EMR_DUPLICATE_MEMBER = "emr_duplicate_member", "A member is written twice; which one holds would be a guess."
    EMR_UNKNOWN_MEMBER = "emr_unknown_member", "A member that EMR does not know; the nearest known one is named."
    EMR_MISSING_MEMBER = "emr_missing_member", "A member is absent that what is written beside it needs."
    EMR_NEEDLESS_MEMBER = "emr_needless_member", "A member that means nothing beside what else is written."
    EMR_BAD_VALUE = "emr_bad_value", "A value has the wrong type or form."
    EMR_TEXT_BOOLEAN = "emr_text_boolean", "A boolean is written as text."
    EMR_OUTPUT_MEMBER = "emr_output_member", "A member that only the service writes, and takes from nobody."
    EMR_KEY = "emr_key", "An AWS KMS key that EMR cannot use as it is named."
    EMR_PROVIDER_CLASS = "emr_provider_class", "A Java class that EMR will not load, or not as the one it should be."
    EMR_S3_OBJECT = "emr_s3_object", "An object in S3 that is not named as EMR wants it."
    EMR_CERTIFICATE = "emr_certificate", "Certificates that nodes will not start with, or not take from each other."
    EMR_RELEASE = "emr_release", "The release cannot do what the document says."
    EMR_RELEASE_UNKNOWN = (
        "emr_release_unknown",
        "A release that this version does not know; it is taken for the last it knows.",
    )
    EMR_METADATA_SERVICE = (
        "emr_metadata_service",
        "Something on the nodes will not reach the instance metadata service.",
    )
    EMR_METASTORE_TLS = "emr_metastore_tls", "Spark or Livy will not reach the Hive metastore over TLS."
    EMR_CSE_CUSTOM = "emr_cse_custom", "A provider for client-side encryption that this release does not take."
    EMR_S3_SET_TWICE = "emr_s3_set_twice", "The cluster and its security configuration both set encryption of S3."
    EMR_CLEAR_AT_REST = "emr_clear_at_rest", "Data rests in clear."
    EMR_CLEAR_ROOT_DEVICE = "emr_clear_root_device", "The root device, where a key store of HDFS rests, is in clear."
    EMR_CLEAR_IN_TRANSIT = "emr_clear_in_transit", "Data crosses the network in clear."
    EMR_WEAK_CIPHER = "emr_weak_cipher", "Data crosses the network under a cipher that is no longer good."
    EMR_IN_TRANSIT_SCOPE = "emr_in_transit_scope", "What in-transit encryption protects in this release."
    # EMR (classifications, kms harden)
    EMR_NEEDS_KERBEROS = (
        "emr_needs_kerberos",
        "Encryption that without Kerberos has no effect, or gives its key away.",
    )
    EMR_NEEDS_KEY_STORES = "emr_needs_key_stores", "TLS that needs files on the nodes, which no classification brings."
    EMR_KNOWN_DEFECT = "emr_known_defect", "EMR contradicts itself here; what puts it right costs something."
    EMR_STOCK_KMS = "emr_stock_kms", "Hadoop's own KMS is not, or no longer, as `ringfence kms harden` sets it up."
    # EMR (permissions, audit)
    EMR_KEY_PERMISSION = "emr_key_permission", "A role that EMR uses may not do with a KMS key what it has to."
    EMR_UNCHECKED = "emr_unchecked", "Something that could not be looked at, so that nothing is said of it."
    EMR_OTHER_DOCUMENT = "emr_other_document", "A cluster that was created with another document than the one given."
    EMR_CONFIGURATION_GONE = (
        "emr_configuration_gone",
        "A cluster whose security configuration was deleted: nobody can read any more what it encrypts.",
    )
    # EMR (launch, and lint of a document with its cluster)
    EMR_KEY_NAME_CASE = "emr_key_name_case", "A key name with upper case: the cluster fails at launch."
    EMR_NO_HDFS = "emr_no_hdfs", "The cluster's applications bring no HDFS, which encryption zones belong to."
    EMR_PRIMARY_NODES = "emr_primary_nodes", "A number of primary nodes, or something beside it, that EMR does not do."
    EMR_SINGLE_NODE_KEY_STORE = (
        "emr_single_node_key_store",
        "Three primary nodes, and keys that rest on one of them alone.",
    )
    EMR_NO_RANGER_KMS = "emr_no_ranger_kms", "Settings for Ranger KMS, which the release does not have."
    EMR_LIMIT = "emr_limit", "More, or longer, than EMR's API takes."
    EMR_ZONES_RECONFIGURED = "emr_zones_reconfigured", "Zones or their KMS to be reconfigured, which EMR does not do."
    EMR_CREATION_ONLY = "emr_creation_only", "What a cluster gets when it is created, and never again."
    EMR_ZONES_BESIDE_TAKEOVER = (
        "emr_zones_beside_takeover",
        "EMR is to make zones with keys of a KMS that Ringfence's replaces.",
    )
    EMR_KERBEROS_MISMATCH = (
        "emr_kerberos_mismatch",
        "Kerberos in the security configuration and the cluster's attributes do not go together.",
    )
    EMR_CLASSIFICATION = "emr_classification", "A classification that EMR does not know, or one given twice."
    EMR_SECRET_IN_CLEAR = "emr_secret_in_clear", "A secret where whoever may describe the cluster reads it."
    EMR_SECRET_REFERENCE = "emr_secret_reference", "A reference to a secret that EMR will not resolve."
    EMR_KMS_ADDRESS = "emr_kms_address", "An address of the KMS that does not go with where it runs."
    EMR_STEP_ORDER = "emr_step_order", "Steps that do not wait for the zones that they write to."
    EMR_SPOT = "emr_spot", "Data on instances that AWS takes away when it wants them."
    # Moves (mv, decide-move, agent API)
    ZONE_TO_ZONE = "zone_to_zone", "A rename cannot cross from one encryption zone into another."
    ZONE_TO_CLEAR = "zone_to_clear", "A rename cannot leave an encryption zone for a clear place."
    CLEAR_TO_ZONE = "clear_to_zone", "A rename cannot bring clear files into an encryption zone."
    ZONE_ROOT = "zone_root", "The root of an encryption zone is not renamed."
    ZONE_ROOT_ANCESTOR = (
        "zone_root_ancestor",
        "A directory that holds an encryption zone's root is not renamed.",
    )
    FLOW_REFUSED = "flow_refused", "The policy's flows let one session not bring together the data of two zones."
    RAW_PATH = "raw_path", "Paths under /.reserved/raw are not renamed."
    SNAPSHOT_PATH = "snapshot_path", "Snapshots are read-only."

    def __repr__(self) -> str:
        return f"Rule.{self.name}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing found, as contracts section 1 shapes it. `path` is an HDFS path, or `FILE:LINE` in a document."""

    severity: Severity
    rule: Rule
    path: str
    message: str
    hint: str
    key: str | None = None
    command: str | None = None

    def to_json(self) -> dict[str, Any]:
        """The JSON object; `key` and `command` are absent when there is none."""
        out: dict[str, Any] = {"severity": self.severity.value, "rule": self.rule.value, "path": self.path}
        if self.key is not None:
            out["key"] = self.key
        out |= {"message": self.message, "hint": self.hint}
        if self.command is not None:
            out["command"] = self.command
        return out


def findings_json(findings: Iterable[Finding]) -> dict[str, Any]:
    """`{"findings": [...]}`, the shape of every list of findings."""
    return {"findings": [finding.to_json() for finding in findings]}

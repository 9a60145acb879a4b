"""EMR with what surrounds it (KMS keys, roles, STS) over real HTTP on loopback, for what moto does not do as AWS does.

boto3 itself talks to it, signed; signatures are verified. What it does for real: documents of security configurations
are checked (`emr_document_checks`), names are taken once, listings come in pages, a missing configuration refuses a
cluster, no more than 16 bootstrap actions and 256 steps, requests above EMR's rates are throttled once a test wants it,
clusters and steps go on with a clock and end (`emr_clusters`), key states, key policies, grants and roles' own policies
decide (`aws_kms_world`, `aws_policy`), IAM simulates the latter. S3 is not here: moto does it well enough.

    with EmrDouble.started() as double:
        emr = double.client("emr")
        emr.run_job_flow(...)
        double.advance(120)

One account and one region, in this process, on a thread of its own. Nothing of it was ever compared with EMR itself but
by the contract suite, when somebody names an account for it.
"""

from __future__ import annotations

import contextlib
import http.server
import json
import re
import secrets
import threading
import urllib.parse
import uuid
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from aws_kms_double import ACCOUNT, OTHER_ACCOUNT, Credentials, authenticate, identity_answer
from aws_kms_world import REGION, AwsError, Operations, World
from aws_policy import Asked, Principal, identity_decision, is_allowed
from emr_clusters import DOWN, Clock, Cluster, Step, new_id
from emr_document_checks import BadDocumentError, check_document

INSTANCE_ROLE = f"arn:aws:iam::{ACCOUNT}:role/EMR_EC2_DefaultRole"
SERVICE_ROLE = f"arn:aws:iam::{ACCOUNT}:role/EMR_DefaultRole"
_EVERYTHING = {"Statement": [{"Effect": "Allow", "Action": "*", "Resource": "*"}]}
_PAGE = 50
_MAX_ACTIONS, _MAX_STEPS = 16, 256
_LABEL = re.compile(r"(emr|emr-spark)-(\d+)\.(\d+)\.(\d+)")
# burst, then so many in a second
_RATES = {
    "DescribeCluster": (10, 1.0),
    "ListBootstrapActions": (10, 1.0),
    "ListInstanceGroups": (10, 1.0),
    "TerminateJobFlows": (10, 1.0),
}
_SLOW = (5, 0.5)


class EmrWorld(World):
    """Everything that the double knows besides keys."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = Clock()
        self.configurations: dict[str, tuple[str, float]] = {}
        self.clusters: dict[str, Cluster] = {}
        self.roles: dict[str, Principal] = {}
        self.buckets: dict[str, tuple[float, float]] = {}
        self.throttles = False
        self.step_failures: dict[str, str] = {}
        self.bootstrap_failure: tuple[int, int] | None = None
        self.counts: dict[str, int] = {}

    def throttle(self, operation: str) -> None:
        burst, per_s = _RATES.get(operation, _SLOW)
        left, at = self.buckets.get(operation, (float(burst), self.clock.now()))
        left = min(burst, left + (self.clock.now() - at) * per_s)
        if self.throttles and left < 1:
            raise AwsError("ThrottlingException", "Rate exceeded")
        self.buckets[operation] = (max(left - 1, 0), self.clock.now())

    def go_wrong(self, operation: str) -> None:
        """Raises what a test asked for."""
        for fault in self.faults:
            if fault["operation"] in (operation, "*") and fault["times"] > 0:
                fault["times"] -= 1
                raise AwsError(fault["code"], fault.get("message", ""), fault.get("status", 400))

    def use_key(self, arn: str, role: Principal, actions: Mapping[str, Mapping[str, str]]) -> str | None:
        """What keeps a role from using a key, None when nothing does. `actions` have the condition keys of each."""
        key = self.keys.get(arn)
        if key is None:
            return f"The KMS key {arn} is invalid: it does not exist"
        if key.state != "Enabled":
            return f"The KMS key {arn} is invalid: it is {key.state}"
        if key.spec != "SYMMETRIC_DEFAULT":
            return f"The KMS key {arn} is invalid: it is {key.spec}"
        for action, facts in actions.items():
            asked = Asked(action, key.arn, key.account, {}, facts)
            if not is_allowed(role, asked, key.policy, key.grants):
                return f"The KMS key {arn} is invalid: {role.role_arn} may not {action}"
        return None


class EmrOperations:
    """The EMR operations, each a method with the name it has in the protocol."""

    def __init__(self, world: EmrWorld) -> None:
        self._world = world

    def CreateSecurityConfiguration(self, ask: Mapping[str, Any]) -> dict[str, Any]:  # noqa: N802
        name = ask["Name"]
        if name in self._world.configurations:
            raise _invalid(f"Security configuration with name '{name}' already exists.")
        try:
            check_document(ask["SecurityConfiguration"])
        except BadDocumentError as error:
            raise _invalid(str(error)) from None
        created = self._world.clock.now()
        self._world.configurations[name] = (ask["SecurityConfiguration"], created)
        return {"Name": name, "CreationDateTime": created}

    def DescribeSecurityConfiguration(self, ask: Mapping[str, Any]) -> dict[str, Any]:  # noqa: N802
        text, created = self._configuration(ask["Name"])
        return {"Name": ask["Name"], "SecurityConfiguration": text, "CreationDateTime": created}

    def ListSecurityConfigurations(self, ask: Mapping[str, Any]) -> dict[str, Any]:  # noqa: N802
        entries = [{"Name": name, "CreationDateTime": made} for name, (_, made) in self._world.configurations.items()]
        return _page(sorted(entries, key=lambda each: each["CreationDateTime"]), "SecurityConfigurations", ask)

    def DeleteSecurityConfiguration(self, ask: Mapping[str, Any]) -> dict[str, Any]:  # noqa: N802
        self._configuration(ask["Name"])
        del self._world.configurations[ask["Name"]]
        return {}

    def RunJobFlow(self, ask: Mapping[str, Any]) -> dict[str, Any]:  # noqa: N802
        version = _version(ask.get("ReleaseLabel", ""))
        document = self._checked_configuration(ask, version)
        if len(ask.get("BootstrapActions", [])) > _MAX_ACTIONS:
            raise _validation(f"Maximum number of bootstrap actions exceeded: {_MAX_ACTIONS}.")
        _check_steps(ask.get("Steps", []), [])
        if "CustomAmiId" in ask and version < (5, 7, 0):
            raise _validation("Custom AMI is not allowed on release labels before emr-5.7.0.")
        instance = self._role(ask.get("JobFlowRole"), "InstanceProfile")
        service = self._role(ask.get("ServiceRole"), "ServiceRole")
        cluster = Cluster(
            request=dict(ask),
            created=self._world.clock.now(),
            since=self._world.clock.now(),
            may_start=lambda: self._ebs_problem(document, service),
            may_bootstrap=lambda: self._disk_problem(document, instance),
            groups=_groups(ask["Instances"]),
            steps=[self._step(each) for each in ask.get("Steps", [])],
            keeps_alive=bool(ask["Instances"].get("KeepJobFlowAliveWhenNoSteps")),
            is_protected=bool(ask["Instances"].get("TerminationProtected")),
            failing_action=self._world.bootstrap_failure if ask.get("BootstrapActions") else None,
        )
        cluster.is_protected = cluster.is_protected or any(group["count"] == 3 for group in _primaries(cluster))
        self._world.clusters[cluster.cluster_id] = cluster
        return {"JobFlowId": cluster.cluster_id, "ClusterArn": _cluster_arn(cluster)}

    def DescribeCluster(self, ask: Mapping[str, Any]) -> dict[str, Any]:  # noqa: N802
        cluster = self._cluster(ask["ClusterId"])
        request = cluster.request
        known = (
            "Name", "ReleaseLabel", "SecurityConfiguration", "ServiceRole", "LogUri", "LogEncryptionKmsKeyId",
            "Applications", "Configurations", "KerberosAttributes", "CustomAmiId", "Tags", "StepConcurrencyLevel",
        )  # fmt: skip
        found = {name: request[name] for name in known if name in request}
        return {
            "Cluster": {
                **found,
                "Id": cluster.cluster_id,
                "ClusterArn": _cluster_arn(cluster),
                "Status": cluster.status(),
                "Ec2InstanceAttributes": {"IamInstanceProfile": request.get("JobFlowRole")},
                "AutoTerminate": not cluster.keeps_alive,
                "TerminationProtected": cluster.is_protected,
                "InstanceCollectionType": "INSTANCE_GROUP",
            }
        }

    def ListClusters(self, ask: Mapping[str, Any]) -> dict[str, Any]:  # noqa: N802
        states = ask.get("ClusterStates")
        entries = [
            {
                "Id": each.cluster_id,
                "Name": each.request["Name"],
                "Status": each.status(),
                "ClusterArn": _cluster_arn(each),
            }
            for each in reversed(self._world.clusters.values())
            if not states or each.state in states
        ]
        return _page(entries, "Clusters", ask)

    def TerminateJobFlows(self, ask: Mapping[str, Any]) -> dict[str, Any]:  # noqa: N802
        clusters = [self._cluster(cluster_id) for cluster_id in ask["JobFlowIds"]]
        if any(each.is_protected for each in clusters):
            raise _validation("Could not shut down one or more job flows since they are termination protected.")
        for each in clusters:
            if each.state not in (*DOWN, "TERMINATING"):
                each.end("USER_REQUEST", "Terminated by user request", self._world.clock.now())
        return {}

    def SetTerminationProtection(self, ask: Mapping[str, Any]) -> dict[str, Any]:  # noqa: N802
        for cluster_id in ask["JobFlowIds"]:
            self._cluster(cluster_id).is_protected = ask["TerminationProtected"]
        return {}

    def AddJobFlowSteps(self, ask: Mapping[str, Any]) -> dict[str, Any]:  # noqa: N802
        cluster = self._cluster(ask["JobFlowId"])
        if cluster.state in (*DOWN, "TERMINATING"):
            raise _validation("A job flow that is shutting down, terminated, or finished may not be modified.")
        _check_steps(ask["Steps"], cluster.steps)
        steps = [self._step(each) for each in ask["Steps"]]
        cluster.steps += steps
        return {"StepIds": [each.step_id for each in steps]}

    def ListSteps(self, ask: Mapping[str, Any]) -> dict[str, Any]:  # noqa: N802
        states, ids = ask.get("StepStates"), ask.get("StepIds")
        entries = [
            each.describe()
            for each in reversed(self._cluster(ask["ClusterId"]).steps)
            if (not states or each.state in states) and (not ids or each.step_id in ids)
        ]
        return _page(entries, "Steps", ask)

    def DescribeStep(self, ask: Mapping[str, Any]) -> dict[str, Any]:  # noqa: N802
        return {"Step": self._find_step(ask["ClusterId"], ask["StepId"]).describe()}

    def CancelSteps(self, ask: Mapping[str, Any]) -> dict[str, Any]:  # noqa: N802
        found = []
        for step_id in ask["StepIds"]:
            step = self._find_step(ask["ClusterId"], step_id)
            may = step.state == "PENDING" or (step.state == "RUNNING" and "StepCancellationOption" in ask)
            if may:
                step.stop("CANCELLED", self._world.clock.now(), "Cancelled by user")
            found.append({"StepId": step_id, "Status": "SUBMITTED" if may else "FAILED"})
        return {"CancelStepsInfoList": found}

    def ListInstanceGroups(self, ask: Mapping[str, Any]) -> dict[str, Any]:  # noqa: N802
        cluster = self._cluster(ask["ClusterId"])
        entries = [
            {
                "Id": group["id"],
                "InstanceGroupType": group["role"],
                "InstanceType": group["type"],
                "Market": "ON_DEMAND",
                "RequestedInstanceCount": group["count"],
                "RunningInstanceCount": group["count"] if cluster.state in ("RUNNING", "WAITING") else 0,
            }
            for group in cluster.groups
        ]
        return _page(entries, "InstanceGroups", ask)

    def ListInstances(self, ask: Mapping[str, Any]) -> dict[str, Any]:  # noqa: N802
        cluster = self._cluster(ask["ClusterId"])
        kinds, group_id, states = ask.get("InstanceGroupTypes"), ask.get("InstanceGroupId"), ask.get("InstanceStates")
        state = {"STARTING": "PROVISIONING", "BOOTSTRAPPING": "BOOTSTRAPPING"}.get(
            cluster.state, "TERMINATED" if cluster.state in DOWN else "RUNNING"
        )
        entries = [
            {
                "Id": instance["id"],
                "Ec2InstanceId": instance["ec2"],
                "PrivateDnsName": f"ip-10-0-0-{instance['number']}.{REGION}.compute.internal",
                "PrivateIpAddress": f"10.0.0.{instance['number']}",
                "InstanceGroupId": group["id"],
                "InstanceType": group["type"],
                "Market": "ON_DEMAND",
                "Status": {"State": state},
            }
            for group in cluster.groups
            if (not kinds or group["role"] in kinds) and (not group_id or group["id"] == group_id)
            for instance in group["instances"]
            if not states or state in states
        ]
        return _page(entries, "Instances", ask)

    def ListBootstrapActions(self, ask: Mapping[str, Any]) -> dict[str, Any]:  # noqa: N802
        actions = self._cluster(ask["ClusterId"]).request.get("BootstrapActions", [])
        entries = [
            {
                "Name": each["Name"],
                "ScriptPath": each["ScriptBootstrapAction"]["Path"],
                "Args": each["ScriptBootstrapAction"].get("Args", []),
            }
            for each in actions
        ]
        return _page(entries, "BootstrapActions", ask)

    def _configuration(self, name: str) -> tuple[str, float]:
        if name not in self._world.configurations:
            raise _invalid(f"Security configuration with name '{name}' does not exist.")
        return self._world.configurations[name]

    def _cluster(self, cluster_id: str) -> Cluster:
        if cluster_id not in self._world.clusters:
            raise _invalid(f"Cluster id '{cluster_id}' is not valid.")
        return self._world.clusters[cluster_id]

    def _find_step(self, cluster_id: str, step_id: str) -> Step:
        found = next((each for each in self._cluster(cluster_id).steps if each.step_id == step_id), None)
        if found is None:
            raise _invalid(f"Step id '{step_id}' is not valid.")
        return found

    def _step(self, config: Mapping[str, Any]) -> Step:
        return Step(config, self._world.clock.now(), fails_with=self._world.step_failures.get(config["Name"]))

    def _role(self, name: str | None, what: str) -> Principal:
        role = self._world.roles.get((name or "").rpartition("/")[2])
        if role is None:
            raise _validation(f"Invalid {what}: {name}.")
        return role

    def _checked_configuration(self, ask: Mapping[str, Any], version: tuple[int, ...]) -> dict[str, Any]:
        name = ask.get("SecurityConfiguration")
        if name is None:
            document: dict[str, Any] = {}
        elif name not in self._world.configurations:
            raise _validation(f"Security configuration with name '{name}' does not exist.")
        elif version < (4, 8, 0):
            raise _validation("Security configurations need release label emr-4.8.0 or later.")
        else:
            document = json.loads(self._world.configurations[name][0])
        has_kerberos = bool(document.get("AuthenticationConfiguration", {}).get("KerberosConfiguration"))
        if has_kerberos is not bool(ask.get("KerberosAttributes")):
            raise _validation("KerberosAttributes and a security configuration with Kerberos go together.")
        return document

    def _disk(self, document: Mapping[str, Any]) -> Mapping[str, Any]:
        encryption = document.get("EncryptionConfiguration", {})
        if encryption.get("EnableAtRestEncryption") not in (True, "true"):
            return {}
        found: Mapping[str, Any] = encryption["AtRestEncryptionConfiguration"].get(
            "LocalDiskEncryptionConfiguration", {}
        )
        return found if found.get("EncryptionKeyProviderType") == "AwsKms" else {}

    def _ebs_problem(self, document: Mapping[str, Any], service: Principal) -> str | None:
        disk = self._disk(document)
        if not disk.get("EnableEbsEncryption"):
            return None
        by_ec2 = {"kms:ViaService": f"ec2.{REGION}.amazonaws.com"}
        users = dict.fromkeys(("kms:GenerateDataKeyWithoutPlaintext", "kms:Decrypt", "kms:ReEncryptFrom"), by_ec2)
        grants = {"kms:CreateGrant": by_ec2 | {"kms:GrantIsForAWSResource": "true"}}
        return self._world.use_key(disk["AwsKmsKey"], service, users | grants)

    def _disk_problem(self, document: Mapping[str, Any], instance: Principal) -> str | None:
        disk = self._disk(document)
        if not disk:
            return None
        return self._world.use_key(disk["AwsKmsKey"], instance, {"kms:GenerateDataKey": {}, "kms:Decrypt": {}})


def iam_answer(world: EmrWorld, operation: str, form: Mapping[str, str]) -> str:
    """What is inside the result of an IAM operation."""
    if operation == "GetRole":
        role = world.roles.get(form["RoleName"])
        if role is None:
            raise AwsError("NoSuchEntity", f"The role with name {form['RoleName']} cannot be found.", 404)
        return _role_xml(role)
    if operation == "GetInstanceProfile":
        name = form["InstanceProfileName"]
        role = world.roles.get(name)
        if role is None:
            raise AwsError("NoSuchEntity", f"Instance Profile {name} cannot be found.", 404)
        arn = f"arn:aws:iam::{ACCOUNT}:instance-profile/{name}"
        return (
            f"<InstanceProfile><InstanceProfileName>{name}</InstanceProfileName><InstanceProfileId>P</InstanceProfileId>"
            f"<Path>/</Path><CreateDate>2026-01-01T00:00:00Z</CreateDate><Arn>{arn}</Arn>"
            f"<Roles><member>{_role_xml(role, 'x')}</member></Roles></InstanceProfile>"
        )
    if operation == "SimulatePrincipalPolicy":
        return _simulation(world, form)
    raise AwsError("InvalidAction", operation)


def _simulation(world: EmrWorld, form: Mapping[str, str]) -> str:
    arn = form["PolicySourceArn"]
    role = next((each for each in world.roles.values() if each.role_arn == arn), None)
    if role is None:
        raise AwsError("NoSuchEntity", f"{arn} cannot be found.", 404)
    facts = {
        form[name]: form[name.replace("ContextKeyName", "ContextKeyValues.member.1")]
        for name in form
        if name.endswith("ContextKeyName")
    }
    resource = form["ResourceArns.member.1"]
    found = []
    for name, action in form.items():
        if name.startswith("ActionNames.member."):
            decision = identity_decision(role.policy, Asked(action, resource, resource.split(":")[4], {}, facts))
            found.append(
                f"<member><EvalActionName>{action}</EvalActionName><EvalResourceName>{resource}</EvalResourceName>"
                f"<EvalDecision>{decision}</EvalDecision></member>"
            )
    return f"<IsTruncated>false</IsTruncated><EvaluationResults>{''.join(found)}</EvaluationResults>"


def _role_xml(role: Principal, tag: str = "Role") -> str:
    name = role.role_arn.rpartition("/")[2]
    inner = (
        f"<Path>/</Path><RoleName>{name}</RoleName><RoleId>R</RoleId><Arn>{role.role_arn}</Arn>"
        "<CreateDate>2026-01-01T00:00:00Z</CreateDate>"
    )
    return inner if tag != "Role" else f"<Role>{inner}</Role>"


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    world: EmrWorld

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        target = self.headers.get("X-Amz-Target", "")
        form = dict(urllib.parse.parse_qsl(body.decode())) if not target else {}
        operation = target.rpartition(".")[2] or form.get("Action", "")
        try:
            with self.world.lock:
                principal, service = authenticate(self.world, self, body)
                self.world.go_wrong(operation)
                answer = self._do(principal, service, operation, form or json.loads(body or b"{}"))
        except AwsError as error:
            self._refuse(error, is_json=bool(target))
            return
        self._answer(200, answer)

    def _do(self, principal: Principal, service: str, operation: str, ask: Mapping[str, Any]) -> bytes:
        self.world.counts[operation] = self.world.counts.get(operation, 0) + 1
        if service == "kms":
            return json.dumps(self._call(Operations(self.world, principal), operation, ask)).encode()
        if service == "sts":
            return identity_answer(principal, operation, ask)
        prefix = "elasticmapreduce" if service == "elasticmapreduce" else "iam"
        self._authorize(principal, f"{prefix}:{operation}")
        if service == "iam":
            inner = iam_answer(self.world, operation, ask)
            return (
                f'<{operation}Response xmlns="https://iam.amazonaws.com/doc/2010-05-08/">'
                f"<{operation}Result>{inner}</{operation}Result></{operation}Response>"
            ).encode()
        for cluster in self.world.clusters.values():
            cluster.settle(self.world.clock.now())
        self.world.throttle(operation)
        return json.dumps(self._call(EmrOperations(self.world), operation, ask)).encode()

    def _call(self, operations: object, operation: str, ask: Mapping[str, Any]) -> dict[str, Any]:
        method: Callable[[Mapping[str, Any]], dict[str, Any] | None] | None
        method = getattr(operations, operation, None) if operation.isalpha() else None
        if method is None:
            raise AwsError("UnknownOperationException", operation)
        return method(ask) or {}

    def _authorize(self, principal: Principal, action: str) -> None:
        if identity_decision(principal.policy, Asked(action, "*", ACCOUNT, {})) != "allowed":
            raise AwsError(
                "AccessDenied" if action.startswith("iam:") else "AccessDeniedException",
                f"User: {principal.arn} is not authorized to perform: {action}",
                403 if action.startswith("iam:") else 400,
            )

    def _refuse(self, error: AwsError, *, is_json: bool) -> None:
        if is_json:
            body = json.dumps({"__type": error.code, "Message": str(error), "message": str(error)}).encode()
        else:
            body = (
                f"<ErrorResponse><Error><Type>Sender</Type><Code>{error.code}</Code><Message>{error}</Message></Error>"
                f"<RequestId>{uuid.uuid4()}</RequestId></ErrorResponse>"
            ).encode()
        self._answer(error.status, body)

    def _answer(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/x-amz-json-1.1")
        self.send_header("Content-Length", str(len(body)))
        self.send_header("x-amzn-RequestId", str(uuid.uuid4()))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Silence: the log of a test is pytest's."""


class EmrDouble:
    """A running double. `admin` may do everything; `auditor` what `allow` says, and at first nothing."""

    region = REGION

    def __init__(self, url: str, world: EmrWorld, credentials: Mapping[str, Credentials]) -> None:
        self.url = url
        self.world = world
        self.admin = credentials["admin"]
        self.auditor = credentials["auditor"]
        self._clients: dict[tuple[str, str], Any] = {}

    @classmethod
    @contextlib.contextmanager
    def started(cls) -> Iterator[EmrDouble]:
        world = EmrWorld()
        credentials = {
            name: Credentials("AKIA" + secrets.token_hex(8).upper(), secrets.token_urlsafe(30))
            for name in ("admin", "auditor")
        }
        for name, held in credentials.items():
            arn = f"arn:aws:iam::{ACCOUNT}:user/{name}"
            policy = _EVERYTHING if name == "admin" else {}
            world.principals[held.access_key] = Principal(
                held.access_key, held.secret, None, arn, arn, ACCOUNT, dict(policy)
            )
        handler = type("Handler", (_Handler,), {"world": world})
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, args=(0.02,), name="emr-double", daemon=True)
        thread.start()
        try:
            double = cls(f"http://127.0.0.1:{server.server_address[1]}", world, credentials)
            double.make_role(INSTANCE_ROLE)
            double.make_role(SERVICE_ROLE)
            yield double
        finally:
            server.shutdown()
            server.server_close()
            thread.join()
            for cluster in world.clusters.values():
                for step in cluster.steps:
                    step.stop(step.state, 0, "")
                    if step.output is not None:
                        step.output.close()

    def client(self, service: str, credentials: Credentials | None = None) -> Any:
        """A plain boto3 client. Kept: the SDK takes its time to make one."""
        import boto3.session

        held = credentials or self.admin
        if (service, held.access_key) not in self._clients:
            session = boto3.session.Session(held.access_key, held.secret, region_name=REGION)
            self._clients[service, held.access_key] = session.client(service, endpoint_url=self.url)
        return self._clients[service, held.access_key]

    def environment(self, credentials: Credentials | None = None) -> dict[str, str]:
        """For a process, or this one, that is to reach the double and nothing else of AWS."""
        found = {f"AWS_ENDPOINT_URL_{service}": self.url for service in ("EMR", "KMS", "IAM", "STS")}
        return found | (credentials or self.admin).environment() | {"AWS_REGION": REGION}

    def advance(self, seconds: float) -> None:
        """So much time goes by, for clusters, steps and rates."""
        with self.world.lock:
            self.world.clock.advance(seconds)
            for cluster in self.world.clusters.values():
                cluster.settle(self.world.clock.now())

    def make_role(self, arn: str, policy: Mapping[str, Any] | None = None) -> None:
        """A role, with an instance profile of its name; `policy` is its own."""
        account = arn.split(":")[4]
        session = f"arn:aws:sts::{account}:assumed-role/{arn.rpartition('/')[2]}/i-1"
        self.world.roles[arn.rpartition("/")[2]] = Principal("", "", None, session, arn, account, dict(policy or {}))

    def make_key(self, *statements: Mapping[str, Any], delegates: bool = True, **fields: Any) -> str:
        """A KMS key, whose policy leaves it to the account (unless told not to) and says `statements`; its ARN."""
        to_account = {
            "Sid": "Enable IAM User Permissions",
            "Effect": "Allow",
            "Principal": {"AWS": f"arn:aws:iam::{ACCOUNT}:root"},
            "Action": "kms:*",
            "Resource": "*",
        }
        admin = {
            "Sid": "Administrators",
            "Effect": "Allow",
            "Principal": {"AWS": f"arn:aws:iam::{ACCOUNT}:user/admin"},
            "Action": "kms:*",
            "Resource": "*",
        }
        policy = {"Version": "2012-10-17", "Statement": [to_account if delegates else admin, *statements]}
        made = self.client("kms").create_key(Policy=json.dumps(policy), **fields)
        return str(made["KeyMetadata"]["Arn"])

    def allow(self, *actions: str) -> None:
        """What the auditor may do, of everything."""
        statement = {"Effect": "Allow", "Action": list(actions), "Resource": "*"}
        self.world.principals[self.auditor.access_key].policy = {"Statement": [statement] if actions else []}

    def fault(self, operation: str, code: str, *, times: int = 1, **fields: Any) -> None:
        """The next so many requests of `operation` (`*` for all) are answered with an error."""
        with self.world.lock:
            self.world.faults.append({"operation": operation, "code": code, "times": times, **fields})


def _invalid(message: str) -> AwsError:
    return AwsError("InvalidRequestException", message)


def _validation(message: str) -> AwsError:
    return AwsError("ValidationException", message)


def _page(entries: list[dict[str, Any]], key: str, ask: Mapping[str, Any]) -> dict[str, Any]:
    begin = int(ask.get("Marker", 0))
    more = {"Marker": str(begin + _PAGE)} if len(entries) > begin + _PAGE else {}
    return {key: entries[begin : begin + _PAGE], **more}


def _version(label: str) -> tuple[int, ...]:
    match = _LABEL.fullmatch(label)
    if match is None:
        raise _validation(f"The supplied release label is invalid: {label}.")
    return tuple(int(part) for part in match.groups()[1:])


def _check_steps(asked: list[Mapping[str, Any]], there: list[Step]) -> None:
    active = sum(each.state in ("PENDING", "RUNNING", "CANCEL_PENDING") for each in there)
    if active + len(asked) > _MAX_STEPS:
        raise _validation(f"Maximum number of active steps exceeded: {_MAX_STEPS}.")
    for each in asked:
        words = [each["HadoopJarStep"]["Jar"], *each["HadoopJarStep"].get("Args", [])]
        if sum(map(len, words)) > 10_240:
            raise _validation("The total length of a step's arguments exceeds 10240 characters.")


def _groups(instances: Mapping[str, Any]) -> list[dict[str, Any]]:
    asked = instances.get("InstanceGroups")
    if asked is None:
        workers = int(instances.get("InstanceCount", 1)) - 1
        kind = instances.get("MasterInstanceType", "m5.xlarge")
        asked = [{"InstanceRole": "MASTER", "InstanceType": kind, "InstanceCount": 1}]
        if workers:
            core = instances.get("SlaveInstanceType", kind)
            asked.append({"InstanceRole": "CORE", "InstanceType": core, "InstanceCount": workers})
    groups: list[dict[str, Any]] = []
    number = 10
    for each in asked:
        if each["InstanceRole"] == "MASTER" and each["InstanceCount"] not in (1, 3):
            raise _validation("The number of primary nodes is 1 or 3.")
        machines = []
        for _ in range(each["InstanceCount"]):
            machines.append({"id": new_id("ci"), "ec2": "i-" + secrets.token_hex(9)[:17], "number": number})
            number += 1
        groups.append(
            {
                "id": new_id("ig"),
                "role": each["InstanceRole"],
                "type": each["InstanceType"],
                "count": each["InstanceCount"],
                "instances": machines,
            }
        )
    if not any(group["role"] == "MASTER" for group in groups):
        raise _validation("An instance group of the role MASTER is needed.")
    return groups


def _primaries(cluster: Cluster) -> list[dict[str, Any]]:
    return [group for group in cluster.groups if group["role"] == "MASTER"]


def _cluster_arn(cluster: Cluster) -> str:
    return f"arn:aws:elasticmapreduce:{REGION}:{ACCOUNT}:cluster/{cluster.cluster_id}"


__all__ = ["ACCOUNT", "INSTANCE_ROLE", "OTHER_ACCOUNT", "REGION", "SERVICE_ROLE", "EmrDouble"]
